//! Tokens of Microsoft Entra ID for Azure, by client credentials.
//!
//! One token serves all requests until shortly before it expires. One request fetches the next for all that wait; while
//! the old one is still good, a failed fetch is only a line in the log.
//!
//! # Source
//! "OAuth 2.0 client credentials flow on the Microsoft identity platform",
//! <https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow>.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::credential::CredentialError;

/// How long before its end a token is replaced.
const REFRESH_BEFORE: Duration = Duration::from_secs(300);
/// How long a fetch may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// How long after a failed fetch of a token that is still good the next one is tried.
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// Answers are a token and a few numbers.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Who asks for tokens, and where.
#[derive(Clone, Debug)]
pub struct ClientCredentials {
    /// `{authority}/{tenant}/oauth2/v2.0/token`.
    pub token_url: String,
    /// The application's id.
    pub client_id: String,
    /// Its secret.
    pub client_secret: SecretString,
    /// What the token is for.
    pub scope: String,
}

/// A source of tokens.
#[derive(Debug)]
pub struct EntraTokens {
    credentials: ClientCredentials,
    http: reqwest::Client,
    current: ArcSwapOption<Token>,
    fetching: Mutex<()>,
}

#[derive(Debug)]
struct Token {
    header: HeaderValue,
    refresh_at: Instant,
    expires_at: Instant,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    expires_in: u64,
}

#[derive(Deserialize)]
struct TokenFault {
    error: String,
}

impl EntraTokens {
    /// A source that has fetched nothing yet.
    pub fn new(credentials: ClientCredentials, http: reqwest::Client) -> Self {
        Self {
            credentials,
            http,
            current: ArcSwapOption::empty(),
            fetching: Mutex::default(),
        }
    }

    /// The present token as an `Authorization` header, if it need not be replaced yet.
    pub fn ready(&self) -> Option<HeaderValue> {
        let token = self.current.load();
        token
            .as_ref()
            .filter(|token| Instant::now() < token.refresh_at)
            .map(|token| token.header.clone())
    }

    /// A token that is good now, fetched if need be.
    ///
    /// # Errors
    /// None could be had.
    pub async fn header(&self) -> Result<HeaderValue, CredentialError> {
        if let Some(header) = self.ready() {
            return Ok(header);
        }
        let _turn = self.fetching.lock().await;
        // Whoever had the turn before may have fetched it.
        if let Some(header) = self.ready() {
            return Ok(header);
        }
        match tokio::time::timeout(FETCH_TIMEOUT, self.fetch())
            .await
            .unwrap_or(Err(CredentialError::Timeout))
        {
            Ok(token) => {
                let header = token.header.clone();
                self.current.store(Some(Arc::new(token)));
                Ok(header)
            }
            Err(error) => self.keep_the_old(error),
        }
    }

    /// Forgets the token: the provider refused it.
    pub fn forget(&self) {
        self.current.store(None);
    }

    fn keep_the_old(&self, error: CredentialError) -> Result<HeaderValue, CredentialError> {
        let now = Instant::now();
        let old = self
            .current
            .load_full()
            .filter(|token| now < token.expires_at)
            .ok_or(error)?;
        tracing::warn!("fetching an Entra token failed; the old one is used until it expires");
        let header = old.header.clone();
        self.current.store(Some(Arc::new(Token {
            header: header.clone(),
            refresh_at: (now + RETRY_AFTER).min(old.expires_at),
            expires_at: old.expires_at,
        })));
        Ok(header)
    }

    async fn fetch(&self) -> Result<Token, CredentialError> {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &self.credentials.client_id),
            ("client_secret", self.credentials.client_secret.expose_secret()),
            ("scope", &self.credentials.scope),
        ];
        let asked_at = Instant::now();
        let answer = self.http.post(&self.credentials.token_url).form(&form).send().await;
        // The error of a failed call names the URL and nothing secret; the form is not part of it.
        let mut answer = answer.map_err(|error| CredentialError::Unreachable(error.without_url().to_string()))?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|_| CredentialError::Unreadable)? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(CredentialError::Unreadable);
            }
            body.extend_from_slice(&chunk);
        }
        if !status.is_success() {
            let fault: Option<TokenFault> = serde_json::from_slice(&body).ok();
            // Only the short code: the description repeats ids of the tenant and of the application.
            let code = fault.map_or_else(|| "no error code".to_owned(), |fault| fault.error);
            return Err(CredentialError::Refused {
                status: status.as_u16(),
                code,
            });
        }
        let token: TokenAnswer = serde_json::from_slice(&body).map_err(|_| CredentialError::Unreadable)?;
        let lifetime = Duration::from_secs(token.expires_in.min(86_400));
        let mut header =
            HeaderValue::try_from(format!("Bearer {}", token.access_token)).map_err(|_| CredentialError::Unreadable)?;
        header.set_sensitive(true);
        Ok(Token {
            header,
            // A short-lived token is replaced at half of its life.
            refresh_at: asked_at + lifetime.saturating_sub(REFRESH_BEFORE).max(lifetime / 2),
            expires_at: asked_at + lifetime,
        })
    }
}
