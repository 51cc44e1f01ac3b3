//! Keys from the machine or the container we run in.
//!
//! # Sources
//! "Container credential provider", <https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html>;
//! "Retrieve security credentials from instance metadata",
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html>.

use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderValue, Uri};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::sigv4::AccessKeys;
use super::{REFRESH_BEFORE, answered};
use crate::config::ContainerToken;
use crate::secrets::cell::{Fetched, TokenSource};
use crate::secrets::credential::CredentialError;
use crate::secrets::exchange::{Answer, address, ask, ask_json, local_client, refusal, sensitive, token_file};

/// The region itself: a zone's name does not always begin with it and one letter.
const REGION: &str = "/latest/meta-data/placement/region";
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";

/// The endpoint of a container.
#[derive(Debug)]
pub(super) struct Container {
    url: reqwest::Url,
    authorization: Option<ContainerToken>,
    http: reqwest::Client,
}

/// The metadata service of a machine, asked in its second version alone: the first answers anybody who can make the
/// machine send a GET.
#[derive(Debug)]
pub(super) struct Instance {
    url: Uri,
    http: reqwest::Client,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct KeysAnswer {
    code: Option<String>,
    access_key_id: String,
    secret_access_key: SecretString,
    token: SecretString,
    expiration: String,
}

impl Container {
    pub(super) fn new(url: &Uri, authorization: Option<ContainerToken>) -> Result<Self, CredentialError> {
        Ok(Self {
            url: address(url, "", &[])?,
            authorization,
            http: local_client()?,
        })
    }
}

#[async_trait::async_trait]
impl TokenSource for Container {
    type Token = Arc<AccessKeys>;

    fn what(&self) -> &'static str {
        "AWS keys of the container"
    }

    fn refresh_before(&self) -> Duration {
        REFRESH_BEFORE
    }

    async fn fetch(&self) -> Result<Fetched<Arc<AccessKeys>>, CredentialError> {
        let mut request = self.http.get(self.url.clone());
        let token = match &self.authorization {
            None => None,
            Some(ContainerToken::Value(token)) => Some(token.expose_secret().to_owned()),
            Some(ContainerToken::File(path)) => Some(token_file(path).await?),
        };
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, sensitive(token)?);
        }
        keys(&ask_json(request).await?)
    }
}

impl Instance {
    pub(super) fn new(url: Uri) -> Result<Self, CredentialError> {
        let http = local_client()?;
        Ok(Self { url, http })
    }

    /// A token for questions.
    async fn token(&self) -> Result<HeaderValue, CredentialError> {
        let token = self.http.put(address(&self.url, "/latest/api/token", &[])?);
        let token = token.header("x-aws-ec2-metadata-token-ttl-seconds", "21600");
        sensitive(text(&ask(token).await?)?)
    }

    fn get(&self, path: &str, token: &HeaderValue) -> Result<reqwest::RequestBuilder, CredentialError> {
        let request = self.http.get(address(&self.url, path, &[])?);
        Ok(request.header("x-aws-ec2-metadata-token", token.clone()))
    }

    /// The region that the machine is in.
    pub(super) async fn region(&self) -> Result<String, CredentialError> {
        let token = self.token().await?;
        let region = text(&ask(self.get(REGION, &token)?).await?)?;
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        // It becomes part of a host's name.
        match !region.is_empty() && region.bytes().all(good) {
            true => Ok(region),
            false => Err(CredentialError::Unreadable),
        }
    }
}

#[async_trait::async_trait]
impl TokenSource for Instance {
    type Token = Arc<AccessKeys>;

    fn what(&self) -> &'static str {
        "AWS keys of the machine"
    }

    fn refresh_before(&self) -> Duration {
        REFRESH_BEFORE
    }

    async fn fetch(&self) -> Result<Fetched<Arc<AccessKeys>>, CredentialError> {
        let token = self.token().await?;
        let role = text(&ask(self.get(ROLES, &token)?).await?)?;
        let good = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
        // It becomes part of a path.
        if role.is_empty() || !role.chars().all(good) {
            return Err(CredentialError::Unreadable);
        }
        keys(&ask_json(self.get(&format!("{ROLES}{role}"), &token)?).await?)
    }
}

/// The body of a good answer.
fn text(answer: &Answer) -> Result<String, CredentialError> {
    if !answer.status.is_success() {
        return Err(refusal(answer.status, ""));
    }
    let text = std::str::from_utf8(&answer.body).map_err(|_| CredentialError::Unreadable)?;
    Ok(text.trim().to_owned())
}

fn keys(answer: &KeysAnswer) -> Result<Fetched<Arc<AccessKeys>>, CredentialError> {
    if let Some(code) = answer.code.as_deref().filter(|code| *code != "Success") {
        return Err(refusal(http::StatusCode::OK, code));
    }
    let secret = answer.secret_access_key.clone();
    let token = answer.token.expose_secret();
    answered(&answer.access_key_id, secret, token, &answer.expiration)
}
