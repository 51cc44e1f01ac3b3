//! What a request consumed and cost: measured along the way, settled exactly once.
//!
//! The meter is a guard. However a request ends (answered, refused, failed, or dropped because the caller left), its
//! record reaches the journal, and what was taken of limits and budgets is settled.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::capture::Capture;
use super::limit::LimitHold;
use super::route::Moment;
use super::traced::{Asked, Signs, Traced};
use super::{Call, Pipeline, Served, Voice};
use crate::cache::{Entry, Fill, Origin};
use crate::chat::estimate::TextTally;
use crate::chat::param::Dropped;
use crate::chat::render::Identity;
use crate::chat::request::{DialectHeaders, Request};
use crate::domain::budget::BudgetScope;
use crate::domain::caching::CacheControl;
use crate::domain::call::{CacheStatus, ErrorClass, Operation};
use crate::domain::error::GatewayError;
use crate::domain::health::{Ended, Outcome};
use crate::domain::ids::RequestId;
use crate::domain::limit::Standings;
use crate::domain::money::NanoUsd;
use crate::domain::record::{AttemptRecord, CachedFrom, Charge, UsageRecord};
use crate::domain::service::Service;
use crate::domain::usage::{TokenUsage, UsageSource};
use crate::gates::budgets::Reservation;
use crate::gates::health_board::{ProbePermit, ProviderGate};
use crate::gates::key_gate::KeyGate;
use crate::gates::load_gate::Place;
use crate::gates::measurements::{InFlight, Sample};
use crate::journal::{Slot, Update, Written};
use crate::providers::adapter::MediaLibrary;
use crate::routing::catalog::Deployment;
use crate::routing::plan::Readiness;
use crate::telemetry::names::trace::{self as names, event};
use crate::telemetry::trace::{Ambient, Kind, Propagation, Span, gen_ai};
use crate::upstream::Propagated;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::endpoints::Keyed;
use crate::upstream::payload::SentMark;

/// Status of a request whose caller left before there was one (nginx's convention).
const CLIENT_CLOSED_REQUEST: u16 = 499;
/// Longest provider request id that is kept; real ones are a tenth of it.
const MAX_REQUEST_ID_BYTES: usize = 256;

/// Measures one request.
pub struct Meter {
    pipeline: Arc<Pipeline>,
    gate: Arc<KeyGate>,
    voice: Voice,
    headers: DialectHeaders,
    visible_headers: Vec<(String, String)>,
    slot: Option<Slot>,
    limits: LimitHold,
    /// Its place among the requests under way; goes with the meter.
    place: Option<Place>,
    received: Instant,
    record: Option<Box<UsageRecord>>,
    /// What is set aside for it.
    reservation: Reservation,
    presumed: Presumed,
    current: Option<Current>,
    /// What the provider that answers could not express.
    dropped: Dropped,
    /// Whether the policy is not to tell.
    dropped_in_silence: bool,
    /// Whether the credential that was just refused has been replaced.
    renewed: bool,
    used_up: Option<Duration>,
    /// What the caller said about the response cache.
    cache_control: CacheControl,
    /// The right to keep the answer, where it may be kept.
    fill: Option<Fill>,
    /// What is remembered of prompt and answer, where they are to be kept.
    capture: Option<Capture>,
    /// What its spans say, where they are recorded.
    traced: Option<Box<Traced>>,
    /// What was fetched for the request.
    media: MediaLibrary,
    /// Set once a status of 200 is on its way, whatever happens from now on. Only streams have one.
    head_sent: Option<Arc<AtomicBool>>,
    /// For whom it is, in logs and traces.
    ambient: Ambient,
}

/// The attempt under way.
struct Current {
    deployment: Arc<Deployment>,
    health: Option<Arc<ProviderGate>>,
    /// Held by the one attempt that finds out whether its provider is back.
    probe: Option<ProbePermit>,
    /// Counted as long as the attempt is under way.
    in_flight: Option<InFlight>,
    /// Its place among the requests under way with its credential; goes with the attempt.
    _place: Option<Place>,
    started: Instant,
    /// When what it says about its provider's health began: the attempt, or what is left of it once a part was reported.
    judged_from: Instant,
    /// Whether it was reported that the provider answers, before the answer was over.
    proven: bool,
    /// Whether the provider has the request.
    sent: SentMark,
    first_token: Option<Duration>,
    status: Option<u16>,
    upstream_request_id: Option<Arc<str>>,
    /// What some of its calls were answered, where others failed.
    partly: Option<Partial>,
    span: Span,
}

/// How long a stream flows before the probe that it is counts as passed. Less says little: the next bytes may be missing.
const PROVEN_AFTER: Duration = Duration::from_secs(2);

impl Current {
    /// A probe that streams has shown after a while that its provider is back, however long the stream goes on.
    fn prove(&mut self) {
        let flowing = self
            .first_token
            .map(|first| self.started.elapsed().saturating_sub(first));
        if flowing.is_none_or(|flowing| flowing < PROVEN_AFTER) {
            return;
        }
        if let (Some(health), Some(permit)) = (&self.health, self.probe.take()) {
            health.report(self.ended(Outcome::Answered), Some(permit));
            self.judged_from = Instant::now();
            self.proven = true;
        }
    }

    fn ended(&self, outcome: Outcome) -> Ended {
        Ended {
            outcome,
            began: self.judged_from.into_std(),
            trace: self.span.context(),
        }
    }

    /// Whether the provider can have begun to work. A model in this process is not sent anything.
    fn reached(&self) -> bool {
        self.sent.is_set() || self.first_token.is_some()
    }
}

impl Meter {
    /// Starts measuring a request that has its place in the journal.
    pub(super) fn start(pipeline: Arc<Pipeline>, call: Call, slot: Slot) -> Self {
        pipeline.metrics.in_flight.inc();
        call.gate.used(call.admitted_at);
        let ambient = Ambient::here();
        let record = UsageRecord {
            id: call.id,
            owner: call.gate.owner(),
            admitted_at: call.admitted_at,
            operation: call.operation,
            dialect: call.voice.dialect,
            requested_model: String::new(),
            stream: false,
            status: CLIENT_CLOSED_REQUEST,
            error: None,
            client_cancelled: false,
            latency: Duration::ZERO,
            first_token: None,
            overhead: Duration::ZERO,
            cache: CacheStatus::Bypass,
            cached_from: None,
            attempts: Vec::new(),
            routing: None,
            trace: ambient.context(),
        };
        Self {
            pipeline,
            gate: call.gate,
            voice: call.voice,
            headers: call.headers,
            visible_headers: call.visible_headers,
            slot: Some(slot),
            limits: LimitHold::default(),
            place: None,
            received: call.received,
            record: Some(Box::new(record)),
            reservation: Reservation::default(),
            presumed: Presumed::default(),
            current: None,
            dropped: Dropped::default(),
            dropped_in_silence: false,
            renewed: false,
            used_up: None,
            cache_control: call.cache_control,
            fill: None,
            capture: None,
            traced: None,
            media: MediaLibrary::default(),
            head_sent: None,
            ambient,
        }
    }

    /// For whom the request is, in logs and traces.
    pub(super) fn ambient(&self) -> &Ambient {
        &self.ambient
    }

    fn record(&mut self) -> &mut UsageRecord {
        self.record.as_mut().expect("the record leaves with the meter")
    }

    /// Holds the request's place among those under way until its end.
    pub fn hold(&mut self, place: Place) {
        self.place = Some(place);
    }

    /// What the caller said about the response cache.
    pub(super) fn cache_control(&self) -> CacheControl {
        self.cache_control
    }

    /// The cache was asked in vain; the answer that comes may be kept.
    pub(super) fn may_keep(&mut self, fill: Fill) {
        self.record().cache = CacheStatus::Miss;
        self.fill = Some(fill);
    }

    /// What the request had to do with the cache.
    pub(super) fn cache_status(&self) -> CacheStatus {
        self.record.as_ref().map_or(CacheStatus::Bypass, |record| record.cache)
    }

    /// The answer came out of the cache.
    pub(super) fn served_from(&mut self, entry: &Entry) -> Served {
        let overhead = self.received.elapsed();
        let record = self.record();
        record.cache = CacheStatus::Hit;
        record.cached_from = Some(CachedFrom {
            provider: entry.provider.clone(),
            model: entry.model.clone(),
            saved: entry.cost,
        });
        Served {
            provider: entry.provider.clone(),
            model: entry.model.clone(),
            attempts: 0,
            overhead,
            cost: Some(NanoUsd::ZERO),
            dropped: Dropped::default(),
        }
    }

    /// Another replica had the answer.
    pub(super) fn adopt(&mut self, entry: Entry) -> Option<Arc<Entry>> {
        self.fill.take().map(|fill| fill.adopt(entry))
    }

    /// Keeps a whole answer, where it may be kept.
    pub(super) fn keep(&mut self, body: Bytes) {
        if let Some((fill, origin)) = self.fill.take().zip(self.origin()) {
            fill.store(body, origin);
        }
    }

    /// Part of a stream went to the caller.
    pub(super) fn relayed(&mut self, bytes: &[u8]) {
        if let Some(fill) = &mut self.fill {
            fill.relayed(bytes);
        }
        self.answer_says(bytes);
        self.was_answered(bytes);
    }

    /// Keeps a stream that came to its proper end, where it may be kept.
    pub(super) fn keep_stream(&mut self) {
        if let Some((fill, origin)) = self.fill.take().zip(self.origin()) {
            fill.store_stream(origin);
        }
    }

    /// Whose the answer is. None where something of the request was dropped: the caller of a later one would not hear of
    /// it.
    fn origin(&self) -> Option<Origin> {
        let attempt = self.record.as_ref()?.attempts.last()?;
        self.dropped.is_empty().then(|| Origin {
            provider: attempt.provider.clone(),
            model: attempt.model.clone(),
            cost: attempt.charge.cost,
        })
    }

    /// The request's id.
    pub fn id(&self) -> RequestId {
        self.record.as_ref().expect("the record leaves with the meter").id
    }

    /// About so many tokens of the model's are in what is asked.
    pub(super) fn prompt_tokens(&self) -> u64 {
        self.presumed.prompt_tokens
    }

    /// Who an answer that we write ourselves says it is.
    pub(super) fn identity(&self) -> Identity {
        let admitted_at = self.record.as_ref().map(|record| record.admitted_at.timestamp());
        Identity {
            id: self.id().to_string(),
            created: admitted_at.and_then(|at| u64::try_from(at).ok()).unwrap_or_default(),
        }
    }

    /// Headers of the caller's dialect; they go with the request.
    pub(super) fn take_headers(&mut self) -> DialectHeaders {
        std::mem::take(&mut self.headers)
    }

    /// What is asked for.
    pub fn operation(&self) -> Operation {
        self.record
            .as_ref()
            .expect("the record leaves with the meter")
            .operation
    }

    /// The key.
    pub fn gate(&self) -> &KeyGate {
        &self.gate
    }

    /// The key, to keep.
    pub(super) fn gate_handle(&self) -> Arc<KeyGate> {
        self.gate.clone()
    }

    /// When the request was admitted.
    pub(super) fn admitted_at(&self) -> DateTime<Utc> {
        let record = self.record.as_ref().expect("the record leaves with the meter");
        record.admitted_at
    }

    /// What the attempts so far cost, as far as it counts for a budget.
    pub(super) fn charged(&self, scope: &BudgetScope) -> NanoUsd {
        let record = self.record.as_ref().expect("the record leaves with the meter");
        scope.charged(&record.attempts)
    }

    /// What is reserved of budgets.
    pub(super) fn reservation(&mut self) -> &mut Reservation {
        &mut self.reservation
    }

    /// What it holds of its key's limits.
    pub(super) fn limits(&mut self) -> &mut LimitHold {
        &mut self.limits
    }

    /// Where its key's limits stand, once that is known; for the headers of the answer.
    pub fn standings(&self) -> Arc<OnceLock<Standings>> {
        self.limits.standings()
    }

    /// How the caller is answered.
    pub fn voice(&self) -> Voice {
        self.voice
    }

    /// Notes what the body says.
    pub(super) fn asked_for(&mut self, request: &Request) {
        self.presumed = Presumed {
            prompt_tokens: request.prompt.tokens(),
            wish: request.service,
            service: request.service,
        };
        let record = self.record();
        record.requested_model.clone_from(&request.model);
        record.stream = request.stream;
        if self.ambient.is_recorded() {
            self.traced = Some(Box::new(Traced {
                asked: Asked::of(request),
                signs: Signs::default(),
            }));
        }
        self.ambient.root(|root| {
            if let Some(traced) = &self.traced {
                traced.asked.tell(root);
            }
            if let Some(most) = self.pipeline.tracer.content_bytes() {
                gen_ai::tell_prompt(root, &request.body, most);
            }
        });
    }

    /// A whole answer, or events of a stream, came and the caller will get them.
    pub(super) fn answer_says(&mut self, bytes: &[u8]) {
        if let Some(traced) = &mut self.traced {
            match self.record.as_ref().is_some_and(|record| record.stream) {
                true => traced.signs.events(bytes),
                false => traced.signs.whole(bytes),
            }
        }
    }

    /// A whole answer is on its way to the caller. Spans hold nothing of it unless that is switched on.
    pub(super) fn trace_answer(&self, body: &[u8]) {
        self.ambient.root(|root| {
            if let Some(most) = self.pipeline.tracer.content_bytes() {
                gen_ai::tell_answer(root, body, most);
            }
        });
    }

    /// Remembers the prompt and what is answered to it, where the organization wants them kept.
    pub(super) fn capture(&mut self, request: &Request) {
        let organization = self.gate.row.organization.id;
        let policy = self.pipeline.policies.of(organization);
        if let Some(terms) = &policy.terms.logging {
            let of = (organization, self.id(), self.record().admitted_at);
            let payloads = self.pipeline.payloads.clone();
            self.capture = Some(Capture::new(payloads, of, terms, &request.body, request.stream));
        }
    }

    /// A part of the answer, or all of it, is on its way to the caller.
    pub(super) fn was_answered(&mut self, bytes: &[u8]) {
        if let Some(capture) = &mut self.capture {
            capture.answered(bytes);
        }
    }

    /// What a decision about the request depends on besides itself.
    pub(super) fn moment(&self) -> Moment<'_> {
        let record = self.record.as_ref().expect("the record leaves with the meter");
        Moment {
            id: record.id.0.as_u128(),
            at: record.admitted_at,
            headers: &self.visible_headers,
            budget_exhausted: false,
        }
    }

    /// Notes why the request goes where it goes.
    pub(super) fn routed(&mut self, reasons: Box<str>) {
        self.record().routing = Some(reasons);
    }

    /// The request is understood and may cost money from now on, and the journal knows. Whoever hands the caller anything
    /// waits for that.
    pub(super) fn may_cost(&mut self) -> Option<Written> {
        let elapsed = self.received.elapsed();
        self.record().latency = elapsed;
        let record = self.record.as_ref()?;
        self.slot.as_ref()?.open(record)
    }

    /// Gives the mark that tells that the status line is out: from then on, failures are said inside the stream.
    pub(super) fn mark_of_head(&mut self) -> Arc<AtomicBool> {
        self.head_sent.get_or_insert_default().clone()
    }

    fn head_is_sent(&self) -> bool {
        self.head_sent.as_ref().is_some_and(|sent| sent.load(Ordering::Acquire))
    }

    /// An attempt begins.
    pub(super) fn attempt_begins(
        &mut self,
        deployment: &Arc<Deployment>,
        keyed: Option<&Keyed>,
        probe: Option<ProbePermit>,
        place: Option<Place>,
    ) {
        let organization = self.gate().row.organization.slug.clone();
        let spot = keyed.and_then(|keyed| keyed.spot.as_ref());
        let health = spot.map(|spot| self.pipeline.board.watch(&organization, spot));
        let started = Instant::now();
        let sent = self.mark_of_attempt(deployment, started);
        let operation = self.operation();
        let model = deployment.model.as_str();
        let mut span = self.ambient.span(|| gen_ai::span_name(operation, model), Kind::Client);
        let provider = deployment.provider.as_str();
        gen_ai::attempt_begins(&mut span, operation, provider, model, deployment.id.as_str());
        if let Some(traced) = &self.traced {
            traced.asked.tell(&mut span);
        }
        if let Some(health) = health.as_ref().filter(|_| span.is_recorded()) {
            let spot = &health.watched.spot;
            span.set_if(names::CREDENTIAL, spot.credential.as_deref());
            span.set_if(names::REGION, spot.region.as_deref());
            // Whoever probes knows that others see it as out meanwhile.
            let readiness = if probe.is_some() {
                Readiness::Probing
            } else {
                health.readiness()
            };
            span.set(names::HEALTH, || readiness.as_str());
            span.set_if(names::IS_PROBE, probe.is_some().then_some(true));
        }
        self.current = Some(Current {
            deployment: deployment.clone(),
            health,
            probe,
            in_flight: self.pipeline.measurements.begin(&deployment.measured_as(&organization)),
            _place: place,
            started,
            judged_from: started,
            proven: false,
            sent,
            first_token: None,
            status: None,
            upstream_request_id: None,
            partly: None,
            span,
        });
    }

    /// Where the attempt under way goes.
    pub(super) fn goes_to(&mut self, endpoint: &Endpoint) {
        if let Some(current) = &mut self.current
            && current.span.is_recorded()
            && let Some((host, port)) = endpoint.origin.address()
        {
            current.span.set(names::SERVER_ADDRESS, || host);
            current.span.set(names::SERVER_PORT, || port);
        }
    }

    /// What the provider is told of the trace: the attempt's own place in it.
    pub(super) fn propagated(&self) -> Propagated {
        let propagation = self.pipeline.tracer.propagation();
        if propagation == Propagation::None {
            return Propagated::default();
        }
        let inside = self.current.as_ref().and_then(|current| current.span.context());
        let state = match propagation {
            Propagation::ParentAndState => self.ambient.state(),
            Propagation::Parent | Propagation::None => None,
        };
        Propagated::new(inside.or(self.ambient.context()), state)
    }

    /// A mark that lets the journal know that a provider has the request. If nothing more is heard of it, it is charged with
    /// what its attempts cost so far, and with the prompt.
    fn mark_of_attempt(&mut self, deployment: &Deployment, started: Instant) -> SentMark {
        let usage = self.presumed.estimate(TextTally::default());
        let update = self.update(AttemptRecord {
            deployment: deployment.id.clone(),
            provider: deployment.provider.clone(),
            model: deployment.model.clone(),
            started_after: started - self.received,
            latency: Duration::ZERO,
            first_token: None,
            status: None,
            error: None,
            upstream_request_id: None,
            charge: self.presumed.priced(usage, UsageSource::Estimated, deployment),
        });
        update.map_or_else(SentMark::default, |update| SentMark::telling(move || update.write()))
    }

    /// Lets the journal know how far a stream has come. If nothing more is heard of it, it is charged with that.
    pub(super) fn came_so_far(&mut self, partial: Partial) {
        if let Some(current) = &mut self.current {
            current.prove();
        }
        let Some(current) = &self.current else { return };
        let attempt = AttemptRecord {
            deployment: current.deployment.id.clone(),
            provider: current.deployment.provider.clone(),
            model: current.deployment.model.clone(),
            started_after: current.started - self.received,
            latency: current.started.elapsed(),
            first_token: current.first_token,
            status: current.status,
            error: None,
            upstream_request_id: current.upstream_request_id.clone(),
            charge: partial.charge(current, &self.presumed),
        };
        if let Some(update) = self.update(attempt) {
            update.write();
        }
    }

    /// How the request stands with this attempt under way.
    fn update(&mut self, attempt: AttemptRecord) -> Option<Update> {
        let elapsed = self.received.elapsed();
        let (record, slot) = (self.record.as_mut()?, self.slot.as_ref()?);
        record.latency = elapsed;
        record.attempts.push(attempt);
        let update = slot.update(record);
        record.attempts.pop();
        update
    }

    /// The mark that is set when the provider has the request of the attempt under way.
    pub(super) fn sent_mark(&self) -> SentMark {
        self.current
            .as_ref()
            .map(|current| current.sent.clone())
            .unwrap_or_default()
    }

    /// The head of the provider's answer is here.
    pub(super) fn head(&mut self, status: u16, request_id: Option<&str>) {
        if let Some(current) = &mut self.current {
            current.status = Some(status);
            current.upstream_request_id = request_id.filter(|id| id.len() <= MAX_REQUEST_ID_BYTES).map(Into::into);
        }
    }

    /// The provider says that nothing is left for so long of what it allows the credential, if it says that.
    pub(super) fn used_up(&mut self, lasts: Option<Duration>) {
        self.used_up = lasts;
    }

    /// What [`Meter::used_up`] was last told.
    pub(super) fn take_used_up(&mut self) -> Option<Duration> {
        self.used_up.take()
    }

    /// The provider refused the credential, and there will be another one for the next try.
    pub(super) fn credential_renewed(&mut self) {
        self.renewed = true;
    }

    /// Whether the attempt that just failed is worth another try with another credential.
    pub(super) fn take_renewed(&mut self) -> bool {
        std::mem::take(&mut self.renewed)
    }

    /// What was fetched for the request so far, for the next attempt.
    pub(super) fn take_media(&mut self) -> MediaLibrary {
        std::mem::take(&mut self.media)
    }

    /// Keeps what was fetched for a later attempt.
    pub(super) fn keep_media(&mut self, media: MediaLibrary) {
        self.media = media;
    }

    /// Notes what of the request the present provider could not express, and whether the caller is told.
    pub(super) fn dropped(&mut self, dropped: &Dropped, told: bool) {
        self.dropped.clone_from(dropped);
        self.presumed.service = self.presumed.wish.without(dropped.names());
        self.dropped_in_silence = !told;
    }

    /// What of the request the caller is told that it was not expressed.
    fn dropped_aloud(&self) -> Dropped {
        if self.dropped_in_silence {
            Dropped::default()
        } else {
            self.dropped.clone()
        }
    }

    /// The provider's id for the attempt that was last under way.
    pub(super) fn upstream_request_id(&self) -> Option<String> {
        let attempts = &self.record.as_ref()?.attempts;
        attempts.last()?.upstream_request_id.as_deref().map(ToOwned::to_owned)
    }

    /// The deployment of the attempt under way.
    pub(super) fn deployment(&self) -> Option<Arc<Deployment>> {
        self.current.as_ref().map(|current| current.deployment.clone())
    }

    /// The first events are about to be handed over.
    pub(super) fn first_event(&mut self) {
        let now = Instant::now();
        if let Some(current) = &mut self.current {
            current.first_token = Some(now - current.started);
            current.span.event(event::FIRST_TOKEN);
        }
        let since = now - self.received;
        self.record().first_token = Some(since);
    }

    /// The attempt ended with a complete answer.
    pub(super) fn answered(&mut self, usage: Option<TokenUsage>, generated: TextTally) {
        let charge = |current: &Current, presumed: &Presumed| match usage {
            Some(usage) => presumed.priced(usage, UsageSource::Reported, &current.deployment),
            None => presumed.priced(
                presumed.estimate(generated),
                UsageSource::Estimated,
                &current.deployment,
            ),
        };
        self.close(None, None, charge);
    }

    /// What the attempt was answered is charged for, though it will fail.
    pub(super) fn answered_partly(&mut self, partial: Partial) {
        if let Some(current) = &mut self.current {
            current.partly = Some(partial);
        }
    }

    /// The attempt failed. `retry_after` is how long the provider asked us to stay away; `partial` is what was relayed
    /// before that, if anything was.
    pub(super) fn failed(&mut self, class: ErrorClass, retry_after: Option<Duration>, partial: Option<Partial>) {
        self.close(Some(class), retry_after, |current, presumed| {
            match partial.or(current.partly) {
                // A connection that did not stand yet, or a token that we still waited for, costs nothing.
                _ if !current.reached() => Charge::nothing(),
                Some(partial) => partial.charge(current, presumed),
                // A provider that answered 200, or let us wait in vain, has worked and will charge for it; one that refused
                // will not.
                None if current.status == Some(200) || class == ErrorClass::Timeout => {
                    Partial::default().charge(current, presumed)
                }
                None => Charge::nothing(),
            }
        });
    }

    /// The attempt failed because of the credential it was made with, and the provider has others.
    pub(super) fn refused_credential(&mut self, class: ErrorClass) {
        if let Some(current) = &mut self.current {
            // It says nothing about the provider, and a permit that it held goes to the next who asks.
            current.health = None;
        }
        self.close(Some(class), None, |current, presumed| match current.partly {
            Some(partial) => partial.charge(current, presumed),
            None => Charge::nothing(),
        });
    }

    /// Closes the attempt under way, if there is one.
    fn close(
        &mut self,
        error: Option<ErrorClass>,
        retry_after: Option<Duration>,
        charge: impl FnOnce(&Current, &Presumed) -> Charge,
    ) {
        let Some(mut current) = self.current.take() else { return };
        // Without an outcome the permit is dropped, and whoever comes next may probe.
        let probe = current.probe.take();
        let charge = charge(&current, &self.presumed);
        let slowness = current
            .in_flight
            .take()
            .map(|in_flight| in_flight.ended(sample(&current, error, &charge.usage)));
        let outcome = outcome(&current, error, retry_after);
        let slow = slowness.is_some_and(|slowness| slowness.is_slow(self.pipeline.limits.slow_calls));
        let outcome = match outcome {
            Some(Outcome::Answered) if slow => Some(Outcome::AnsweredSlowly),
            // That it answers is known already.
            Some(Outcome::Answered) if current.proven => None,
            other => other,
        };
        let health = current.health.take();
        let ended = outcome.map(|outcome| current.ended(outcome));
        let received = self.received;
        let mut span = std::mem::take(&mut current.span);
        let attempt = AttemptRecord {
            deployment: current.deployment.id.clone(),
            provider: current.deployment.provider.clone(),
            model: current.deployment.model.clone(),
            started_after: current.started - received,
            latency: current.started.elapsed(),
            first_token: current.first_token,
            status: current.status,
            error,
            upstream_request_id: current.upstream_request_id,
            charge,
        };
        gen_ai::attempt_ended(&mut span, &attempt);
        if let Some(traced) = &self.traced
            && (error.is_none() || attempt.first_token.is_some())
        {
            traced.signs.tell(&mut span);
        }
        self.record().attempts.push(attempt);
        // Last: should anything go wrong while others are told, the record has what the attempt cost.
        if let (Some(health), Some(ended)) = (health, ended) {
            health.report(ended, probe);
        }
    }

    /// Who is answering, with the figures so far.
    pub(super) fn served(&self) -> Option<Served> {
        let record = self.record.as_ref()?;
        let waited: Duration = record.attempts.iter().map(|attempt| attempt.latency).sum();
        let elapsed = self.received.elapsed();
        if let Some(current) = &self.current {
            let waited = waited + current.first_token.unwrap_or_default();
            return Some(Served {
                provider: current.deployment.provider.clone(),
                model: current.deployment.model.clone(),
                attempts: record.attempts.len() + 1,
                overhead: elapsed.saturating_sub(waited),
                cost: None,
                dropped: self.dropped_aloud(),
            });
        }
        let last = record.attempts.last()?;
        Some(Served {
            provider: last.provider.clone(),
            model: last.model.clone(),
            attempts: record.attempts.len(),
            overhead: elapsed.saturating_sub(waited),
            cost: record.cost(),
            dropped: self.dropped_aloud(),
        })
    }

    /// The request was answered whole.
    pub(super) fn finish_served(mut self) -> (Option<Served>, Option<Written>) {
        let served = self.served();
        let written = self.settle(200, None);
        (served, written)
    }

    /// The request ends, well or with an error that the caller is told next.
    pub(super) fn finish(mut self, error: Option<ErrorClass>) -> Option<Written> {
        self.settle(200, error)
    }

    /// The request is refused, or failed before anything was handed over. Gives the error back for the caller.
    pub fn refuse(mut self, error: GatewayError) -> GatewayError {
        let status = if self.head_is_sent() {
            200
        } else {
            (self.voice.status)(&error)
        };
        drop(self.settle(status, Some(error.class())));
        error
    }

    /// The caller left in the middle of a stream.
    pub(super) fn left(mut self, partial: Partial) {
        self.failed(ErrorClass::Cancelled, None, Some(partial));
        self.cancelled(200);
    }

    fn cancelled(&mut self, status: u16) {
        self.record().client_cancelled = true;
        drop(self.settle(status, Some(ErrorClass::Cancelled)));
    }

    fn settle(&mut self, status: u16, error: Option<ErrorClass>) -> Option<Written> {
        let (mut record, slot) = (self.record.take()?, self.slot.take()?);
        record.status = status;
        record.error = error;
        record.latency = self.received.elapsed();
        let waited: Duration = record.attempts.iter().map(|attempt| attempt.latency).sum();
        record.overhead = record.latency.saturating_sub(waited);
        self.limits.settle(&record);
        // Before the record can be in the ledger: until then its cost stays set aside.
        self.pipeline.budgets.settle(&mut self.reservation, &record);
        self.pipeline.metrics.finished(&record);
        self.pipeline.metrics.in_flight.dec();
        self.ambient.root(|root| {
            gen_ai::request_ended(root, &record);
            if let Some(traced) = &self.traced {
                traced.signs.tell(root);
            }
        });
        if let Some(context) = record
            .trace
            .filter(|context| !context.sampled && record.error.is_some())
            && let Some(recorded) = gen_ai::after_all(&self.pipeline.tracer, context, &record)
        {
            record.trace = Some(recorded);
        }
        slot.complete(*record)
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if self.record.is_none() {
            return;
        }
        // Either our own code is coming down around us, or the caller left while an attempt was under way. A provider that
        // had the request has read the prompt, and charges for that even if nobody waits for the answer.
        let panicked = std::thread::panicking();
        let class = if panicked {
            ErrorClass::Internal
        } else {
            ErrorClass::Cancelled
        };
        if self.current.is_some() {
            self.failed(class, None, Some(Partial::default()));
        }
        match (self.head_is_sent(), panicked) {
            (true, true) => drop(self.settle(200, Some(class))),
            (false, true) => drop(self.settle((self.voice.status)(&GatewayError::internal("a panic")), Some(class))),
            (true, false) => self.cancelled(200),
            (false, false) => self.cancelled(CLIENT_CLOSED_REQUEST),
        }
    }
}

/// What the end of an attempt says about its provider, if it says anything.
fn outcome(current: &Current, error: Option<ErrorClass>, retry_after: Option<Duration>) -> Option<Outcome> {
    match error {
        None => Some(Outcome::Answered),
        // We broke it off, not the provider.
        Some(ErrorClass::Cancelled | ErrorClass::Shed) => current.first_token.map(|_| Outcome::Answered),
        Some(ErrorClass::Internal) => None,
        Some(ErrorClass::RateLimited | ErrorClass::ProviderQuota) => Some(Outcome::Limited { retry_after }),
        Some(class) if class.blames_the_provider() => Some(Outcome::Failed),
        Some(_) => current.status.map(|_| Outcome::Answered),
    }
}

/// What the end of an attempt shows about how its deployment is doing.
fn sample(current: &Current, error: Option<ErrorClass>, usage: &TokenUsage) -> Sample {
    let total = current.started.elapsed();
    match error {
        None => Sample::Answered {
            first_token: current.first_token,
            total,
            input_tokens: usage.input,
            cached_tokens: usage.cached_input,
            output_tokens: usage.output,
        },
        // Health counts a limit as an answer; for whoever chooses between deployments it is a failure like any other.
        Some(ErrorClass::RateLimited | ErrorClass::ProviderQuota) => Sample::Failed { total, too_slow: false },
        Some(class) if class.blames_the_provider() && current.health.is_some() => Sample::Failed {
            total,
            too_slow: class == ErrorClass::Timeout,
        },
        Some(_) => Sample::Nothing,
    }
}

/// What was seen of an answer that the caller does not get, or not to its end.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Partial {
    /// What the provider said so far.
    pub usage: Option<TokenUsage>,
    /// What was relayed, counted by us.
    pub generated: TextTally,
    /// Whether the answer did reach its end, though it is no use.
    pub complete: bool,
}

impl Partial {
    fn charge(self, current: &Current, presumed: &Presumed) -> Charge {
        if let Some(said) = self.usage.filter(|_| self.complete) {
            return presumed.priced(said, UsageSource::Reported, &current.deployment);
        }
        let counted = presumed.estimate(self.generated);
        // Some providers report a running usage; it is the better figure, unless it lags behind what was relayed.
        let usage = self.usage.map_or(counted, |said| TokenUsage {
            output: said.output.max(counted.output),
            ..said
        });
        presumed.priced(usage, UsageSource::Estimated, &current.deployment)
    }
}

/// What of a request decides its charge where the answer says nothing.
#[derive(Clone, Copy, Default, Debug)]
struct Presumed {
    /// About so many tokens of the model's are in it.
    prompt_tokens: u64,
    /// How it asks to be served.
    wish: Service,
    /// How the provider that is asked was told to serve it.
    service: Service,
}

impl Presumed {
    fn estimate(&self, generated: TextTally) -> TokenUsage {
        TokenUsage {
            input: self.prompt_tokens,
            output: generated.tokens(),
            ..TokenUsage::default()
        }
    }

    fn priced(&self, usage: TokenUsage, source: UsageSource, deployment: &Deployment) -> Charge {
        let served = TokenUsage {
            service: usage.service.or(Some(self.service)),
            ..usage
        };
        let price = deployment.price.as_ref();
        let cost = price.and_then(|price| price.cost(&served).ok());
        Charge {
            // The version says how it was served, and it goes into the record.
            price_version: cost.and(price).map(|price| price.version_for(&served)),
            usage: TokenUsage { service: None, ..usage },
            source,
            cost,
        }
    }
}
