//! Fixtures, and the laws they are held to.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use super::fold;
use super::grammar::Grammar;
use crate::chat::event::Event;
use crate::chat::request::{BodyLimits, Request};
use crate::domain::call::{Dialect, ErrorClass, Operation};
use crate::domain::model::ModelTraits;
use crate::providers::adapter::{
    Adapter, AnswerForm, Exchange, Failure, MediaLibrary, Relayed, StreamLimits, Target, Unencodable, WholeAnswer,
    WireAnswer,
};
use crate::providers::testing::{Outcome, STREAM_LIMITS, cut, outcome};

const DIALECTS: [Dialect; 2] = [Dialect::OpenAi, Dialect::Anthropic];
/// A field no provider has.
const UNKNOWN: &str = "zz_unknown";
/// Members whose fields are the model's or the caller's own words: an unknown one there is no field but content.
const FREE_FORM: [&str; 6] = ["input", "args", "arguments", "parameters", "schema", "logprobs"];
/// Prefixes of a stream that are tried at most, besides those that end at a line.
const MAX_PREFIXES: usize = 150;
/// The largest event in the tests of memory.
const SMALL: StreamLimits = StreamLimits { max_event_bytes: 4096 };
/// What an answer may grow by on its way: a provider's shortest deltas are a tenth of the caller's envelopes.
const GROWTH: usize = 64;
/// What is written whatever comes.
const FRAME_BYTES: usize = 16 * 1024;

/// A deployment to try things on.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its name on the wire.
    pub wire_name: &'static str,
    /// What it accepts.
    pub traits: ModelTraits,
    /// Whether it is known to reason.
    pub reasoning: bool,
    /// Tokens an answer may have.
    pub max_output_tokens: Option<u64>,
}

impl Model {
    /// A deployment with the given traits, called `prod` on the wire.
    pub fn of(traits: ModelTraits) -> Self {
        Self {
            wire_name: "prod",
            traits,
            reasoning: false,
            max_output_tokens: None,
        }
    }

    pub(super) fn target<'m>(&'m self, media: &'m MediaLibrary) -> Target<'m> {
        Target {
            wire_name: self.wire_name,
            reasoning: self.reasoning,
            only_chats: false,
            max_output_tokens: self.max_output_tokens,
            traits: &self.traits,
            media,
        }
    }
}

/// An adapter and what is known about it.
pub struct Kit {
    pub(super) adapter: Box<dyn Adapter>,
    pub(super) models: Vec<Model>,
    folder: PathBuf,
    /// The provider's module and the name of this use of the kit.
    provider: String,
    name: String,
    ends_by_closing: bool,
}

/// An answer of the provider.
struct Fixture {
    name: String,
    form: AnswerForm,
    bytes: Vec<u8>,
    openai: Option<Value>,
    anthropic: Option<Value>,
}

impl Kit {
    /// A kit for an adapter, its fixtures, and the module of its tests.
    pub fn new(adapter: Box<dyn Adapter>, folder: &str, module: &str) -> Self {
        let mut segments = module.split("::").skip_while(|segment| *segment != "providers").skip(1);
        Self {
            adapter,
            models: vec![Model::of(ModelTraits::default())],
            folder: Path::new(env!("CARGO_MANIFEST_DIR")).join("src/providers").join(folder),
            provider: segments
                .next()
                .expect("the adapter's module is below providers")
                .to_owned(),
            name: module.rsplit("::").next().unwrap_or_default().to_owned(),
            ends_by_closing: false,
        }
    }

    pub fn models(mut self, models: Vec<Model>) -> Self {
        self.models = models;
        self
    }

    pub fn ends_by_closing(mut self, closes: bool) -> Self {
        self.ends_by_closing = closes;
        self
    }

    pub fn fixtures_mean_what_the_snapshots_say(&self) {
        for fixture in self.fixtures() {
            for (dialect, request) in fixture.requests() {
                self.snapshot(
                    &format!("{}_{}", fixture.name, dialect.as_str()),
                    &self.rendered(&fixture, &request),
                );
            }
            if let Some(events) = self.events(&fixture, &[&fixture.bytes], STREAM_LIMITS) {
                self.snapshot(&format!("{}_events", fixture.name), &listed(&events));
            }
        }
    }

    pub fn any_cut_of_the_bytes_gives_the_same(&self) {
        for (fixture, request) in self.streams() {
            let expected = self.stream(&request, [&fixture.bytes[..]]);
            let singly: Vec<&[u8]> = fixture.bytes.chunks(1).collect();
            assert_eq!(self.stream(&request, singly), expected, "{} byte by byte", fixture.name);
            check(32, prop::collection::vec(any::<usize>(), 0..12), |places| {
                let found = self.stream(&request, cut(&fixture.bytes, &places));
                prop_assert_eq!(&found, &expected, "{}", fixture.name);
                Ok(())
            });
        }
    }

    pub fn a_stream_that_is_cut_before_its_end_is_a_failure(&self) {
        for (fixture, request) in self.streams() {
            let whole = self.stream(&request, [&fixture.bytes[..]]);
            if whole.failed.is_some() {
                continue;
            }
            let empty = self.stream(&request, []);
            assert!(empty.failed.is_some(), "{}: nothing counts as an answer", fixture.name);
            for end in prefixes(&fixture) {
                let found = self.stream(&request, [&fixture.bytes[..end]]);
                match &found.failed {
                    Some((class, _)) => assert_eq!(*class, ErrorClass::Cut, "{} cut at {end}", fixture.name),
                    None if self.ends_by_closing => assert!(
                        found.relayed.contains("_reason\":\""),
                        "{} cut at {end}, before anything said that it ends, counts as complete",
                        fixture.name
                    ),
                    // What comes behind the end may be missing, but nothing else.
                    None => assert_eq!(found, whole, "{} cut at {end} counts as complete", fixture.name),
                }
            }
        }
    }

    pub fn whole_answers_and_streams_say_the_same(&self) {
        let fixtures = self.fixtures();
        let mut compared = 0;
        for fixture in fixtures.iter().filter(|fixture| fixture.form == AnswerForm::Whole) {
            let stem = fixture.name.split('.').next().unwrap_or_default();
            let twin = |other: &&Fixture| other.form != AnswerForm::Whole && other.name.split('.').next() == Some(stem);
            for (dialect, request) in fixture.requests() {
                let Ok(answer) = self.whole(&request, &fixture.bytes) else {
                    continue;
                };
                if request.operation == Operation::Embedding {
                    continue;
                }
                let said = fold::whole(dialect, &answer.body);
                if let Some(replayed) = self.replayed(fixture, dialect) {
                    let replayed = String::from_utf8(replayed.body.to_vec()).unwrap();
                    assert_eq!(fold::stream(dialect, &replayed), said, "{} replayed", fixture.name);
                    compared += 1;
                }
                for twin in fixtures.iter().filter(twin) {
                    let Some((_, request)) = twin.requests().into_iter().find(|(other, _)| *other == dialect) else {
                        continue;
                    };
                    let streamed = self.stream(&request, [&twin.bytes[..]]);
                    assert_eq!(streamed.failed, None, "{}", twin.name);
                    assert_eq!(streamed.usage, answer.usage, "usage of {}", twin.name);
                    assert_eq!(fold::stream(dialect, &streamed.relayed), said, "{}", twin.name);
                    compared += 1;
                }
            }
        }
        assert!(
            compared > 0,
            "no whole answer has a stream beside it: {}",
            self.folder.display()
        );
    }

    pub fn events_keep_to_their_grammar(&self) {
        for fixture in self.fixtures() {
            let Some(events) = self.events(&fixture, &[&fixture.bytes], STREAM_LIMITS) else {
                continue;
            };
            obeys(&events, &fixture.name);
            check(64, edits(), |edits| {
                let bytes = edited(&fixture.bytes, &edits);
                if let Some(events) = self.events(&fixture, &[&bytes], STREAM_LIMITS) {
                    obeys(&events, &fixture.name);
                }
                Ok(())
            });
        }
    }

    pub fn unknown_fields_and_events_do_no_harm(&self) {
        for fixture in self.fixtures() {
            let (Some(plain), Some(strange)) = (rewritten(&fixture, false), rewritten(&fixture, true)) else {
                continue;
            };
            for (dialect, request) in fixture.requests() {
                let expected = self.read(&fixture, &request, &plain);
                let found = self.read(&fixture, &request, &strange);
                let place = format!("{} for {}", fixture.name, dialect.as_str());
                assert_eq!(without_unknown(&found), without_unknown(&expected), "{place}");
            }
        }
    }

    pub fn no_bytes_make_it_panic_or_hold_much(&self) {
        for fixture in self.fixtures() {
            for (_, request) in fixture.requests() {
                check(
                    64,
                    (edits(), prop::collection::vec(any::<usize>(), 0..4)),
                    |(edits, places)| {
                        let bytes = edited(&fixture.bytes, &edits);
                        let size = match fixture.form {
                            AnswerForm::Whole => self.whole(&request, &bytes).map_or(0, |answer| answer.body.len()),
                            AnswerForm::EventStream | AnswerForm::AwsEventStream => {
                                self.stream(&request, cut(&bytes, &places)).relayed.len()
                            }
                        };
                        prop_assert!(
                            size <= bytes.len() * GROWTH + FRAME_BYTES,
                            "{} bytes from {}",
                            size,
                            bytes.len()
                        );
                        for status in [400, 401, 403, 404, 413, 429, 500, 503, 529] {
                            let status = StatusCode::from_u16(status).unwrap();
                            let failure = self.adapter.failure(status, &HeaderMap::new(), &bytes);
                            prop_assert!(
                                failure.message.len() <= FRAME_BYTES,
                                "a message of {}",
                                failure.message.len()
                            );
                        }
                        Ok(())
                    },
                );
                if fixture.form != AnswerForm::Whole {
                    self.an_event_without_an_end_is_given_up(&fixture, &request);
                }
            }
        }
    }

    /// Behind whatever came first, an event that never ends is refused once it is larger than the limit.
    fn an_event_without_an_end_is_given_up(&self, fixture: &Fixture, request: &Request) {
        let mut decoder = self.exchange(request).reader.decoder(SMALL);
        let mut out = Relayed::default();
        let chunk = Bytes::from(match fixture.form {
            AnswerForm::EventStream => vec![b'a'; 1000],
            // A message that says it is a gigabyte long; then its bytes.
            AnswerForm::AwsEventStream | AnswerForm::Whole => {
                let mut frame = vec![0x40, 0, 0, 0, 0, 0, 0, 0];
                frame.extend(crc32fast::hash(&frame).to_be_bytes());
                frame.resize(1000, b'a');
                frame
            }
        });
        let fed = (0..64).find(|_| decoder.feed(chunk.clone(), &mut out).is_err());
        let fed = fed.unwrap_or_else(|| panic!("{}: an endless event is swallowed", fixture.name));
        assert!(
            (fed + 1) * chunk.len() <= SMALL.max_event_bytes + 2 * chunk.len(),
            "refused after {fed} chunks"
        );
        assert!(!decoder.is_complete());
    }

    pub(super) fn exchange(&self, request: &Request) -> Exchange {
        let media = MediaLibrary::default();
        self.adapter
            .encode(request, &self.models[0].target(&media))
            .unwrap_or_else(|fault| panic!("{fault:?}"))
    }

    fn whole(&self, request: &Request, body: &[u8]) -> Result<WholeAnswer, Failure> {
        let exchange = self.exchange(request);
        let answers = answers(&exchange, body);
        exchange.reader.whole(answers)
    }

    fn stream<'c>(&self, request: &Request, chunks: impl IntoIterator<Item = &'c [u8]>) -> Outcome {
        outcome(self.exchange(request).reader.decoder(STREAM_LIMITS), chunks)
    }

    /// The stream that a whole answer is made into, for providers that were not asked for one.
    fn replayed(&self, fixture: &Fixture, dialect: Dialect) -> Option<WholeAnswer> {
        let (_, request) = fixture
            .requests_of(true)
            .into_iter()
            .find(|(other, _)| *other == dialect)?;
        let exchange = self.exchange(&request);
        let answers = answers(&exchange, &fixture.bytes);
        exchange.reader.replay(answers).ok()
    }

    /// The events of a fixture; `None` where its bytes are forwarded and no events are made.
    fn events(&self, fixture: &Fixture, chunks: &[&[u8]], limits: StreamLimits) -> Option<Vec<Event>> {
        for (_, request) in fixture.requests() {
            let exchange = self.exchange(&request);
            let Some(translator) = exchange.reader.translator() else {
                continue;
            };
            if fixture.form == AnswerForm::Whole {
                return Some(
                    translator
                        .whole(answers(&exchange, &chunks.concat()))
                        .unwrap_or_default(),
                );
            }
            let mut events = Vec::new();
            let mut reader = translator.stream(limits);
            let fed = chunks
                .iter()
                .try_for_each(|chunk| reader.feed(Bytes::copy_from_slice(chunk), &mut events));
            let _ = fed.and_then(|()| reader.end(&mut events));
            return Some(events);
        }
        None
    }

    fn rendered(&self, fixture: &Fixture, request: &Request) -> String {
        let form = self.exchange(request).calls[0].answer;
        assert_eq!(form, fixture.form, "the form that is expected for {}", fixture.name);
        self.read(fixture, request, &fixture.bytes)
    }

    /// What the caller gets for an answer, and what the gateway knows about it.
    fn read(&self, fixture: &Fixture, request: &Request, bytes: &[u8]) -> String {
        if fixture.form != AnswerForm::Whole {
            return self.stream(request, [bytes]).to_string();
        }
        match self.whole(request, bytes) {
            Ok(answer) => {
                let body: Value = serde_json::from_slice(&answer.body).expect("an answer is JSON");
                let usage = answer.usage.map(|usage| format!("{usage:?}"));
                let usage = usage.as_deref().unwrap_or("no usage");
                format!(
                    "{body:#}\n=== {usage}\n=== counted: {} tokens\n",
                    answer.generated.tokens()
                )
            }
            Err(failure) => format!("=== failed: {}: {}\n", failure.class, failure.message),
        }
    }

    fn snapshot(&self, name: &str, text: &str) {
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(format!("../{}/snapshots", self.provider));
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(format!("{}_{name}", self.name), text));
    }

    fn streams(&self) -> Vec<(Fixture, Request)> {
        let streams = self
            .fixtures()
            .into_iter()
            .filter(|fixture| fixture.form != AnswerForm::Whole);
        streams
            .flat_map(|fixture| {
                let requests = fixture.requests();
                requests.into_iter().map(move |(_, request)| (fixture.again(), request))
            })
            .collect()
    }

    fn fixtures(&self) -> Vec<Fixture> {
        let mut fixtures = self.builtin();
        let mut paths: Vec<PathBuf> = fs::read_dir(&self.folder)
            .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
            .unwrap_or_default();
        paths.sort();
        for path in paths {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .expect("fixtures have plain names");
            let Some((stem, kind)) = name.split_once('.') else {
                continue;
            };
            let (form, bytes) = match kind {
                "json" => (AnswerForm::Whole, fs::read(&path).unwrap()),
                "sse" => (AnswerForm::EventStream, fs::read(&path).unwrap()),
                "eventstream" => (AnswerForm::AwsEventStream, fs::read(&path).unwrap()),
                "frames" => (AnswerForm::AwsEventStream, frames(&fs::read_to_string(&path).unwrap())),
                _ => continue,
            };
            let given = |kind: &str| {
                let text = fs::read(self.folder.join(format!("{stem}.{kind}.json"))).ok()?;
                Some(serde_json::from_slice::<Value>(&text).unwrap_or_else(|fault| panic!("{stem}.{kind}: {fault}")))
            };
            let (mut openai, mut anthropic) = (given("request"), given("messages"));
            if openai.is_none() && anthropic.is_none() {
                openai = Some(json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]}));
                anthropic =
                    Some(json!({"model": "m", "max_tokens": 1024, "messages": [{"role": "user", "content": "hi"}]}));
            }
            fixtures.push(Fixture {
                name: name.to_owned(),
                form,
                bytes,
                openai,
                anthropic,
            });
        }
        assert!(!fixtures.is_empty(), "no fixtures in {}", self.folder.display());
        fixtures
    }

    /// The answers of a model that lives in this process.
    fn builtin(&self) -> Vec<Fixture> {
        let plain = json!({"model": "m", "messages": [{"role": "user", "content": "say this"}]});
        let fixture = |name: &str, form: AnswerForm| {
            let request = request_of(&plain, Dialect::OpenAi, form != AnswerForm::Whole);
            Some(Fixture {
                name: name.to_owned(),
                form,
                bytes: self.adapter.builtin(&request)?.to_vec(),
                openai: Some(plain.clone()),
                anthropic: Some(plain.clone()),
            })
        };
        let answers = [
            fixture("builtin.json", AnswerForm::Whole),
            fixture("builtin.sse", AnswerForm::EventStream),
        ];
        answers.into_iter().flatten().collect()
    }
}

impl Fixture {
    fn again(&self) -> Self {
        Self {
            name: self.name.clone(),
            form: self.form,
            bytes: self.bytes.clone(),
            openai: self.openai.clone(),
            anthropic: self.anthropic.clone(),
        }
    }

    /// The requests this may be the answer to.
    fn requests(&self) -> Vec<(Dialect, Request)> {
        self.requests_of(self.form != AnswerForm::Whole)
    }

    fn requests_of(&self, stream: bool) -> Vec<(Dialect, Request)> {
        DIALECTS
            .into_iter()
            .filter_map(|dialect| {
                let body = match dialect {
                    Dialect::OpenAi => self.openai.as_ref()?,
                    Dialect::Anthropic => self.anthropic.as_ref()?,
                };
                Some((dialect, request_of(body, dialect, stream)))
            })
            .collect()
    }
}

/// A checked request, streamed or not. What it asks for is seen by its fields.
pub(super) fn request_of(body: &Value, dialect: Dialect, stream: bool) -> Request {
    let operation = match (body.get("prompt"), body.get("input")) {
        (Some(_), _) => Operation::Completion,
        (_, Some(_)) => Operation::Embedding,
        _ => Operation::Chat,
    };
    let mut body = body.clone();
    if stream {
        body["stream"] = true.into();
        if dialect == Dialect::OpenAi {
            body["stream_options"] = json!({"include_usage": true});
        }
    }
    let limits = BodyLimits {
        depth: 64,
        messages: 1_000,
        embedding_inputs: 2_048,
    };
    Request::parse(operation, dialect, body.to_string().into(), &limits).unwrap_or_else(|fault| panic!("{fault:?}"))
}

/// The same answer for each call of an exchange.
fn answers(exchange: &Exchange, body: &[u8]) -> Vec<WireAnswer> {
    let answer = |_| WireAnswer {
        headers: HeaderMap::new(),
        body: Bytes::copy_from_slice(body),
    };
    exchange.calls.iter().map(answer).collect()
}

/// Tries a law in so many cases. `PROPTEST_CASES` counts in proportion: ten times its usual 256 is ten times as many.
fn check<S: Strategy>(cases: u32, strategy: S, law: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let usual = Config::default();
    let config = Config {
        cases: (cases * usual.cases).div_ceil(256),
        failure_persistence: None,
        ..usual
    };
    if let Err(fault) = TestRunner::new(config).run(&strategy, law) {
        panic!("{fault}");
    }
}

fn obeys(events: &[Event], name: &str) {
    let mut grammar = Grammar::default();
    for event in events {
        if let Err(problem) = grammar.see(event) {
            panic!("{name}: {problem}\n{}", listed(events));
        }
    }
    if events.iter().any(|event| matches!(event, Event::Finish { .. }))
        && let Err(problem) = grammar.end()
    {
        panic!("{name}: {problem}\n{}", listed(events));
    }
}

fn listed(events: &[Event]) -> String {
    events.iter().map(|event| format!("{event:?}\n")).collect()
}

/// Where a stream is cut: at and around the ends of its lines, and here and there.
fn prefixes(fixture: &Fixture) -> Vec<usize> {
    let bytes = &fixture.bytes;
    let step = (bytes.len() / MAX_PREFIXES).max(1);
    let mut places: Vec<usize> = (1..bytes.len()).step_by(step).collect();
    if fixture.form == AnswerForm::EventStream {
        let ends = memchr::memchr_iter(b'\n', bytes).flat_map(|end| [end, end + 1]);
        places.extend(ends.filter(|&end| end < bytes.len()));
    }
    places.sort_unstable();
    places.dedup();
    places
}

/// A change of some bytes.
#[derive(Clone, Debug)]
enum Edit {
    Set(u8),
    Insert(Vec<u8>),
    Remove(usize),
    Repeat(usize),
}

fn edits() -> impl Strategy<Value = Vec<(usize, Edit)>> {
    let words = prop_oneof![
        Just(&b"\n\n"[..]),
        Just(&b"null"[..]),
        Just(&b"-1"[..]),
        Just(&b"99999999999999999999"[..]),
        Just(&b"1e999"[..]),
        Just(&b"{}"[..]),
        Just(&b"[]"[..]),
        Just(&b"\"\\ud800\""[..]),
        Just(&b"\xff\xfe"[..]),
        Just(&b"data: [DONE]\n\n"[..]),
    ];
    let edit = prop_oneof![
        4 => prop_oneof![any::<u8>(), b'0'..=b'9'].prop_map(Edit::Set),
        2 => words.prop_map(|word| Edit::Insert(word.to_vec())),
        1 => prop::collection::vec(any::<u8>(), 1..40).prop_map(Edit::Insert),
        2 => (1_usize..200).prop_map(Edit::Remove),
        2 => (1_usize..400).prop_map(Edit::Repeat),
    ];
    prop::collection::vec((any::<usize>(), edit), 1..6)
}

fn edited(bytes: &[u8], edits: &[(usize, Edit)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (place, edit) in edits {
        let at = place % (bytes.len() + 1);
        match edit {
            Edit::Set(byte) => {
                if let Some(place) = bytes.get_mut(at) {
                    *place = *byte;
                }
            }
            Edit::Insert(more) => drop(bytes.splice(at..at, more.iter().copied())),
            Edit::Remove(len) => drop(bytes.drain(at..(at + len).min(bytes.len()))),
            Edit::Repeat(len) => {
                let again = bytes[at..(at + len).min(bytes.len())].to_vec();
                bytes.splice(at..at, again);
            }
        }
    }
    bytes
}

/// The fixture with its JSON written anew, and on request with unknown fields in every object and unknown events. `None`
/// where it holds something else than JSON.
fn rewritten(fixture: &Fixture, strange: bool) -> Option<Vec<u8>> {
    let json = |text: &str| {
        let mut value: Value = serde_json::from_str(text).ok()?;
        if strange {
            make_strange(&mut value);
        }
        Some(value.to_string())
    };
    let text = || std::str::from_utf8(&fixture.bytes).ok();
    match fixture.form {
        AnswerForm::Whole => json(text()?).map(String::into_bytes),
        AnswerForm::EventStream => {
            let mut out = String::new();
            for record in text()?
                .replace("\r\n", "\n")
                .split("\n\n")
                .filter(|record| !record.is_empty())
            {
                let field = |name: &str| {
                    record
                        .lines()
                        .filter_map(|line| line.strip_prefix(name))
                        .collect::<Vec<_>>()
                };
                let data = field("data:").join("\n");
                if data.is_empty() {
                    continue;
                }
                let event = field("event:").first().map(|name| name.trim().to_owned());
                if let Some(name) = &event {
                    if strange {
                        out.push_str(&format!("event: {UNKNOWN}\ndata: {{\"type\":\"{UNKNOWN}\"}}\n\n"));
                    }
                    out.push_str(&format!("event: {name}\n"));
                }
                let data = if data.trim() == "[DONE]" {
                    data.trim().to_owned()
                } else {
                    json(&data)?
                };
                out.push_str(&format!("data: {data}\n\n"));
            }
            Some(out.into_bytes())
        }
        AnswerForm::AwsEventStream => {
            let mut out = Vec::new();
            for (headers, payload) in messages(&fixture.bytes) {
                if strange {
                    out.extend(message(&frame_headers(":event-type", UNKNOWN), b"{}"));
                }
                let payload = json(std::str::from_utf8(payload).ok()?)?;
                out.extend(message(headers, payload.as_bytes()));
            }
            Some(out)
        }
    }
}

fn make_strange(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(make_strange),
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                if !FREE_FORM.contains(&name.as_str()) {
                    make_strange(value);
                }
            }
            fields.insert(UNKNOWN.to_owned(), json!({"deep": [1, "x"]}));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A text without the unknown fields and events that survived in it.
fn without_unknown(text: &str) -> String {
    let unknown = format!("\"{UNKNOWN}\":{{\"deep\":[1,\"x\"]}}");
    let compact = |json: &str| match serde_json::from_str::<Value>(json) {
        Ok(value) => value.to_string(),
        Err(_) => json.to_owned(),
    };
    // Whole answers are shown with line breaks.
    let text = match text.split_once("\n===") {
        Some((body, rest)) => format!("{}\n==={rest}", compact(body)),
        None => text.to_owned(),
    };
    let record = format!("data: {{\"type\":\"{UNKNOWN}\"}}\n\n");
    let text = text
        .replace(&format!("event: {UNKNOWN}\n{record}"), "")
        .replace(&record, "");
    text.replace(&format!(",{unknown}"), "").replace(&unknown, "")
}

/// AWS's event stream out of its readable form.
///
/// # Source
/// "Event stream encoding", <https://smithy.io/2.0/aws/amazon-eventstream.html>.
fn frames(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, payload) = line.split_once(' ').unwrap_or((line, ""));
        let headers = match name.strip_prefix('!') {
            Some(exception) => frame_headers(":exception-type", exception),
            None => frame_headers(":event-type", name),
        };
        out.extend(message(&headers, payload.as_bytes()));
    }
    out
}

fn frame_headers(kind: &str, name: &str) -> Vec<u8> {
    let message_type = if kind == ":event-type" { "event" } else { "exception" };
    let mut headers = Vec::new();
    for (name, value) in [
        (kind, name),
        (":content-type", "application/json"),
        (":message-type", message_type),
    ] {
        headers.push(u8::try_from(name.len()).unwrap());
        headers.extend(name.as_bytes());
        // Seven is the type of texts.
        headers.push(7);
        headers.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        headers.extend(value.as_bytes());
    }
    headers
}

fn message(headers: &[u8], payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(16 + headers.len() + payload.len()).unwrap();
    let mut out = len.to_be_bytes().to_vec();
    out.extend(u32::try_from(headers.len()).unwrap().to_be_bytes());
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out.extend(headers);
    out.extend(payload);
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out
}

/// The headers and payloads of a stream whose frames are sound.
fn messages(mut bytes: &[u8]) -> Vec<(&[u8], &[u8])> {
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap()) as usize;
    let mut found = Vec::new();
    while bytes.len() >= 16 {
        let (len, headers) = (number(&bytes[..4]), number(&bytes[4..8]));
        found.push((&bytes[12..12 + headers], &bytes[12 + headers..len - 4]));
        bytes = &bytes[len..];
    }
    found
}

/// Why a request is not encoded, by the field at fault.
pub(super) fn refused_field(fault: &Unencodable) -> Option<&str> {
    match fault {
        Unencodable::Refused(fault) => fault.field.as_deref(),
        Unencodable::NeedsMedia(_) => None,
    }
}
