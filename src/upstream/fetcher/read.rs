//! Reads an answer within its limits, and finds out what it holds.

use bytes::{Bytes, BytesMut};
use http::Response;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::error::FetchError;
use crate::chat::media::{MediaType, SNIFFED_BYTES, claims_text, is_text, sniff};

/// The largest room that is made on the word of a `Content-Length` alone.
const MAX_FIRST_ROOM: usize = 1 << 20;

/// The body of `answer` and its kind, which is one of `wanted`.
///
/// Nothing is decompressed, so what is counted against `max_bytes` is all there is. Reading stops at the first byte too
/// many, and as soon as the first bytes cannot be of a wanted kind.
pub(super) async fn body(
    answer: Response<Incoming>,
    wanted: &[MediaType],
    max_bytes: usize,
) -> Result<(MediaType, Bytes), FetchError> {
    let mut encodings = answer.headers().get_all(CONTENT_ENCODING).iter();
    if encodings.any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(FetchError::Encoded);
    }
    let claim = answer.headers().get(CONTENT_TYPE);
    let claims_text = claim.and_then(|claim| claim.to_str().ok()).is_some_and(claims_text);
    let kinds = Kinds { wanted, claims_text };

    let mut body = answer.into_body();
    let too_large = || FetchError::TooLarge { limit_bytes: max_bytes };
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > max_bytes {
        return Err(too_large());
    }
    let mut read = BytesMut::with_capacity(announced.min(MAX_FIRST_ROOM));
    let mut begun = false;
    while let Some(frame) = body.frame().await {
        let Ok(bytes) = frame.map_err(|_| FetchError::Cut)?.into_data() else {
            // Trailers say nothing we need.
            continue;
        };
        if bytes.len() > max_bytes - read.len() {
            return Err(too_large());
        }
        read.extend_from_slice(&bytes);
        if !begun && read.len() >= SNIFFED_BYTES {
            kinds.of_beginning(&read)?;
            begun = true;
        }
    }
    let kind = kinds.of_whole(&read)?;
    Ok((kind, read.freeze()))
}

/// What an answer may be.
struct Kinds<'w> {
    wanted: &'w [MediaType],
    /// Whether the sender says that it is text, which has no beginning of its own.
    claims_text: bool,
}

impl Kinds<'_> {
    /// Refuses what begins in a way that cannot end well.
    fn of_beginning(&self, bytes: &[u8]) -> Result<(), FetchError> {
        match sniff(bytes) {
            Some(kind) if self.wanted.contains(&kind) => Ok(()),
            None if self.may_be_text() => Ok(()),
            found => Err(self.wrong(found)),
        }
    }

    /// The kind of the whole content.
    fn of_whole(&self, bytes: &[u8]) -> Result<MediaType, FetchError> {
        self.of_beginning(bytes)?;
        match sniff(bytes) {
            Some(kind) => Ok(kind),
            None if is_text(bytes) => Ok(MediaType::Text),
            None => Err(self.wrong(None)),
        }
    }

    fn may_be_text(&self) -> bool {
        self.claims_text && self.wanted.contains(&MediaType::Text)
    }

    fn wrong(&self, found: Option<MediaType>) -> FetchError {
        FetchError::WrongKind {
            found,
            wanted: self.wanted.to_vec(),
        }
    }
}
