//! From another provider's language to the caller's dialect: what every adapter that translates has in common.
//!
//! Such an adapter brings a [`Translator`], which turns whole answers and streams into the same events. The rest is done
//! here: rendering, counting what is relayed, keeping the usage, folding a whole answer, and making a stream out of one.

use bytes::{Bytes, BytesMut};

use super::adapter::{Decoder, Failure, Reader, Relayed, StreamLimits, WholeAnswer, WireAnswer};
use crate::chat::estimate::TextTally;
use crate::chat::event::{Delta, Event, FinishReason};
use crate::chat::render::{self, Render, TooMuch};
use crate::chat::request::Request;
use crate::domain::call::ErrorClass;
use crate::domain::usage::TokenUsage;

/// Calls of tools in one choice; no model makes a hundred.
pub(super) const MAX_CALLS: u32 = 1_000;

/// Turns a provider's answers to one request into events.
pub trait Translator: Send {
    /// The events of whole answers, one for each call, in the order of the calls.
    ///
    /// # Errors
    /// Why they are not an answer, in spite of their status.
    fn whole(&self, answers: Vec<WireAnswer>) -> Result<Vec<Event>, Failure>;

    /// Reads the events of a stream.
    fn stream(&self, limits: StreamLimits) -> Box<dyn EventReader>;
}

/// Reads events out of the bytes of a stream, wherever they were cut.
pub trait EventReader: Send {
    /// Takes the next bytes and appends the events they complete.
    ///
    /// # Errors
    /// The provider reported a failure or made no sense. What came before it is in `events`. Nothing may be fed afterwards.
    fn feed(&mut self, bytes: Bytes, events: &mut Vec<Event>) -> Result<(), Failure>;

    /// The provider closed the stream properly.
    ///
    /// # Errors
    /// The answer was not complete.
    fn end(&mut self, events: &mut Vec<Event>) -> Result<(), Failure>;

    /// Whether the answer is complete, so that nothing more has to be waited for.
    fn is_complete(&self) -> bool;
}

/// Understands the answers to a request that was translated.
pub struct Translated<T> {
    translator: T,
    renderer: Box<dyn Render>,
}

impl<T: Translator> Translated<T> {
    /// The reader of the answers to `request`.
    pub fn new(request: &Request, translator: T) -> Self {
        Self {
            translator,
            renderer: render::renderer(request),
        }
    }
}

impl<T: Translator + 'static> Reader for Translated<T> {
    fn whole(mut self: Box<Self>, answers: Vec<WireAnswer>) -> Result<WholeAnswer, Failure> {
        let events = self.translator.whole(answers)?;
        let tally = Tally::of(&events)?;
        let body = self.renderer.whole(events, tally.usage.as_ref());
        Ok(WholeAnswer {
            body,
            usage: tally.usage,
            generated: tally.generated,
            withheld: tally.withheld(),
        })
    }

    #[cfg(test)]
    fn translator(&self) -> Option<&dyn Translator> {
        Some(&self.translator)
    }

    fn decoder(self: Box<Self>, limits: StreamLimits) -> Box<dyn Decoder> {
        Box::new(TranslatedStream {
            reader: self.translator.stream(limits),
            renderer: self.renderer,
            events: Vec::new(),
            tally: Tally::default(),
            start: None,
            ended: false,
        })
    }

    fn replay(mut self: Box<Self>, answers: Vec<WireAnswer>) -> Result<WholeAnswer, Failure> {
        let events = self.translator.whole(answers)?;
        let tally = Tally::of(&events)?;
        let mut stream = BytesMut::new();
        for event in events {
            self.renderer.event(event, &mut stream).map_err(too_much)?;
        }
        self.renderer.end(tally.usage.as_ref(), &mut stream);
        Ok(WholeAnswer {
            body: stream.freeze(),
            usage: tally.usage,
            generated: tally.generated,
            withheld: tally.withheld(),
        })
    }
}

fn too_much(_: TooMuch) -> Failure {
    Failure::new(ErrorClass::Malformed, "answered with more than the gateway holds")
}

/// What went by so far.
#[derive(Default)]
struct Tally {
    usage: Option<TokenUsage>,
    generated: TextTally,
    finished: bool,
    /// Whether something was said, and not only why something was not.
    said: bool,
    filtered: bool,
}

impl Tally {
    fn of(events: &[Event]) -> Result<Self, Failure> {
        let mut tally = Self::default();
        for event in events {
            tally.see(event)?;
        }
        if !tally.finished {
            return Err(Failure::new(ErrorClass::Malformed, "answered 200 without an answer"));
        }
        Ok(tally)
    }

    fn withheld(&self) -> bool {
        self.filtered && !self.said
    }

    fn see(&mut self, event: &Event) -> Result<(), Failure> {
        match event {
            Event::Start { .. } => {}
            Event::Finish { reason, .. } => {
                self.finished = true;
                self.filtered |= *reason == FinishReason::ContentFilter;
            }
            Event::Usage(usage) => self.usage = Some(*usage),
            Event::Delta { delta, .. } => {
                self.said |= !matches!(delta, Delta::Refusal(_));
                self.count(delta)?;
            }
        }
        Ok(())
    }

    fn count(&mut self, delta: &Delta) -> Result<(), Failure> {
        match delta {
            Delta::Text(text) | Delta::Thought(text) | Delta::Refusal(text) => self.generated.add(text),
            Delta::Arguments { fragment, .. } => self.generated.add(fragment),
            Delta::Call { index, .. } if *index >= MAX_CALLS => {
                let problem = "called more tools than an answer can";
                return Err(Failure::new(ErrorClass::Malformed, problem));
            }
            Delta::Call { name, .. } => self.generated.add(name),
            Delta::TextSignature(_)
            | Delta::ThoughtEnd { .. }
            | Delta::RedactedThought { .. }
            | Delta::CallEnd { .. }
            | Delta::Annotation(_)
            | Delta::Logprobs(_)
            | Delta::Image { .. } => {}
        }
        Ok(())
    }
}

/// A stream on its way from one language to the other.
struct TranslatedStream {
    reader: Box<dyn EventReader>,
    renderer: Box<dyn Render>,
    events: Vec<Event>,
    tally: Tally,
    /// The start, until something follows it: handing it over commits to this provider, and some begin before they find
    /// out that they are overloaded.
    start: Option<Event>,
    /// Whether the proper end was written.
    ended: bool,
}

impl TranslatedStream {
    fn render(&mut self, out: &mut Relayed) -> Result<(), Failure> {
        for event in self.events.drain(..) {
            self.tally.see(&event)?;
            match event {
                Event::Start { .. } => self.start = Some(event),
                Event::Usage(_) => {}
                Event::Delta { .. } | Event::Finish { .. } => {
                    if let Some(start) = self.start.take() {
                        self.renderer.event(start, &mut out.bytes).map_err(too_much)?;
                    }
                    self.renderer.event(event, &mut out.bytes).map_err(too_much)?;
                }
            }
        }
        if self.reader.is_complete() && !self.ended {
            self.ended = true;
            self.renderer.end(self.tally.usage.as_ref(), &mut out.bytes);
        }
        Ok(())
    }
}

impl Decoder for TranslatedStream {
    fn feed(&mut self, bytes: Bytes, out: &mut Relayed) -> Result<(), Failure> {
        if self.ended {
            return Ok(());
        }
        let result = self.reader.feed(bytes, &mut self.events);
        self.render(out)?;
        result
    }

    fn end(&mut self, out: &mut Relayed) -> Result<(), Failure> {
        if self.ended {
            return Ok(());
        }
        let result = self.reader.end(&mut self.events);
        self.render(out)?;
        result?;
        if self.ended {
            return Ok(());
        }
        Err(Failure::new(
            ErrorClass::Cut,
            "ended its stream before the answer was complete",
        ))
    }

    fn is_complete(&self) -> bool {
        self.ended
    }

    fn usage(&self) -> Option<TokenUsage> {
        self.tally.usage
    }

    fn generated(&self) -> TextTally {
        self.tally.generated
    }

    fn has_said(&self) -> bool {
        self.tally.said
    }

    fn is_withheld(&self) -> bool {
        self.tally.withheld()
    }
}
