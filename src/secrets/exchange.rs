//! One question to a token service, bounded in size, with errors that hold nothing of the question or the answer but
//! short codes.

use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::credential::CredentialError;

/// Answers are a token and a few numbers.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// The longest error code that is repeated.
const MAX_CODE_CHARS: usize = 64;

/// What a token service answered.
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// Asks and reads the whole answer, of whatever status.
pub(super) async fn ask(request: reqwest::RequestBuilder) -> Result<Answer, CredentialError> {
    // The error of a failed call names the URL and nothing secret; form and headers are not part of it.
    let unreachable = |error: reqwest::Error| CredentialError::Unreachable(error.without_url().to_string());
    let mut answer = request.send().await.map_err(unreachable)?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|_| CredentialError::Unreadable)? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(CredentialError::Unreadable);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer {
        status: answer.status(),
        headers: std::mem::take(answer.headers_mut()),
        body,
    })
}

/// Asks for JSON; any status but success is a refusal with the answer's code.
pub(super) async fn ask_json<T: DeserializeOwned>(request: reqwest::RequestBuilder) -> Result<T, CredentialError> {
    let answer = ask(request).await?;
    if !answer.status.is_success() {
        return Err(refusal(answer.status, &code_of_json(&answer.body)));
    }
    serde_json::from_slice(&answer.body).map_err(|_| CredentialError::Unreadable)
}

/// A refusal with `code`, as far as it looks like one: what a service writes there may repeat what it was asked.
pub(super) fn refusal(status: StatusCode, code: &str) -> CredentialError {
    let good = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
    let good = !code.is_empty() && code.len() <= MAX_CODE_CHARS && code.chars().all(good);
    CredentialError::Refused {
        status: status.as_u16(),
        code: if good { code } else { "no error code" }.to_owned(),
    }
}

/// The short code of an error in JSON. The description is left out: it repeats ids of tenants and accounts.
///
/// OAuth has `error` as text; Google's own services have an object with a `status`; AWS's have `code` or `Code`.
fn code_of_json(body: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Error {
        Code(String),
        Status { status: String },
        Coded { code: String },
    }
    #[derive(Deserialize)]
    struct Fault {
        error: Option<Error>,
        #[serde(alias = "Code")]
        code: Option<String>,
    }
    match serde_json::from_slice(body) {
        Ok(Fault { error: Some(error), .. }) => match error {
            Error::Code(code) | Error::Status { status: code } | Error::Coded { code } => code,
        },
        Ok(Fault { code: Some(code), .. }) => code,
        _ => String::new(),
    }
}

/// A header's value that no `Debug` form shows.
pub(super) fn sensitive(text: String) -> Result<HeaderValue, CredentialError> {
    let mut value = HeaderValue::try_from(text).map_err(|_| CredentialError::Unprintable)?;
    value.set_sensitive(true);
    Ok(value)
}

/// `Bearer …`, from a service's answer.
pub(super) fn bearer(token: &str) -> Result<HeaderValue, CredentialError> {
    sensitive(format!("Bearer {token}")).map_err(|_| CredentialError::Unreadable)
}

/// `base` with `path` appended and `query` encoded.
pub(super) fn address(base: &http::Uri, path: &str, query: &[(&str, &str)]) -> Result<reqwest::Url, CredentialError> {
    let base = base.to_string();
    let text = format!("{}{path}", base.trim_end_matches('/'));
    let url = if query.is_empty() {
        reqwest::Url::parse(&text)
    } else {
        reqwest::Url::parse_with_params(&text, query)
    };
    url.map_err(|_| CredentialError::Unreachable("its address is not valid".to_owned()))
}

/// A client for addresses that exist only on this machine or network, which no proxy may ever be asked for.
pub(super) fn local_client() -> Result<reqwest::Client, CredentialError> {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| CredentialError::Unreachable(error.to_string()))
}

/// The text of a file that holds a token, without the line's end. It is read at each use, because it is renewed.
pub(super) async fn token_file(path: &std::path::Path) -> Result<String, CredentialError> {
    use tokio::io::AsyncReadExt as _;
    let unreadable = |error: std::io::Error| CredentialError::TokenFile(error.kind());
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    let mut text = String::new();
    let mut file = file.take(MAX_ANSWER_BYTES as u64 + 1);
    file.read_to_string(&mut text).await.map_err(unreadable)?;
    let token = text.trim();
    if token.is_empty() || text.len() > MAX_ANSWER_BYTES {
        return Err(CredentialError::TokenFile(std::io::ErrorKind::InvalidData));
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(body: &str) -> String {
        match refusal(StatusCode::BAD_REQUEST, &code_of_json(body.as_bytes())) {
            CredentialError::Refused { code, .. } => code,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_refusal_keeps_the_short_code_of_whichever_service() {
        for (body, wanted) in [
            (
                r#"{"error":"invalid_client","error_description":"hunter2"}"#,
                "invalid_client",
            ),
            (
                r#"{"error":{"code":403,"status":"PERMISSION_DENIED","message":"hunter2"}}"#,
                "PERMISSION_DENIED",
            ),
            (r#"{"error":{"code":"Unavailable"}}"#, "Unavailable"),
            (r#"{"code":"NotAuthorized","message":"hunter2"}"#, "NotAuthorized"),
            (
                r#"{"Code":"AssumeRoleUnauthorizedAccess"}"#,
                "AssumeRoleUnauthorizedAccess",
            ),
        ] {
            assert_eq!(code(body), wanted);
        }
    }

    #[test]
    fn what_does_not_look_like_a_code_is_not_repeated() {
        let long = format!(r#"{{"error":"{}"}}"#, "x".repeat(65));
        for body in [
            "",
            "<html>hunter2</html>",
            r#"{"error":"wrong secret hunter2"}"#,
            r#"{"error":7}"#,
            &long,
        ] {
            assert_eq!(code(body), "no error code", "{body}");
        }
    }

    #[test]
    fn an_address_keeps_its_path_and_encodes_its_query() {
        let base = http::Uri::from_static("http://127.0.0.1:80/msi/");
        let query = [("resource", "https://x/?a&b"), ("v", "1")];
        let url = address(&base, "/token", &query).unwrap();
        assert_eq!(
            url.as_str(),
            "http://127.0.0.1/msi/token?resource=https%3A%2F%2Fx%2F%3Fa%26b&v=1"
        );
    }
}
