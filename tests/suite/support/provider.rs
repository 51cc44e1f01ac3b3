//! `ScriptedProvider`: a model provider on a real socket, for tests that need an upstream which behaves, or misbehaves.
//!
//! Left alone it answers as OpenAI does, whole or streamed, on `/v1/…` and on Azure's paths, and as Anthropic does on
//! `/v1/messages`, and every answer follows from the request alone, so a test can predict it. A [`Script`] replaces one answer, or all of them, by something
//! else: a refusal, a stall, a cut, a lie about the length. What was really served is recorded as ground truth, to be
//! compared with the gateway's ledger.
//!
//! ```
//! let provider = ScriptedProvider::start().await;
//! let gateway = Gateway::with_upstream(provider.base_url()).await;
//!
//! gateway.chat("Hello there").await;
//! assert_eq!(provider.requests()[0].json()["model"], "mock-chat");
//! assert_eq!(provider.served().prompt_tokens, 5); // two words, and three tokens for the message
//!
//! provider.script(Script::rate_limited("2")); // the next request gets a 429,
//! provider.script(Script::faithful().edited(|answer| answer.crlf().cut_after_events(3))); // the one after it this,
//! gateway.chat("Hello again").await; // and all further ones faithful answers
//! ```
//!
//! It deliberately does not speak TLS or HTTP/2. Where to read on: `answer` has the pieces an answer is made of, `edits`
//! what can be done to one, `repertoire` the ready-made scripts, `openai` the faithful answers and the model names that
//! misbehave by themselves, `anthropic` the same for Anthropic, `bedrock` and `gemini` scripts that speak as Amazon's and
//! Google's hosts do, `record` the ground truth, `server` the socket.
//!
//! Pauses use tokio's clock, so a test may pause it. Beware that a paused clock leaps to the next timer whenever every
//! task waits, and a task waiting for a socket counts as waiting.

#![allow(dead_code, reason = "a toolbox: no single test binary uses every tool")]

mod answer;
mod anthropic;
mod azure;
pub mod bedrock;
mod edits;
pub mod gemini;
mod openai;
mod record;
mod repertoire;
mod script;
mod server;
#[cfg(test)]
mod tests;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinHandle,
};

use self::server::Stage;
#[allow(unused_imports, reason = "the same: a test binary names the types it needs")]
pub use self::{
    answer::{Answer, Step},
    record::{Departure, Ending, Exchange, Received, Served, Tokens},
    script::Script,
};

/// A mock provider listening on a loopback port. Dropping it ends the server and every connection.
pub struct ScriptedProvider {
    address: SocketAddr,
    stage: Arc<Stage>,
    server: JoinHandle<()>,
}

impl ScriptedProvider {
    /// Starts on a free port.
    pub async fn start() -> Self {
        Self::start_on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await
    }

    /// Starts on `address`, for a provider that comes back after [`stop`](Self::stop).
    pub async fn start_on(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address)
            .await
            .expect("the provider's port can be bound");
        let address = listener.local_addr().expect("a bound listener has an address");
        let stage = Arc::new(Stage::default());
        let server = tokio::spawn(server::serve(listener, Arc::clone(&stage)));
        Self { address, stage, server }
    }

    /// Closes the port and every connection, and returns once that is done. The address can be given to
    /// [`start_on`](Self::start_on).
    pub async fn stop(mut self) -> SocketAddr {
        self.server.abort();
        // The error says that the task was aborted, which is what was asked for.
        let _aborted = (&mut self.server).await;
        self.address
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`: what an Azure `endpoint` or a token authority is set to.
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// One event of Anthropic's, for streams a test writes itself.
    pub fn anthropic_event(data: &serde_json::Value) -> String {
        anthropic::event(data)
    }

    /// `http://127.0.0.1:PORT/v1`: what an OpenAI base URL is set to.
    pub fn base_url(&self) -> String {
        format!("{}/v1", self.origin())
    }

    /// Queues the answer to the next request. Requests beyond the queue get what [`always`](Self::always) set, or a
    /// faithful answer. The Entra token endpoint is apart: see [`script_token`](Self::script_token).
    pub fn script(&self, script: impl Into<Script>) {
        self.stage.scripts.queue(script.into());
    }

    /// Answers every request for which nothing is queued with `script`.
    pub fn always(&self, script: impl Into<Script>) {
        self.stage.scripts.set_standing(Some(script.into()));
    }

    /// Forgets what is queued and what [`always`](Self::always) set: the provider is healthy again. Scripts for the
    /// token endpoint stay.
    pub fn heal(&self) {
        self.stage.scripts.clear();
    }

    /// Queues the answer to the next request for an Entra token.
    pub fn script_token(&self, script: impl Into<Script>) {
        self.stage.token_scripts.queue(script.into());
    }

    /// From now on, faithful answers are given only to `key` (as bearer token or `api-key`) and to the tokens which
    /// this provider's own token endpoint issued; anything else gets the provider's 401.
    pub fn require_key(&self, key: impl Into<String>) {
        self.stage.faithful.require_key(key.into());
    }

    /// Every request received in full, in order of arrival, those for models and tokens included.
    pub fn requests(&self) -> Vec<Arc<Received>> {
        self.stage.record.requests()
    }

    /// What became of every request, in the same order as [`requests`](Self::requests).
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.stage.record.exchanges()
    }

    /// The ground truth in total. See [`Served`] for what counts as what.
    pub fn served(&self) -> Served {
        self.stage.record.served()
    }

    /// Connections open at this moment.
    pub fn open_connections(&self) -> usize {
        self.stage.connections.open()
    }

    /// Connections accepted since the start: fewer than requests when the client reuses them.
    pub fn accepted_connections(&self) -> usize {
        self.stage.connections.accepted()
    }

    /// Waits until `count` requests have arrived in all. It has no timeout of its own.
    pub async fn received(&self, count: usize) -> Vec<Arc<Received>> {
        self.stage.record.received(count).await
    }

    /// Waits until request number `request` (counted from 0) has come to its end, whichever it is.
    pub async fn ended(&self, request: usize) -> Exchange {
        self.stage.record.ended(request).await
    }

    /// Waits until the client has closed its connection under the answer to request number `request`. It has no timeout
    /// of its own.
    ///
    /// # Panics
    /// When that request ended in another way, for the client can then no longer leave it.
    pub async fn client_left(&self, request: usize) -> Departure {
        let exchange = self.ended(request).await;
        exchange.departure().unwrap_or_else(|| {
            panic!(
                "the client did not leave request {request}: it ended as {:?}",
                exchange.ending
            )
        })
    }
}

impl Drop for ScriptedProvider {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// An address where nothing listens, and where nothing will as long as this lives: connecting is refused.
pub struct ClosedPort {
    address: SocketAddr,
    /// Bound but never listening, so that no other process is given the port meanwhile.
    _reserved: TcpSocket,
}

/// Reserves a port for a [`ClosedPort`].
pub fn closed_port() -> ClosedPort {
    let reserved = TcpSocket::new_v4().expect("a socket can be made");
    reserved
        .bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .expect("a free port can be bound");
    let address = reserved.local_addr().expect("a bound socket has an address");
    ClosedPort {
        address,
        _reserved: reserved,
    }
}

impl ClosedPort {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn base_url(&self) -> String {
        format!("{}/v1", self.origin())
    }
}
