//! Hears a caller out whose request was answered before its body was read to the end.
//!
//! A connection that is closed while the caller still sends is reset, and the caller may never see the answer that says
//! why. So whatever a handler leaves unread of a body is read and thrown away for a while, within bounds of size and time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::EXPECT;
use http::request::Parts;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

/// How much of a body is read at most, what its handler read included.
const LINGER_BYTES: usize = 64 * 1024 * 1024;
/// How long the rest may take.
const LINGER: Duration = Duration::from_secs(5);

/// A request's body. Dropped before its end, it is read on behind the answer's back.
pub struct Lingering {
    /// Gone once it was read to its end, or broke.
    inner: Option<Incoming>,
    read: usize,
    /// Whether the caller waits to be asked for the body. Then there is nothing to hear out, and reading would ask.
    waits: bool,
}

impl Lingering {
    /// The body of a request.
    pub fn new(head: &Parts, body: Incoming) -> Self {
        Self {
            inner: Some(body),
            read: 0,
            waits: head.headers.contains_key(EXPECT),
        }
    }
}

impl Body for Lingering {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.waits = false;
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(None);
        };
        match ready!(Pin::new(inner).poll_frame(cx)) {
            Some(Ok(frame)) => {
                self.read += frame.data_ref().map_or(0, Bytes::len);
                Poll::Ready(Some(Ok(frame)))
            }
            end => {
                self.inner = None;
                Poll::Ready(end.map(|broken| broken.map_err(io::Error::other)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or(SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let Some(mut rest) = self.inner.take().filter(|body| !body.is_end_stream() && !self.waits) else {
            return;
        };
        let mut left = LINGER_BYTES.saturating_sub(self.read);
        // A runtime that is going down has nobody to hear out.
        let Ok(runtime) = Handle::try_current() else { return };
        runtime.spawn(async move {
            let deadline = Instant::now() + LINGER;
            while let Ok(Some(Ok(frame))) = timeout_at(deadline, rest.frame()).await {
                let len = frame.data_ref().map_or(0, Bytes::len);
                let Some(rest) = left.checked_sub(len) else { break };
                left = rest;
            }
        });
    }
}
