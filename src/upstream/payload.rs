//! A request body made of slices, sent without being joined.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::providers::adapter::Payload;

/// A [`Payload`] as hyper takes it.
#[derive(Debug)]
pub struct PayloadBody {
    parts: smallvec::IntoIter<[Bytes; 4]>,
    left: usize,
}

impl From<Payload> for PayloadBody {
    fn from(payload: Payload) -> Self {
        Self {
            left: payload.len(),
            parts: payload.into_parts().into_iter(),
        }
    }
}

impl Body for PayloadBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let part = self.parts.next();
        self.left -= part.as_ref().map_or(0, Bytes::len);
        Poll::Ready(part.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}
