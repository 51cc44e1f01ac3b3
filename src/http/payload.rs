//! The request's body, read once, within its limits of size and time. What is left unread is `linger`'s concern.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::BodyExt as _;
use poem::Request;
use tokio::time::{Instant, timeout_at};

use crate::domain::error::GatewayError;

/// Reads the body of a JSON request.
///
/// # Errors
/// It is not JSON by its header, too large or too slow, or the caller broke off.
pub async fn read(request: &mut Request, max_bytes: usize, within: Duration) -> Result<Bytes, GatewayError> {
    check_content_type(request)?;
    let announced = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|len| len.to_str().ok()?.parse::<u64>().ok());
    let mut body: http_body_util::combinators::BoxBody<Bytes, std::io::Error> = request.take_body().into();
    if announced.is_some_and(|len| len > max_bytes as u64) {
        return Err(GatewayError::TooLarge { limit_bytes: max_bytes });
    }
    let deadline = Instant::now() + within;
    let mut first: Option<Bytes> = None;
    let mut joined = BytesMut::new();
    loop {
        let frame = match timeout_at(deadline, body.frame()).await {
            Err(_) => return Err(GatewayError::TooSlow),
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) => {
                return Err(GatewayError::invalid_body(
                    "the request body ended before it was complete",
                ));
            }
        };
        let Ok(data) = frame.into_data() else { continue };
        let so_far = first.as_ref().map_or(0, Bytes::len) + joined.len();
        if so_far + data.len() > max_bytes {
            return Err(GatewayError::TooLarge { limit_bytes: max_bytes });
        }
        // Most bodies come in one piece, which needs no copy.
        match first.take() {
            None if joined.is_empty() => first = Some(data),
            None => joined.extend_from_slice(&data),
            Some(before) => {
                let announced = announced.and_then(|len| usize::try_from(len).ok()).unwrap_or(0);
                joined.reserve(announced.max(before.len() + data.len()));
                joined.extend_from_slice(&before);
                joined.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| joined.freeze()))
}

/// JSON, by its header or by having none: OpenAI's API is as lenient.
fn check_content_type(request: &Request) -> Result<(), GatewayError> {
    let Some(kind) = request.headers().get(CONTENT_TYPE) else {
        return Ok(());
    };
    let kind = kind.to_str().unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        return Ok(());
    }
    Err(GatewayError::UnsupportedMediaType)
}
