//! The answer of a provider as it arrives: its head, and a body read within bounds.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;

use crate::domain::call::ErrorClass;
use crate::providers::adapter::{AnswerForm, Failure};

/// The head of an answer, and the body still to come.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Whether the provider refused the credential, and the next request will carry another one.
    pub credential_renewed: bool,
    /// Its body. Dropping it closes the connection unless it was read to its end.
    pub body: AnswerBody,
}

/// The body of an answer.
#[derive(Debug)]
pub enum AnswerBody {
    /// From a provider.
    Network(Incoming),
    /// From a model in this process; `None` once it was taken.
    Builtin(Option<Bytes>),
}

impl Answer {
    /// The answer of a model in this process.
    pub fn builtin(body: Bytes, form: AnswerForm) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, http::HeaderValue::from_static(form.media_type()));
        Self {
            status: StatusCode::OK,
            headers,
            credential_renewed: false,
            body: AnswerBody::Builtin(Some(body)),
        }
    }

    /// Whether the body has this form, by its content type.
    pub fn is(&self, form: AnswerForm) -> bool {
        let kind = self
            .headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        kind.trim_start().to_ascii_lowercase().starts_with(form.media_type())
    }

    /// Refuses an encoding that was not offered: a small compressed answer could stand for gigabytes.
    ///
    /// # Errors
    /// The body is encoded.
    pub fn check_encoding(&self) -> Result<(), Failure> {
        match self.headers.get(CONTENT_ENCODING) {
            None => Ok(()),
            Some(value) if value == "identity" => Ok(()),
            Some(_) => Err(Failure::new(
                ErrorClass::Malformed,
                "compressed its answer though that was not offered",
            )),
        }
    }
}

impl AnswerBody {
    /// The next bytes; `None` at the proper end.
    pub fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        match self {
            Self::Builtin(bytes) => Poll::Ready(bytes.take().map(Ok)),
            Self::Network(incoming) => loop {
                match ready!(Pin::new(&mut *incoming).poll_frame(cx)) {
                    None => return Poll::Ready(None),
                    Some(Err(_)) => {
                        let cut = Failure::new(ErrorClass::Cut, "closed the connection in the middle of its answer");
                        return Poll::Ready(Some(Err(cut)));
                    }
                    Some(Ok(frame)) => {
                        // Trailers say nothing we need.
                        if let Ok(bytes) = frame.into_data() {
                            return Poll::Ready(Some(Ok(bytes)));
                        }
                    }
                }
            },
        }
    }

    /// The next bytes; `None` at the proper end.
    pub async fn next(&mut self) -> Option<Result<Bytes, Failure>> {
        std::future::poll_fn(|cx| self.poll_bytes(cx)).await
    }

    /// The whole body.
    ///
    /// # Errors
    /// It was cut, or is larger than `max_bytes`.
    pub async fn whole(mut self, max_bytes: usize) -> Result<Bytes, Failure> {
        let too_large = || Failure::new(ErrorClass::Malformed, "sent an answer larger than the gateway accepts");
        let Some(first) = self.next().await.transpose()? else {
            return Ok(Bytes::new());
        };
        if first.len() > max_bytes {
            return Err(too_large());
        }
        let Some(second) = self.next().await.transpose()? else {
            return Ok(first);
        };
        let mut joined = BytesMut::with_capacity((first.len() + second.len()).next_power_of_two());
        joined.extend_from_slice(&first);
        let mut next = Some(second);
        while let Some(bytes) = next {
            if joined.len() + bytes.len() > max_bytes {
                return Err(too_large());
            }
            joined.extend_from_slice(&bytes);
            next = self.next().await.transpose()?;
        }
        Ok(joined.freeze())
    }
}
