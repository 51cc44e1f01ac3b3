//! A listener: accepts connections, bounds them in number and in time, and lets them finish when the process stops.
//!
//! poem's own server sets no TCP_NODELAY, has no timeout for headers and spins when file descriptors run out, so its
//! endpoints are served here by hyper itself. HTTP/1.1 only: TLS and HTTP/2 end at the proxy in front, and streams of
//! other callers never share a connection.

use std::convert::Infallible;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http::header::CONNECTION;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::BoxBody;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use poem::endpoint::BoxEndpoint;
use poem::web::{LocalAddr, RemoteAddr};
use poem::{Addr, Endpoint as _, RequestParts, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::early;
use super::linger::Lingering;

/// How long a connection without a request stays open. Longer than the minute most clients and proxies keep theirs.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// How often a connection without traffic looks at the time.
const TICK: Duration = Duration::from_secs(1);
/// Request line and headers together, in bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// How long to wait after the system refused a connection, because it has no file descriptors or memory left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How much is still read of a client whose head was refused, and for how long, so that it gets to see our answer instead
/// of a reset connection.
const LINGER_BYTES: usize = 1024 * 1024;
const LINGER: Duration = Duration::from_secs(2);

/// The bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Open connections.
    pub max_connections: usize,
    /// How long a client may take to send its headers.
    pub header_read_timeout: Duration,
    /// How long a client may take nothing of an answer. Nobody else would notice: while its socket is full, the stream
    /// behind it is not asked for more, and its own time limits sleep.
    pub write_stall: Duration,
}

/// What answers on a connection.
pub type ApiEndpoint = Arc<BoxEndpoint<'static, Response>>;

/// Where connections are served: a runtime, and an endpoint that is used by nobody else.
pub struct Place {
    /// The runtime.
    pub runtime: Handle,
    /// The endpoint.
    pub endpoint: ApiEndpoint,
    /// Connections it serves.
    pub open: Arc<AtomicUsize>,
}

impl Place {
    /// A place without connections.
    pub fn new(runtime: Handle, endpoint: ApiEndpoint) -> Self {
        Self {
            runtime,
            endpoint,
            open: Arc::default(),
        }
    }
}

/// How a listener is told to end, in two steps.
#[derive(Clone, Default)]
pub struct Closing {
    /// Everything is served, and each connection closes behind its answer: whoever is behind it connects anew, which is
    /// elsewhere once it has heard.
    pub leaving: CancellationToken,
    /// No connection is taken any more, and those without a request close.
    pub closed: CancellationToken,
    /// How long a connection then has to be without one. Whoever was answered before `leaving`, and got the last byte after
    /// it, does not know that the connection ends and may be sending the next request on it.
    pub parting: Duration,
}

/// Serves connections until `closing.closed` is cancelled, and returns then; those still open are in `connections`.
pub async fn serve(
    listener: TcpListener,
    places: Vec<Place>,
    limits: ServerLimits,
    closing: Closing,
    connections: TaskTracker,
) {
    let permits = Arc::new(Semaphore::new(limits.max_connections));
    loop {
        // The permit comes first: connections we cannot serve yet wait in the kernel's queue.
        let permit = tokio::select! {
            () = closing.closed.cancelled() => return,
            permit = permits.clone().acquire_owned() => permit,
        };
        let accepted = tokio::select! {
            () = closing.closed.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => {
                let Some(place) = places.iter().min_by_key(|place| place.open.load(Ordering::Relaxed)) else {
                    return;
                };
                let Ok(stream) = stream.into_std() else { continue };
                let (endpoint, open, closing) = (place.endpoint.clone(), OpenGuard::new(&place.open), closing.clone());
                let served = async move {
                    // Registered again, with the runtime that serves it.
                    if let Ok(stream) = TcpStream::from_std(stream) {
                        connection(stream, remote, &endpoint, &limits, closing).await;
                    }
                    drop(open);
                    drop(permit);
                };
                connections.spawn_on(served, &place.runtime);
            }
            Err(error) if is_about_the_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Counts a connection for as long as it is open, also if serving it panics.
struct OpenGuard(Arc<AtomicUsize>);

impl OpenGuard {
    fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(open.clone())
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether the client was gone before we got to it, as opposed to something being wrong here.
fn is_about_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn connection(
    stream: TcpStream,
    remote: std::net::SocketAddr,
    endpoint: &ApiEndpoint,
    limits: &ServerLimits,
    closing: Closing,
) {
    let Closing {
        leaving,
        closed,
        parting,
    } = closing;
    // Without it the first event of a stream waits for an acknowledgement, about 40 ms.
    let _ = stream.set_nodelay(true);
    let Ok(local) = stream.local_addr() else { return };
    let phase = Arc::new(Phase::default());
    let io = TimedStream::new(stream, phase.clone(), limits);
    let quiet = {
        let phase = phase.clone();
        async move {
            closed.cancelled().await;
            if !parting.is_zero() {
                phase.quiet(parting).await;
            }
        }
    };
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (endpoint, leaving) = (endpoint.clone(), leaving.clone());
        let busy = BusyGuard::new(phase.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = if body.is_end_stream() {
                poem::Body::empty()
            } else {
                BoxBody::new(Lingering::new(&head, body)).into()
            };
            let head = RequestParts::from((
                head,
                LocalAddr(Addr::SocketAddr(local)),
                RemoteAddr(Addr::SocketAddr(remote)),
                http::uri::Scheme::HTTP,
            ));
            let request = poem::Request::from_parts(head, body);
            let mut response: hyper::Response<BoxBody<Bytes, io::Error>> = endpoint.get_response(request).await.into();
            if leaving.is_cancelled() {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            Ok::<_, Infallible>(response.map(|inner| ResponseBody { inner, _busy: busy }))
        }
    });
    let serving = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(io), service);
    let mut serving = std::pin::pin!(serving);
    // Errors of a connection (the client left, sent nonsense, was too slow) have been dealt with where they matter.
    tokio::select! {
        _ = serving.as_mut() => {}
        () = quiet => {
            serving.as_mut().graceful_shutdown();
            let _ = serving.await;
        }
    }
}

/// Where a connection is between requests. Shared by its socket, which knows when bytes come, and its requests, which
/// know when they are over.
#[derive(Default)]
struct Phase {
    at: Mutex<Where>,
    /// A request is over.
    idle: Notify,
}

impl Phase {
    /// Returns when there was no request for so long.
    async fn quiet(&self, parting: Duration) {
        loop {
            let at = *self.at.lock();
            match at {
                Where::Busy => self.idle.notified().await,
                Where::Idle(since) | Where::Head(since) if since.elapsed() >= parting => return,
                Where::Idle(since) | Where::Head(since) => tokio::time::sleep_until(since + parting).await,
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Where {
    /// No request, since then.
    Idle(Instant),
    /// A part of a head has come, the first of it then.
    Head(Instant),
    /// A request is being served.
    Busy,
}

impl Default for Where {
    fn default() -> Self {
        // A client that connects and says nothing is as slow as one that says little.
        Self::Head(Instant::now())
    }
}

/// Marks a connection as busy as long as the request or its answer exists.
struct BusyGuard(Arc<Phase>);

impl BusyGuard {
    fn new(phase: Arc<Phase>) -> Self {
        *phase.at.lock() = Where::Busy;
        Self(phase)
    }
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        *self.0.at.lock() = Where::Idle(Instant::now());
        self.0.idle.notify_one();
    }
}

/// An answer's body that tells when it is over.
struct ResponseBody {
    inner: BoxBody<Bytes, io::Error>,
    _busy: BusyGuard,
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A socket that gives up on clients that are too slow with their headers, or have nothing to ask.
struct TimedStream {
    stream: TcpStream,
    phase: Arc<Phase>,
    limits: ServerLimits,
    tick: Pin<Box<Sleep>>,
    /// Since when the socket takes nothing, although there is something to write.
    stalled: Option<Instant>,
    /// How much may still be read, and until when, of a client whose head was refused.
    refused: Option<(usize, Instant)>,
}

impl TimedStream {
    fn new(stream: TcpStream, phase: Arc<Phase>, limits: &ServerLimits) -> Self {
        Self {
            stream,
            phase,
            limits: *limits,
            tick: Box::pin(tokio::time::sleep(TICK)),
            stalled: None,
            refused: None,
        }
    }

    /// Notes whether the socket took what was there to write.
    fn wrote(&mut self, pending: bool) {
        match (pending, self.stalled) {
            (false, Some(_)) => self.stalled = None,
            (true, None) => self.stalled = Some(Instant::now()),
            (false, None) | (true, Some(_)) => {}
        }
    }

    /// Looks at the time; ready when the connection is to be given up.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.tick.as_mut().poll(cx));
            let now = Instant::now();
            if let Some(since) = self.stalled {
                // Whatever the phase: an answer is still on its way.
                if now >= since + self.limits.write_stall {
                    return Poll::Ready(());
                }
                self.tick.as_mut().reset(now + TICK);
                continue;
            }
            match *self.phase.at.lock() {
                Where::Idle(since) if now >= since + IDLE_TIMEOUT => return Poll::Ready(()),
                Where::Head(since) if now >= since + self.limits.header_read_timeout => {
                    let _ = self.stream.try_write(&early::too_slow());
                    return Poll::Ready(());
                }
                Where::Idle(_) | Where::Head(_) | Where::Busy => {}
            }
            self.tick.as_mut().reset(now + TICK);
        }
    }
}

impl TimedStream {
    /// Says what hyper says about a head it cannot read, in our own words. `written` is how hyper would put it.
    fn refused_by_hyper(&mut self, written: &[u8]) -> bool {
        if !matches!(*self.phase.at.lock(), Where::Head(_)) {
            return false;
        }
        let Some(answer) = early::instead_of(written) else {
            return false;
        };
        // There is room for it, or the client has not taken earlier answers and will not take this one either.
        let _ = self.stream.try_write(&answer);
        self.refused = Some((LINGER_BYTES, Instant::now() + LINGER));
        true
    }

    /// Reads what a refused client still sends, until it is through or the patience is over.
    fn poll_hear_out(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [MaybeUninit::uninit(); 4 * 1024];
        while let Some((left, until)) = self.refused {
            self.tick.as_mut().reset(until);
            let mut buf = ReadBuf::uninit(&mut scratch);
            let over = match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) => buf.filled().is_empty() || buf.filled().len() > left,
                Poll::Ready(Err(_)) => true,
                Poll::Pending => {
                    ready!(self.tick.as_mut().poll(cx));
                    true
                }
            };
            self.refused = (!over).then(|| (left - buf.filled().len(), until));
        }
        Poll::Ready(())
    }
}

impl AsyncRead for TimedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(result) => {
                let mut phase = self.phase.at.lock();
                if let Where::Idle(_) = *phase {
                    *phase = Where::Head(Instant::now());
                }
                Poll::Ready(result)
            }
            Poll::Pending => {
                ready!(self.poll_patience(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl AsyncWrite for TimedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.refused_by_hyper(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(written.is_pending());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [only] = bufs
            && self.refused_by_hyper(only)
        {
            return Poll::Ready(Ok(only.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(written.is_pending());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        self.poll_hear_out(cx).map(Ok)
    }
}
