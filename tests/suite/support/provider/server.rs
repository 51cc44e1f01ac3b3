//! The socket: accepts connections, reads requests with hyper, and plays the steps of the answer.
//!
//! hyper speaks HTTP for every answer that has a head. Each piece leaves in a write of its own and the next step waits
//! for it, so that a cut never swallows what was sent before it. Answers without a head are written past hyper,
//! straight to the socket. A client that leaves makes hyper drop the answer being played, which is how it is noticed.

use std::{
    collections::VecDeque,
    fmt,
    io::{self, ErrorKind},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::CONTENT_LENGTH};
use http_body_util::BodyExt;
use hyper::{
    body::{Body, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, Sleep, sleep},
};

use super::{
    answer::{Answer, Head, Step},
    azure,
    openai::Faithful,
    record::{Ending, Received, Record, Tally},
    script::Script,
};

/// Everything the connections share.
#[derive(Default)]
pub(super) struct Stage {
    pub(super) record: Arc<Record>,
    pub(super) scripts: Scripts,
    pub(super) token_scripts: Scripts,
    pub(super) faithful: Faithful,
    pub(super) connections: Arc<Connections>,
}

impl Stage {
    fn answer(&self, received: &Received) -> Answer {
        let scripts = if azure::is_token_path(&received.path) {
            &self.token_scripts
        } else {
            &self.scripts
        };
        scripts.next().answer(received, &self.faithful)
    }
}

/// What to answer next.
#[derive(Default)]
pub(super) struct Scripts(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    once: VecDeque<Script>,
    standing: Option<Script>,
}

impl Scripts {
    pub(super) fn queue(&self, script: Script) {
        self.0.lock().unwrap().once.push_back(script);
    }

    pub(super) fn set_standing(&self, script: Option<Script>) {
        self.0.lock().unwrap().standing = script;
    }

    pub(super) fn clear(&self) {
        *self.0.lock().unwrap() = Queue::default();
    }

    fn next(&self) -> Script {
        let mut queue = self.0.lock().unwrap();
        queue
            .once
            .pop_front()
            .or_else(|| queue.standing.clone())
            .unwrap_or_else(Script::faithful)
    }
}

/// How many connections there are and were.
#[derive(Default)]
pub(super) struct Connections {
    open: AtomicUsize,
    accepted: AtomicUsize,
}

impl Connections {
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    fn enter(self: &Arc<Self>) -> Connection {
        self.open.fetch_add(1, Ordering::SeqCst);
        Connection {
            number: self.accepted.fetch_add(1, Ordering::SeqCst),
            connections: Arc::clone(self),
        }
    }
}

/// One open connection, counted until it is dropped.
struct Connection {
    number: usize,
    connections: Arc<Connections>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connections.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Accepts until it is aborted. The connections are its own, so they end with it.
pub(super) async fn serve(listener: TcpListener, stage: Arc<Stage>) {
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // Failing to accept one connection (too many open files) is no reason to stop taking others.
                let Ok((stream, _)) = accepted else { continue };
                running.spawn(converse(stream, Arc::clone(&stage)));
            }
            Some(_ended) = running.join_next() => {}
        }
    }
}

async fn converse(stream: TcpStream, stage: Arc<Stage>) {
    let connection = stage.connections.enter();
    // An event must not wait for the acknowledgement of the one before it. Some systems refuse the option on a
    // connection that is already gone, and then there is nothing to serve.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let line = Arc::new(Line::new(stream));
    let service = service_fn(|request| perform(request, connection.number, &stage, &line));
    let socket = TokioIo::new(Socket(Arc::clone(&line)));
    // It fails whenever a script breaks the connection or the client does; both are in the record already.
    let _broken = http1::Builder::new().serve_connection(socket, service).await;
}

async fn perform(
    request: Request<Incoming>,
    connection: usize,
    stage: &Stage,
    line: &Arc<Line>,
) -> Result<Response<Playing>, BrokenOff> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| BrokenOff)?.to_bytes();
    let tally = stage.record.arrive(|sequence| Received {
        sequence,
        connection,
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body,
        arrived_at: Instant::now(),
    });

    let answer = stage.answer(&tally.received);
    if !answer.head_delay.is_zero() {
        sleep(answer.head_delay).await;
    }
    let streamed = answer.is_stream();
    let announced_length = answer.announced_length();
    let Head::Http { status, headers, .. } = answer.head else {
        return Err(play_on_the_wire(answer.steps, &tally, line).await);
    };

    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    if let Some(announced_length) = announced_length {
        response
            .headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from(announced_length));
    }
    tally.head_sent(status, streamed);
    let playing = Playing {
        steps: answer.steps.into(),
        announced_left: announced_length,
        pausing: None,
        sent_at_flush: None,
        tally,
        line: Arc::clone(line),
    };
    Ok(response.map(|()| playing))
}

/// Plays the steps past hyper. The connection always closes afterwards.
async fn play_on_the_wire(steps: Vec<Step>, tally: &Tally, line: &Line) -> BrokenOff {
    for step in steps {
        match step {
            Step::Send { bytes, billed } => {
                if line.write_all(&bytes).await.is_err() {
                    return BrokenOff; // the tally, dropped without an ending, notes that the client left
                }
                tally.piece_sent(bytes.len(), billed);
            }
            Step::Pause(duration) => sleep(duration).await,
            Step::Stall => std::future::pending().await,
            Step::Cut => return break_off(tally),
            Step::Reset => {
                line.reset_when_closed();
                return break_off(tally);
            }
            Step::Finish => break,
        }
    }
    tally.end(Ending::Finished);
    BrokenOff
}

/// The body of an answer, as it is played.
struct Playing {
    steps: VecDeque<Step>,
    /// Bytes still to come of the announced length, if one was announced.
    announced_left: Option<u64>,
    pausing: Option<Pin<Box<Sleep>>>,
    /// The number of flushes of the line when the last piece was handed over.
    sent_at_flush: Option<u64>,
    tally: Tally,
    line: Arc<Line>,
}

impl Body for Playing {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if let Some(flush) = self.sent_at_flush {
            ready!(self.line.poll_flushed_since(flush, cx));
            self.sent_at_flush = None;
        }
        loop {
            if let Some(pausing) = &mut self.pausing {
                ready!(pausing.as_mut().poll(cx));
                self.pausing = None;
            }
            match self.steps.pop_front() {
                Some(Step::Send { bytes, billed }) => {
                    self.tally.piece_sent(bytes.len(), billed);
                    self.announced_left = self.announced_left.map(|left| left.saturating_sub(bytes.len() as u64));
                    self.sent_at_flush = Some(self.line.flushes());
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Some(Step::Pause(duration)) => self.pausing = Some(Box::pin(sleep(duration))),
                Some(Step::Stall) => {
                    // Nothing will wake this body; hyper goes on watching for the client to leave.
                    self.steps.push_front(Step::Stall);
                    return Poll::Pending;
                }
                Some(Step::Cut) => return Poll::Ready(Some(Err(break_off(&self.tally)))),
                Some(Step::Reset) => {
                    self.line.reset_when_closed();
                    return Poll::Ready(Some(Err(break_off(&self.tally))));
                }
                Some(Step::Finish) | None => {
                    self.tally.end(Ending::Finished);
                    return Poll::Ready(None);
                }
            }
        }
    }
}

impl Drop for Playing {
    fn drop(&mut self) {
        // hyper drops a body as soon as the announced length is reached, without asking whether there is more.
        if self.announced_left == Some(0) {
            self.tally.end(Ending::Finished);
        }
    }
}

fn break_off(tally: &Tally) -> BrokenOff {
    tally.end(Ending::CutByProvider);
    BrokenOff
}

/// Makes hyper give the connection up without another byte.
#[derive(Debug)]
struct BrokenOff;

impl fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the script breaks off here")
    }
}

impl std::error::Error for BrokenOff {}

/// A connection's stream, written by hyper and, for answers without a head, by us.
struct Line {
    stream: TcpStream,
    flushes: AtomicU64,
    /// The body waiting for its last piece to be flushed.
    waiting: Mutex<Option<Waker>>,
}

impl Line {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            flushes: AtomicU64::new(0),
            waiting: Mutex::default(),
        }
    }

    fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::SeqCst)
    }

    fn poll_flushed_since(&self, flush: u64, cx: &mut Context<'_>) -> Poll<()> {
        // Leave the waker before looking; otherwise a flush in between would wake nobody.
        *self.waiting.lock().unwrap() = Some(cx.waker().clone());
        if self.flushes() > flush {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// hyper flushes only once everything it buffered has been written.
    fn note_flush(&self) {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        if let Some(waiting) = self.waiting.lock().unwrap().take() {
            waiting.wake();
        }
    }

    fn reset_when_closed(&self) {
        // Some systems refuse the option on a connection that is already gone, which is as good as reset.
        let _gone = self.stream.set_zero_linger();
    }

    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// hyper's end of a [`Line`].
struct Socket(Arc<Line>);

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.stream.poll_read_ready(cx))?;
            match self.0.stream.try_read(buffer.initialize_unfilled()) {
                Ok(read) => {
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.stream.poll_write_ready(cx))?;
            match self.0.stream.try_write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.note_flush();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection is dropped right after, and dropping closes it.
        Poll::Ready(Ok(()))
    }
}
