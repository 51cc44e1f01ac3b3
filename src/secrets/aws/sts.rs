//! AWS's token service: keys for a role, against other keys or against another provider's token.
//!
//! # Sources
//! <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>,
//! <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html>.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Uri};
use secrecy::SecretString;

use super::sigv4::{AccessKeys, Signer, Unsigned};
use super::{Keys, REFRESH_BEFORE, REFUSALS, UsedKeys, answered};
use crate::config::AwsRole;
use crate::secrets::cell::{Fetched, TokenSource};
use crate::secrets::credential::CredentialError;
use crate::secrets::exchange::{Answer, ask, refusal, token_file};

/// What is asked for. More is refused to roles that were assumed with a role.
const SECONDS: &str = "3600";

/// A region's token service.
#[derive(Debug)]
pub(super) struct Service {
    url: Uri,
    signer: Signer,
    http: reqwest::Client,
}

/// A role assumed with other keys.
#[derive(Debug)]
pub(super) struct AssumedRole {
    pub sts: Service,
    pub keys: Keys,
    pub role: AwsRole,
}

/// A role assumed with another provider's token.
#[derive(Debug)]
pub(super) struct WebIdentity {
    pub sts: Service,
    pub role_arn: String,
    pub session_name: String,
    pub token_file: PathBuf,
}

#[async_trait::async_trait]
impl TokenSource for AssumedRole {
    type Token = Arc<AccessKeys>;

    fn what(&self) -> &'static str {
        "keys of the assumed AWS role"
    }

    fn refresh_before(&self) -> Duration {
        REFRESH_BEFORE
    }

    async fn fetch(&self) -> Result<Fetched<Arc<AccessKeys>>, CredentialError> {
        let mut form = vec![
            ("Action", "AssumeRole"),
            ("RoleArn", &self.role.role_arn),
            ("RoleSessionName", &self.role.session_name),
            ("DurationSeconds", SECONDS),
        ];
        form.extend(self.role.external_id.as_deref().map(|id| ("ExternalId", id)));
        let used = self.keys.get().await?;
        let outcome = self.sts.ask(&form, Some(&used)).await;
        if let Err(CredentialError::Refused { code, .. }) = &outcome
            && REFUSALS.contains(&code.as_str())
        {
            // The next try, after a while, comes with other keys where there are any.
            self.keys.refused(&used);
        }
        outcome
    }
}

#[async_trait::async_trait]
impl TokenSource for WebIdentity {
    type Token = Arc<AccessKeys>;

    fn what(&self) -> &'static str {
        "AWS keys for the web identity"
    }

    fn refresh_before(&self) -> Duration {
        REFRESH_BEFORE
    }

    async fn fetch(&self) -> Result<Fetched<Arc<AccessKeys>>, CredentialError> {
        let token = token_file(&self.token_file).await?;
        let form = [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("RoleArn", self.role_arn.as_str()),
            ("RoleSessionName", &self.session_name),
            ("DurationSeconds", SECONDS),
            ("WebIdentityToken", &token),
        ];
        self.sts.ask(&form, None).await
    }
}

impl Service {
    pub(super) fn new(url: Uri, region: &str, http: reqwest::Client) -> Self {
        Self {
            url,
            signer: Signer::new(region, "sts"),
            http,
        }
    }

    /// Asks, signed with `keys` if there are any.
    async fn ask(
        &self,
        form: &[(&str, &str)],
        keys: Option<&UsedKeys>,
    ) -> Result<Fetched<Arc<AccessKeys>>, CredentialError> {
        let body = Bytes::from(encoded(form));
        let mut headers = HeaderMap::new();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        if let Some(used) = keys {
            let mut request = Unsigned {
                method: &Method::POST,
                uri: &self.url,
                headers: &mut headers,
                payload: std::slice::from_ref(&body),
            };
            self.signer.sign(&mut request, used.keys(), Utc::now())?;
        }
        let request = self.http.post(self.url.to_string()).headers(headers).body(body);
        read(&ask(request).await?)
    }
}

/// `form` as it is sent.
fn encoded(form: &[(&str, &str)]) -> String {
    let mut url = reqwest::Url::parse("http://form").expect("this is a URL");
    url.query_pairs_mut()
        .append_pair("Version", "2011-06-15")
        .extend_pairs(form);
    url.query().unwrap_or_default().to_owned()
}

fn read(answer: &Answer) -> Result<Fetched<Arc<AccessKeys>>, CredentialError> {
    let text = std::str::from_utf8(&answer.body).map_err(|_| CredentialError::Unreadable)?;
    if !answer.status.is_success() {
        return Err(refusal(answer.status, element(text, "Code").unwrap_or_default()));
    }
    let part = |name| element(text, name).ok_or(CredentialError::Unreadable);
    let credentials = part("Credentials")?;
    let part = |name| {
        let text = element(credentials, name).filter(|text| !text.contains(['<', '&']));
        text.ok_or(CredentialError::Unreadable)
    };
    let secret = SecretString::from(part("SecretAccessKey")?);
    answered(part("AccessKeyId")?, secret, part("SessionToken")?, part("Expiration")?)
}

/// What stands between the first `<name>` and the `</name>` after it.
///
/// The service's answers have neither attributes on these elements nor anything escaped inside; what has is refused.
fn element<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let start = text.find(&format!("<{name}>"))? + name.len() + 2;
    let end = text[start..].find(&format!("</{name}>"))?;
    Some(text[start..start + end].trim())
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use secrecy::ExposeSecret as _;

    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: body.as_bytes().to_vec(),
        }
    }

    fn granted(expiration: &str) -> String {
        format!(
            "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult>\n \
             <Credentials><AccessKeyId>ASIA1</AccessKeyId><SecretAccessKey>hunter2/+=</SecretAccessKey>\
             <SessionToken>hunter2-token==</SessionToken><Expiration>{expiration}</Expiration></Credentials>\n \
             <AssumedRoleUser><Arn>arn</Arn></AssumedRoleUser></AssumeRoleResult></AssumeRoleResponse>"
        )
    }

    #[test]
    fn granted_keys_are_read_with_their_end() {
        let in_an_hour = (Utc::now() + Duration::from_secs(3600)).format("%Y-%m-%dT%H:%M:%SZ");
        let fetched = read(&answer(200, &granted(&in_an_hour.to_string()))).unwrap();
        assert_eq!(fetched.token.id, "ASIA1");
        assert_eq!(fetched.token.secret.expose_secret(), "hunter2/+=");
        assert!((3590..=3600).contains(&fetched.lifetime.as_secs()));
        assert!(!format!("{fetched:?}").contains("hunter2"));
        let over = read(&answer(200, &granted("2020-01-01T00:00:00Z"))).unwrap();
        assert_eq!(over.lifetime, Duration::ZERO);
    }

    #[test]
    fn a_refusal_keeps_its_code_and_nothing_else() {
        let body = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code>\
                    <Message>User: arn:aws:iam::123456789012:user/x is not authorized</Message></Error></ErrorResponse>";
        let error = read(&answer(403, body)).unwrap_err();
        let refused = CredentialError::Refused {
            status: 403,
            code: "AccessDenied".into(),
        };
        assert_eq!(error, refused);
    }

    #[test]
    fn what_is_not_the_service_s_answer_is_refused() {
        let escaped = granted("2099-01-01T00:00:00Z").replace("ASIA1", "ASIA&amp;1");
        for body in [
            "",
            "<html>",
            "<Credentials></Credentials>",
            &escaped,
            &granted("tomorrow"),
        ] {
            let error = read(&answer(200, body)).unwrap_err();
            assert_eq!(error, CredentialError::Unreadable, "{body}");
        }
    }
}
