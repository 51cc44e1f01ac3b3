//! A request body made of slices, sent without being joined.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::providers::adapter::Payload;

/// Tells whether a request was handed over: a connection to the provider stood and asked for the request's body, right
/// after it took the head. Before that the provider cannot have begun to work on it.
#[derive(Clone, Default)]
pub struct SentMark(Arc<Mark>);

#[derive(Default)]
struct Mark {
    set: AtomicBool,
    /// Who wants to know, just before the first byte leaves.
    told: Option<Box<dyn Fn() + Send + Sync>>,
}

impl SentMark {
    /// A mark that says when it is set, once, and before the provider has anything of the request.
    pub fn telling(told: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(Mark {
            set: AtomicBool::new(false),
            told: Some(Box::new(told)),
        }))
    }

    /// Whether it was.
    pub fn is_set(&self) -> bool {
        self.0.set.load(Ordering::Acquire)
    }

    fn set(&self) {
        let before = self.0.set.swap(true, Ordering::AcqRel);
        if !before && let Some(told) = &self.0.told {
            told();
        }
    }
}

impl fmt::Debug for SentMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SentMark").field(&self.is_set()).finish()
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
        self.sent.set();
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
