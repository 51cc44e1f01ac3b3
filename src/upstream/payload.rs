//! A request body made of slices, sent without being joined.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::providers::adapter::Payload;

/// Tells whether a request was handed over: a connection to the provider stood and asked for the request's body, right
/// after it took the head. Before that the provider cannot have begun to work on it.
#[derive(Clone, Default, Debug)]
pub struct SentMark(Arc<AtomicBool>);

impl SentMark {
    /// Whether it was.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A [`Payload`] as hyper takes it.
#[derive(Debug)]
pub struct PayloadBody {
    sent: SentMark,
    parts: smallvec::IntoIter<[Bytes; 4]>,
    left: usize,
}

impl PayloadBody {
    /// A body that says when it is asked for.
    pub fn new(payload: Payload, sent: SentMark) -> Self {
        Self {
            sent,
            left: payload.len(),
            parts: payload.into_parts().into_iter(),
        }
    }
}

impl Body for PayloadBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.sent.0.store(true, Ordering::Release);
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
