//! One attempt at one deployment, up to the point where the caller can be told something.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use smallvec::SmallVec;
use tokio::time::{Instant, timeout_at};

use super::meter::{Meter, Partial};
use super::{Pipeline, PipelineLimits};
use crate::chat::estimate::TextTally;
use crate::chat::request::Request;
use crate::domain::call::{ErrorClass, Operation, ParameterPolicy};
use crate::domain::usage::TokenUsage;
use crate::providers::adapter::{
    AnswerForm, Decoder, Exchange, Failure, MediaLibrary, Reader, Relayed, Target, Unencodable, WholeAnswer,
    WireAnswer, WireRequest,
};
use crate::providers::allowance::used_up_for;
use crate::routing::catalog::Deployment;
use crate::routing::catalog_file::Mode;
use crate::upstream::Propagated;
use crate::upstream::answer::{Answer, AnswerBody};
use crate::upstream::endpoint::Endpoint;
use crate::upstream::endpoints::Keyed;
use crate::upstream::payload::SentMark;

/// Calls of one exchange that are under way at the same time.
const CALLS_AT_ONCE: usize = 4;
/// Characters of a field's name that are repeated in an error.
const MAX_FIELD_CHARS: usize = 200;
/// Bytes of a stream that are held while it has said nothing; providers send a few hundred.
const MAX_UNSAID_BYTES: usize = 64 * 1024;
/// Bytes of an error answer that are read; the rest is somebody's web page.
const MAX_ERROR_BYTES: usize = 256 * 1024;

/// A stream whose first events are here: handing them over is the commit point.
pub(super) struct Opened {
    /// The first events.
    pub first: Bytes,
    /// Where the others come from.
    pub body: AnswerBody,
    /// Understands them.
    pub decoder: Box<dyn Decoder>,
    /// What went wrong right behind the first events.
    pub failed: Option<Failure>,
    /// What it was asked with, so that no failure repeats it to the caller.
    pub keyed: Option<Arc<Keyed>>,
    /// Silence after which the stream counts as dead.
    pub idle: Duration,
    /// When the attempt must be over.
    pub deadline: Instant,
}

impl Opened {
    /// A stream made out of a whole answer: everything is there.
    fn all_at_once(replayed: WholeAnswer, deployment: &Deployment, deadline: Instant) -> Self {
        Self {
            first: replayed.body,
            body: AnswerBody::Builtin(None),
            decoder: Box::new(Complete {
                usage: replayed.usage,
                generated: replayed.generated,
            }),
            failed: None,
            keyed: None,
            idle: deployment.timeouts.idle,
            deadline,
        }
    }
}

/// The decoder of a stream that is over.
struct Complete {
    usage: Option<TokenUsage>,
    generated: TextTally,
}

impl Decoder for Complete {
    fn feed(&mut self, _bytes: Bytes, _out: &mut Relayed) -> Result<(), Failure> {
        Ok(())
    }

    fn end(&mut self, _out: &mut Relayed) -> Result<(), Failure> {
        Ok(())
    }

    fn is_complete(&self) -> bool {
        true
    }

    fn usage(&self) -> Option<TokenUsage> {
        self.usage
    }

    fn generated(&self) -> TextTally {
        self.generated
    }
}

impl Pipeline {
    /// Asks a deployment for a whole answer. `lenient` says whether there is a model to ask where a filter withholds it.
    pub(super) async fn attempt_whole(
        &self,
        request: &Request,
        deployment: &Deployment,
        endpoint: &Endpoint,
        lenient: bool,
        meter: &mut Meter,
    ) -> Result<Bytes, Failure> {
        let until = Deadline::after(deployment.timeouts.total);
        let answered = {
            let work = pin!(async {
                let exchange = self.encode(request, deployment, endpoint, meter).await?;
                let answers = pin!(self.ask_all(request, exchange.calls, endpoint, until, meter)).await;
                match answers {
                    Ok(answers) => exchange.reader.whole(answers),
                    Err(incomplete) => Err(incomplete.charged(exchange.reader, meter)),
                }
            });
            timeout_at(until.at, work).await
        };
        let answer = answered.unwrap_or_else(|_| Err(until.missed()))?;
        if lenient && answer.withheld {
            return Err(withheld(answer.usage, answer.generated, meter));
        }
        meter.answer_says(&answer.body);
        meter.answered(answer.usage, answer.generated);
        Ok(answer.body)
    }

    /// Asks a deployment for a stream and waits for its first event, or, if there is a `lenient` model to ask where a filter
    /// withholds the answer, for the first one that says something.
    pub(super) async fn attempt_stream(
        &self,
        request: &Request,
        deployment: &Deployment,
        endpoint: &Endpoint,
        lenient: bool,
        meter: &mut Meter,
    ) -> Result<Opened, Failure> {
        let until = Deadline::after(deployment.timeouts.total);
        let patience = Deadline::after(deployment.timeouts.first_token.min(deployment.timeouts.total));
        let encoded = {
            let encode = pin!(self.encode(request, deployment, endpoint, meter));
            timeout_at(patience.at, encode).await
        };
        let mut exchange = encoded.unwrap_or_else(|_| Err(patience.missed()))?;
        let form = exchange.calls.first().map_or(AnswerForm::Whole, |call| call.answer);
        if form == AnswerForm::Whole {
            // Its first event is its last one: it has all the time that a whole answer has.
            let answers = {
                let asked = pin!(self.ask_all(request, exchange.calls, endpoint, until, meter));
                timeout_at(until.at, asked).await
            };
            let replayed = match answers {
                Ok(Ok(answers)) => exchange.reader.replay(answers)?,
                Ok(Err(incomplete)) => return Err(incomplete.charged(exchange.reader, meter)),
                Err(_) => return Err(until.missed()),
            };
            if lenient && replayed.withheld {
                return Err(withheld(replayed.usage, replayed.generated, meter));
            }
            return Ok(Opened::all_at_once(replayed, deployment, until.at));
        }
        let work = pin!(async {
            let Some(call) = exchange.calls.pop() else {
                return Err(Failure::new(ErrorClass::Internal, "was not asked anything"));
            };
            let answer = pin!(self.ask(request, call, endpoint, meter)).await?;
            if !answer.is(form) {
                return Err(not_a_stream(exchange.reader, answer, &self.limits).await);
            }
            let mut body = answer.body;
            let mut decoder = exchange.reader.decoder(self.limits.stream);
            let mut out = Relayed::default();
            loop {
                let step = match body.next().await {
                    Some(Ok(bytes)) => decoder.feed(bytes, &mut out),
                    Some(Err(failure)) => Err(failure),
                    None => match decoder.end(&mut out) {
                        Ok(()) if !out.bytes.is_empty() => Ok(()),
                        Ok(()) => Err(Failure::new(ErrorClass::Malformed, "ended its stream without an event")),
                        Err(failure) => Err(failure),
                    },
                };
                if lenient && !decoder.has_said() && out.bytes.len() <= MAX_UNSAID_BYTES {
                    if !decoder.is_complete() {
                        step?;
                        continue;
                    }
                    if decoder.is_withheld() {
                        return Err(withheld(decoder.usage(), decoder.generated(), meter));
                    }
                }
                if !out.bytes.is_empty() {
                    let first = out.bytes.split().freeze();
                    let idle = deployment.timeouts.idle;
                    return Ok(Opened {
                        first,
                        body,
                        decoder,
                        failed: step.err(),
                        keyed: None,
                        idle,
                        deadline: until.at,
                    });
                }
                step?;
            }
        });
        timeout_at(patience.at, work)
            .await
            .unwrap_or_else(|_| Err(patience.missed()))
    }

    /// The request in the provider's language. What the provider cannot express is dropped or refused, by the policy.
    async fn encode(
        &self,
        request: &Request,
        deployment: &Deployment,
        endpoint: &Endpoint,
        meter: &mut Meter,
    ) -> Result<Exchange, Failure> {
        let mut media = meter.take_media();
        let mut encoded = endpoint.adapter.encode(request, &target(deployment, &media));
        let mut fetched = Ok(());
        if let Err(Unencodable::NeedsMedia(wanted)) = encoded {
            fetched = self.fetch(wanted, &mut media).await;
            encoded = endpoint.adapter.encode(request, &target(deployment, &media));
        }
        meter.keep_media(media);
        fetched?;
        let exchange = encoded.map_err(|fault| match fault {
            Unencodable::Refused(fault) => unsupported(fault.field, fault.problem),
            Unencodable::NeedsMedia(_) => Failure::new(ErrorClass::Internal, "needs what was fetched for it"),
        })?;
        let policy = self.parameters_of(meter.gate());
        if let Some(name) = exchange.dropped.names().first()
            && policy == ParameterPolicy::Reject
        {
            let problem = format!(
                "cannot be expressed at {}, and the policy is to refuse that",
                endpoint.id
            );
            return Err(unsupported(Some(name.clone()), problem));
        }
        meter.dropped(&exchange.dropped, policy != ParameterPolicy::Drop);
        Ok(exchange)
    }

    /// Makes every call of an exchange, a few at a time, and reads the answers whole and in order. The first one that fails
    /// breaks the others off; what came by then is given with the failure, since it was paid for.
    async fn ask_all(
        &self,
        request: &Request,
        calls: SmallVec<[WireRequest; 1]>,
        endpoint: &Endpoint,
        until: Deadline,
        meter: &mut Meter,
    ) -> Result<Vec<WireAnswer>, Incomplete> {
        let max_bytes = self.limits.max_answer_bytes;
        let whole = |answer: Answer| async move {
            let body = answer.body.whole(max_bytes).await?;
            Ok(WireAnswer {
                headers: answer.headers,
                body,
            })
        };
        if calls.len() == 1 {
            let call = calls.into_iter().next().expect("there is one");
            let answer = pin!(self.ask(request, call, endpoint, meter)).await?;
            return Ok(vec![whole(answer).await?]);
        }
        let made = calls.len();
        let (renewed, begun) = (AtomicBool::new(false), AtomicUsize::new(0));
        let (sent, trace) = (meter.sent_mark(), meter.propagated());
        let mut came: Vec<Option<WireAnswer>> = Vec::new();
        came.resize_with(made, || None);
        let (mut ended, mut last, mut failure, mut nothing_left) = (0, None, None, None);
        {
            let answers = futures_util::stream::iter(calls.into_iter().enumerate()).map(|(place, call)| {
                let (renewed, sent, trace) = (&renewed, sent.clone(), &trace);
                begun.fetch_add(1, Ordering::Relaxed);
                async move {
                    let (answer, head) = self.send(call, endpoint, renewed, sent, trace).await?;
                    whole(answer).await.map(|answer| (place, answer, head))
                }
            });
            let mut answers = pin!(answers.buffer_unordered(CALLS_AT_ONCE));
            while let Some(answer) = timeout_at(until.at, answers.next())
                .await
                .unwrap_or_else(|_| Some(Err(until.missed())))
            {
                match answer {
                    Ok((place, answer, head)) => {
                        last = Some(head);
                        nothing_left = nothing_left.max(used_up_for(&answer.headers));
                        came[place] = Some(answer);
                        ended += 1;
                    }
                    Err(failed) => {
                        // Whoever let us wait in vain may have worked.
                        ended += usize::from(failed.class != ErrorClass::Timeout);
                        failure = Some(failed);
                        break;
                    }
                }
            }
        }
        if renewed.load(Ordering::Relaxed) {
            meter.credential_renewed();
        }
        meter.used_up(nothing_left);
        // All are of one provider; one id must do for its support.
        if let Some(Head { status, request_id }) = last {
            let failed = failure.as_ref().and_then(|failure: &Failure| failure.status);
            meter.head(failed.unwrap_or(status), request_id.as_deref());
        }
        match failure {
            None => Ok(came.into_iter().flatten().collect()),
            Some(failure) => Err(Incomplete {
                failure,
                came,
                broken_off: begun.load(Ordering::Relaxed).saturating_sub(ended),
                shares: match meter.operation() {
                    Operation::Embedding => made,
                    // A choice asks all of its prompt, and a prompt is one of several.
                    Operation::Chat | Operation::Completion => {
                        request.conversation().map_or(1, |said| said.further_prompts.len() + 1)
                    }
                },
            }),
        }
    }

    /// Makes one call.
    async fn ask(
        &self,
        request: &Request,
        call: WireRequest,
        endpoint: &Endpoint,
        meter: &mut Meter,
    ) -> Result<Answer, Failure> {
        let form = call.answer;
        if let Some(body) = endpoint.adapter.builtin(request) {
            return Ok(Answer::builtin(body, form));
        }
        let answer = self
            .upstream
            .send(endpoint, call, meter.sent_mark(), &meter.propagated())
            .await?;
        meter.head(answer.status.as_u16(), endpoint.adapter.request_id(&answer.headers));
        meter.used_up(used_up_for(&answer.headers));
        if answer.credential_renewed {
            meter.credential_renewed();
        }
        understood(answer, endpoint).await
    }

    /// Makes one of several calls, which share one place in the record.
    async fn send(
        &self,
        call: WireRequest,
        endpoint: &Endpoint,
        renewed: &AtomicBool,
        sent: SentMark,
        trace: &Propagated,
    ) -> Result<(Answer, Head), Failure> {
        let answer = self.upstream.send(endpoint, call, sent, trace).await?;
        renewed.fetch_or(answer.credential_renewed, Ordering::Relaxed);
        let head = Head {
            status: answer.status.as_u16(),
            request_id: endpoint.adapter.request_id(&answer.headers).map(ToOwned::to_owned),
        };
        understood(answer, endpoint).await.map(|answer| (answer, head))
    }
}

/// The deployment as its adapter sees it.
pub(super) fn target<'t>(deployment: &'t Deployment, media: &'t MediaLibrary) -> Target<'t> {
    Target {
        wire_name: &deployment.wire_name,
        reasoning: deployment.capabilities.reasoning.unwrap_or(false),
        only_chats: deployment.mode == Mode::Chat,
        max_output_tokens: deployment.max_output_tokens,
        traits: &deployment.traits,
        media,
    }
}

/// The failure of an answer that a filter withheld, where another model may be more lenient. The provider charges for it.
fn withheld(usage: Option<TokenUsage>, generated: TextTally, meter: &mut Meter) -> Failure {
    meter.answered_partly(Partial {
        usage,
        generated,
        complete: true,
    });
    Failure::new(
        ErrorClass::ContentFilter,
        "withheld its answer because of its content policy",
    )
}

/// When something must be over, and how long it had.
#[derive(Clone, Copy)]
struct Deadline {
    at: Instant,
    after: Duration,
}

impl Deadline {
    fn after(after: Duration) -> Self {
        Self {
            at: Instant::now() + after,
            after,
        }
    }

    fn missed(self) -> Failure {
        too_slow(self.after)
    }
}

/// Calls of one exchange of which one failed.
struct Incomplete {
    failure: Failure,
    /// The answers that came before, by the places of their calls.
    came: Vec<Option<WireAnswer>>,
    /// Calls that were under way and got no answer.
    broken_off: usize,
    /// In how many parts the prompt was asked.
    shares: usize,
}

impl From<Failure> for Incomplete {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            came: Vec::new(),
            broken_off: 0,
            shares: 1,
        }
    }
}

impl Incomplete {
    /// The failure. What was answered before it is charged by what it says, and what was broken off by its prompt.
    fn charged(self, reader: Box<dyn Reader>, meter: &mut Meter) -> Failure {
        if self.came.iter().any(Option::is_some) {
            let (usage, generated) = reader.partly(self.came);
            let prompt = meter.prompt_tokens() * u64::try_from(self.broken_off).unwrap_or(u64::MAX);
            let prompt = prompt / u64::try_from(self.shares).unwrap_or(1).max(1);
            // Where the provider says what it was, it is not for us to count.
            let generated = if usage.is_some() {
                TextTally::default()
            } else {
                generated
            };
            let usage = usage.map(|usage| TokenUsage {
                input: usage.input.saturating_add(prompt),
                ..usage
            });
            meter.answered_partly(Partial {
                usage,
                generated,
                complete: false,
            });
        }
        self.failure
    }
}

/// What the record keeps of an answer's head.
struct Head {
    status: u16,
    request_id: Option<String>,
}

/// Reads an answer of any status but 200 as the failure it is.
pub(super) async fn understood(answer: Answer, endpoint: &Endpoint) -> Result<Answer, Failure> {
    answer.check_encoding()?;
    if answer.status.as_u16() == 200 {
        return Ok(answer);
    }
    let body = answer.body.whole(MAX_ERROR_BYTES).await.unwrap_or_default();
    Err(endpoint.adapter.failure(answer.status, &answer.headers, &body))
}

/// The provider cannot express a field. Its name may be the caller's own text, so only so much of it is repeated.
fn unsupported(field: Option<String>, problem: impl Into<String>) -> Failure {
    let field = field.map(|name| name.chars().take(MAX_FIELD_CHARS).collect::<String>());
    let problem = problem.into();
    let message = match &field {
        Some(field) => format!("{field} {problem}"),
        None => problem,
    };
    let mut failure = Failure::new(ErrorClass::Unsupported, message);
    failure.param = field;
    failure
}

/// A whole answer where a stream was asked for: an error in disguise, or a provider that does not stream.
async fn not_a_stream(reader: Box<dyn Reader>, answer: Answer, limits: &PipelineLimits) -> Failure {
    let headers = answer.headers;
    let Ok(body) = answer.body.whole(limits.max_answer_bytes).await else {
        return Failure::new(
            ErrorClass::Malformed,
            "answered a request for a stream with something else",
        );
    };
    match reader.whole(vec![WireAnswer { headers, body }]) {
        Err(failure) => failure,
        Ok(_) => Failure::new(
            ErrorClass::Malformed,
            "answered a request for a stream with a whole answer",
        ),
    }
}

pub(super) fn too_slow(limit: Duration) -> Failure {
    Failure::new(
        ErrorClass::Timeout,
        format!("did not answer within {} s", limit.as_secs_f64()),
    )
}
