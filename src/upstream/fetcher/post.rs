//! Sends what a tenant wants to be told of to the URL it named: one POST on a connection of its own, to an address that was
//! judged. Redirects are not followed, and of the answer only the beginning is read.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt as _, Full};
use tokio::time::timeout;

use super::{FetchError, Fetcher, Target};

/// Bytes of an answer that are kept.
const EXCERPT: usize = 512;
/// Bytes of an answer that are read, so that a short one is read to its end.
const READ: usize = 16 * 1024;

/// How an endpoint answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Posted {
    /// The status.
    pub status: u16,
    /// How long it wants to be left alone.
    pub retry_after: Option<Duration>,
    /// The beginning of the body, as text.
    pub excerpt: String,
}

impl Fetcher {
    /// Whether a URL may be sent to, as far as that can be told without asking anybody.
    ///
    /// # Errors
    /// It is none, or leads where nothing may be sent.
    pub fn may_post(&self, url: &str) -> Result<Target, FetchError> {
        let target = Target::parse(url, &self.0.policy.ports)?;
        if let super::TargetHost::Address(address) = target.host() {
            self.0.policy.addresses.judge(*address).map_err(FetchError::NotPublic)?;
        }
        Ok(target)
    }

    /// Sends JSON to a URL with these headers, within a time.
    ///
    /// # Errors
    /// It cannot or may not be sent there, or there was no answer.
    pub async fn post(
        &self,
        url: &str,
        headers: Vec<(HeaderName, HeaderValue)>,
        body: Bytes,
        limit: Duration,
    ) -> Result<Posted, FetchError> {
        let target = self.may_post(url)?;
        let exchange = self.exchange_post(&target, headers, body);
        timeout(limit, exchange)
            .await
            .unwrap_or(Err(FetchError::Timeout { limit }))
    }

    async fn exchange_post(
        &self,
        target: &Target,
        headers: Vec<(HeaderName, HeaderValue)>,
        body: Bytes,
    ) -> Result<Posted, FetchError> {
        let uri: Uri = target.path_and_query().parse().map_err(|_| FetchError::Malformed)?;
        let host = HeaderValue::from_str(target.authority()).map_err(|_| FetchError::Malformed)?;
        let length = HeaderValue::from(body.len());
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        let sent = request.headers_mut();
        sent.extend(headers);
        sent.insert(HOST, host);
        sent.insert(CONTENT_LENGTH, length);
        sent.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        sent.insert(USER_AGENT, HeaderValue::from_static(crate::upstream::AGENT));
        sent.insert(CONNECTION, HeaderValue::from_static("close"));
        let mut connection = self.0.dialer.connect(target).await?;
        let answer = connection.send(request).await?;
        let status = answer.status().as_u16();
        let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after
            .and_then(|text| text.trim().parse().ok())
            .map(Duration::from_secs);
        let mut read: Vec<u8> = Vec::new();
        let mut body = answer.into_body();
        // The status has been heard; what breaks off behind it changes nothing.
        while let Some(Ok(frame)) = body.frame().await {
            if let Ok(bytes) = frame.into_data() {
                read.extend_from_slice(&bytes[..bytes.len().min(READ - read.len())]);
            }
            if read.len() >= READ {
                break;
            }
        }
        read.truncate(EXCERPT);
        Ok(Posted {
            status,
            retry_after,
            excerpt: String::from_utf8_lossy(&read).into_owned(),
        })
    }
}

/// Why nothing was sent to an endpoint, in words for its owner. They tell nothing of the network the gateway is in.
pub fn words(error: &FetchError) -> String {
    match error {
        FetchError::Malformed => "it is not a URL that can be sent to".into(),
        FetchError::Scheme => "the URL must begin with https://".into(),
        FetchError::Userinfo => "the URL must not hold a user name or a password".into(),
        FetchError::Port(port) => format!("port {port} is not one that this gateway sends to"),
        FetchError::NotPublic(_) | FetchError::Unresolved => "the address is not public or does not exist".into(),
        FetchError::Unreachable => "the host cannot be reached".into(),
        FetchError::Tls => "no secure connection to the host can be made; is its certificate valid?".into(),
        FetchError::Timeout { limit } => format!("there was no answer within {} ms", limit.as_millis()),
        _ => "the host broke off its answer, or does not speak HTTP".into(),
    }
}
