//! Workload identity federation: another provider's token is exchanged for one of Google's.
//!
//! # Source
//! "Workload Identity Federation", <https://docs.cloud.google.com/iam/docs/workload-identity-federation>; AIP-4117,
//! <https://google.aip.dev/auth/4117>.

use std::time::Duration;

use http::HeaderValue;

use super::{REFRESH_BEFORE, SCOPE, TokenAnswer};
use crate::config::{ExternalAccount, SubjectFormat, SubjectSource};
use crate::secrets::aws::identity;
use crate::secrets::cell::{Fetched, TokenSource};
use crate::secrets::credential::CredentialError;
use crate::secrets::exchange::{address, ask, ask_json, local_client, refusal, token_file};

/// A federated account.
#[derive(Debug)]
pub(super) struct Federated {
    account: ExternalAccount,
    http: reqwest::Client,
    /// Asks for the subject token, which may lie with the machine's own metadata service.
    subject_http: reqwest::Client,
}

impl Federated {
    pub(super) fn new(account: &ExternalAccount, http: reqwest::Client) -> Result<Self, CredentialError> {
        let subject_http = match &account.subject {
            SubjectSource::Url { url, .. } if url.starts_with("http://") => local_client()?,
            _ => http.clone(),
        };
        Ok(Self {
            account: account.clone(),
            http,
            subject_http,
        })
    }

    async fn subject_token(&self) -> Result<String, CredentialError> {
        let text = match &self.account.subject {
            SubjectSource::Aws(machine) => return identity::proof(machine, &self.account.audience).await,
            SubjectSource::File(path) => token_file(path).await?,
            SubjectSource::Url { url, headers } => {
                let mut request = self.subject_http.get(url);
                for (name, value) in headers {
                    request = request.header(name, value);
                }
                let answer = ask(request).await?;
                if !answer.status.is_success() {
                    return Err(refusal(answer.status, ""));
                }
                String::from_utf8(answer.body).map_err(|_| CredentialError::Unreadable)?
            }
        };
        match &self.account.format {
            SubjectFormat::Text => Ok(text.trim().to_owned()),
            SubjectFormat::Json { field } => {
                let document: serde_json::Value =
                    serde_json::from_str(&text).map_err(|_| CredentialError::Unreadable)?;
                let token = document.get(field).and_then(serde_json::Value::as_str);
                token.map(ToOwned::to_owned).ok_or(CredentialError::Unreadable)
            }
        }
    }
}

#[async_trait::async_trait]
impl TokenSource for Federated {
    type Token = HeaderValue;

    fn what(&self) -> &'static str {
        "federated Google token"
    }

    fn refresh_before(&self) -> Duration {
        REFRESH_BEFORE
    }

    async fn fetch(&self) -> Result<Fetched<HeaderValue>, CredentialError> {
        let subject = self.subject_token().await?;
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("audience", self.account.audience.as_str()),
            ("scope", SCOPE),
            ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("subject_token", &subject),
            ("subject_token_type", &self.account.subject_token_type),
        ];
        let request = self.http.post(address(&self.account.token_url, "", &[])?).form(&form);
        ask_json::<TokenAnswer>(request).await?.fetched()
    }
}
