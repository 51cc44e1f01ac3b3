//! What is fuzzed: every reader of bytes that come from outside, through its public way in.
//!
//! A target must neither panic nor take long, and what it makes of its input may be larger only by a factor. The same
//! functions are run by libFuzzer (`just fuzz`) and, for a moment each, by the everyday suite (`tests/suite/fuzz.rs`).

use std::path::PathBuf;
use std::sync::LazyLock;

use bonito::chat::data_url::{DataUrl, is_data_url};
use bonito::chat::media;
use bonito::chat::request::{BodyLimits, Request};
use bonito::cli::known_dialects;
use bonito::config::{self, CredentialPath, Fields, Sources, Stored};
use bonito::domain::address::AddressRules;
use bonito::domain::api_key::ApiKey;
use bonito::domain::call::{Dialect, Operation};
use bonito::domain::model::ModelTraits;
use bonito::domain::scope::{self, Scope};
use bonito::providers::adapter::{AnswerForm, MediaLibrary, Relayed, StreamLimits, Target as Deployment, WireAnswer};
use bonito::providers::matrix::{self, Kind};
use bonito::providers::retry_after::retry_after;
use bonito::providers::sse::Records;
use bonito::secrets::source::vault;
use bonito::upstream::fetcher::{Target as FetchTarget, TargetHost};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::json;

/// Takes any bytes.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also that of its folder in the corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("chat_openai", |data| body(Operation::Chat, Dialect::OpenAi, data)),
    ("chat_anthropic", |data| body(Operation::Chat, Dialect::Anthropic, data)),
    ("completion", |data| body(Operation::Completion, Dialect::OpenAi, data)),
    ("embedding", |data| body(Operation::Embedding, Dialect::OpenAi, data)),
    ("answer_openai", |data| answer("openai", data)),
    ("answer_azure", |data| answer("azure", data)),
    ("answer_anthropic", |data| answer("anthropic", data)),
    ("answer_aws", |data| answer("aws", data)),
    ("answer_gcp", |data| answer("gcp", data)),
    ("answer_gemini", |data| answer("gemini", data)),
    ("answer_compatible", |data| answer("compatible", data)),
    ("failure", failure),
    ("sse", sse),
    ("data_url", data_url),
    ("retry_after", waiting),
    ("scope", scopes),
    ("configuration", configuration),
    ("credential", credential),
    ("fetch_url", fetch_url),
    ("api_key", api_key),
];

const LIMITS: BodyLimits = BodyLimits {
    depth: 64,
    messages: 1_000,
    embedding_inputs: 2_048,
};
const STREAM_LIMITS: StreamLimits = StreamLimits {
    max_event_bytes: 16 * 1024,
};
/// What anything may grow by: the shortest deltas of a provider are a hundredth of the caller's envelopes, and base64 and
/// escapes make text longer.
const GROWTH: usize = 100;
/// What is written whatever comes.
const FRAME_BYTES: usize = 64 * 1024;

static KINDS: LazyLock<Vec<Kind>> = LazyLock::new(matrix::kinds);
static TRAITS: LazyLock<ModelTraits> = LazyLock::new(ModelTraits::default);
static MEDIA: LazyLock<MediaLibrary> = LazyLock::new(MediaLibrary::default);

fn deployment() -> Deployment<'static> {
    Deployment {
        wire_name: "prod",
        reasoning: false,
        only_chats: false,
        max_output_tokens: None,
        traits: &TRAITS,
        media: &MEDIA,
    }
}

fn bounded(size: usize, data: &[u8], what: &str) {
    assert!(
        size <= data.len() * GROWTH + FRAME_BYTES,
        "{what}: {size} bytes of {}",
        data.len()
    );
}

/// A body is read, understood, and written in the words of every provider.
fn body(operation: Operation, dialect: Dialect, data: &[u8]) {
    let Ok(request) = Request::parse(operation, dialect, Bytes::copy_from_slice(data), &LIMITS) else {
        return;
    };
    assert_eq!(&request.body[..], data);
    assert!(request.model_span.end <= data.len());
    if let Ok(conversation) = request.conversation() {
        bounded(format!("{conversation:?}").len(), data, "a conversation");
    }
    for kind in KINDS.iter() {
        let Ok(exchange) = kind.adapter.encode(&request, &deployment()) else {
            continue;
        };
        let sent: usize = exchange.calls.iter().map(|call| call.payload.len()).sum();
        bounded(sent, data, kind.id);
        let dropped: usize = exchange.dropped.names().iter().map(String::len).sum();
        bounded(dropped, data, kind.id);
    }
}

/// The first byte says which request was asked and how its answer is cut; the rest is the answer.
fn answer(kind: &str, data: &[u8]) {
    let Some((&flags, data)) = data.split_first() else {
        return;
    };
    let flags = flags.wrapping_sub(b'0');
    let (stream, anthropic, cut) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
    let dialect = if anthropic { Dialect::Anthropic } else { Dialect::OpenAi };
    let adapter = &KINDS
        .iter()
        .find(|other| other.id == kind)
        .expect("the kind is known")
        .adapter;
    let body =
        json!({"model": "m", "max_tokens": 64, "stream": stream, "messages": [{"role": "user", "content": "hi"}]});
    let request = Request::parse(Operation::Chat, dialect, body.to_string().into(), &LIMITS).expect("it is valid");
    let Ok(exchange) = adapter.encode(&request, &deployment()) else {
        return;
    };
    if exchange.calls[0].answer == AnswerForm::Whole {
        let answers = exchange.calls.iter().map(|_| WireAnswer {
            headers: HeaderMap::new(),
            body: Bytes::copy_from_slice(data),
        });
        let answers = answers.collect();
        let read = if stream {
            exchange.reader.replay(answers)
        } else {
            exchange.reader.whole(answers)
        };
        if let Ok(answer) = read {
            bounded(answer.body.len(), data, kind);
        }
        return;
    }
    let mut decoder = exchange.reader.decoder(STREAM_LIMITS);
    let mut out = Relayed::default();
    let pieces: Vec<&[u8]> = if cut { data.chunks(7).collect() } else { vec![data] };
    let fed = pieces
        .into_iter()
        .try_for_each(|piece| decoder.feed(Bytes::copy_from_slice(piece), &mut out));
    let ended = fed.and_then(|()| decoder.end(&mut out));
    assert_eq!(ended.is_ok(), decoder.is_complete(), "only a complete stream ends well");
    bounded(out.bytes.len(), data, kind);
    // Numbers are read whatever came.
    let _ = (decoder.usage(), decoder.generated().tokens());
}

/// The first two bytes are a status, up to the first line's end there is a value of `retry-after`, and then the body.
fn failure(data: &[u8]) {
    let [high, low, data @ ..] = data else { return };
    let Ok(status) = StatusCode::from_u16(100 + u16::from_be_bytes([*high, *low]) % 900) else {
        return;
    };
    let end = data.iter().position(|&byte| byte == b'\n').unwrap_or(0);
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(&data[..end]) {
        headers.insert("retry-after", value);
    }
    for kind in KINDS.iter() {
        let failure = kind.adapter.failure(status, &headers, &data[end..]);
        assert!(
            failure.message.len() <= 64 * 1024,
            "{}: a message of {}",
            kind.id,
            failure.message.len()
        );
        let _ = kind.adapter.request_id(&headers);
    }
}

/// Records are the same however the bytes were cut.
fn sse(data: &[u8]) {
    let read = |pieces: Vec<&[u8]>| {
        let mut records = Records::new(STREAM_LIMITS.max_event_bytes);
        let mut found = Vec::new();
        for piece in pieces {
            records.push(Bytes::copy_from_slice(piece));
            loop {
                match records.take() {
                    Ok(Some(record)) => found.push(record.to_vec()),
                    Ok(None) => break,
                    Err(_) => return (found, true),
                }
            }
        }
        (found, false)
    };
    let whole = read(vec![data]);
    for size in [1, 2, 3, 5, 1000] {
        assert_eq!(read(data.chunks(size).collect()), whole, "pieces of {size}");
    }
}

fn data_url(data: &[u8]) {
    let _ = (media::sniff(data), media::is_text(data));
    let Ok(text) = std::str::from_utf8(data) else { return };
    if !is_data_url(text) {
        assert!(DataUrl::parse(text).is_err());
    }
    let Ok(url) = DataUrl::parse(text) else { return };
    let decoded = url.decode();
    assert_eq!(decoded.len(), url.decoded_len());
    for count in [0, 1, 2, 3, 4, 64] {
        let start = url.decode_start(count);
        assert_eq!(start, decoded[..count.min(decoded.len())]);
    }
    let _ = (url.media_type(), url.parameters().count(), url.is_padded());
}

fn waiting(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else {
        return;
    };
    for name in ["retry-after", "retry-after-ms"] {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.clone());
        let _ = retry_after(&headers);
    }
}

/// The first line is a name, the others are entries of a scope.
fn scopes(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.lines().map(ToOwned::to_owned);
    let name = lines.next().unwrap_or_default();
    let entries: Vec<String> = lines.collect();
    let scope = Scope::new(entries.clone(), entries.clone());
    let allowed = scope.allows_provider(&name);
    assert_eq!(
        scope.allows_model(std::iter::once(name.as_str())) && !entries.is_empty(),
        {
            let entries = scope.models();
            entries.iter().any(|entry| scope::matches(entry, &name))
        }
    );
    assert_eq!(
        allowed,
        entries.is_empty() || scope.providers().iter().any(|entry| scope::matches(entry, &name))
    );
}

/// A configuration file, and behind a line of `---` variables and settings, one a line.
fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Whoever writes a configuration may name files, and a fuzzer would name devices.
    if text.contains("file") || text.contains("FILE") || text.contains("CREDENTIALS") {
        return;
    }
    let (file, rest) = text.split_once("\n---\n").unwrap_or((text, ""));
    let pairs = rest.lines().filter_map(|line| line.split_once('='));
    let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let (settings, env): (Vec<_>, Vec<_>) = pairs.map(pair).partition(|(name, _)| name.contains('.'));
    let sources = Sources {
        file: Some((PathBuf::from("fuzz.toml"), file.to_owned())),
        env,
        overrides: settings,
    };
    match config::load(&sources, &known_dialects()) {
        Ok(loaded) => bounded(loaded.warnings.iter().map(String::len).sum(), data, "warnings"),
        Err(faults) => bounded(faults.to_string().len(), data, "faults"),
    }
}

/// The first line is a path in the secret store, the rest a document of Vault, and also each field's value by itself.
fn credential(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (path, document) = text.split_once('\n').unwrap_or((text, ""));
    let Some(path) = CredentialPath::parse(path) else {
        return;
    };
    if document.contains("file") || document.contains("executable") {
        return;
    }
    let mut readings: Vec<Fields> = Vec::new();
    if let Ok(value) = serde_json::from_str(document) {
        readings.extend(vault::fields_of(&value));
    }
    for name in ["api_key", "service_account", "access_key_id"] {
        readings.push([(name, document.to_owned())].into_iter().collect());
    }
    let loaded = config::load(&Sources::default(), &known_dialects()).expect("the defaults are valid");
    for fields in readings {
        let stored = Stored {
            credentials: [(path.clone(), fields)].into_iter().collect(),
        };
        let reading = loaded.settings.reader.read(&stored, &[]);
        bounded(reading.warnings.iter().map(String::len).sum(), data, "warnings");
        for problem in &reading.problems {
            bounded(problem.fault.to_string().len(), data, "a fault");
        }
    }
}

/// Whatever is written, an address that is let through is a public one.
fn fetch_url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(target) = FetchTarget::parse(text, &[80, 443]) else {
        return;
    };
    if let TargetHost::Address(address) = target.host()
        && AddressRules::default().judge(*address).is_ok()
    {
        assert!(
            !address.is_loopback() && !address.is_unspecified() && !address.is_multicast(),
            "{address}"
        );
    }
}

fn api_key(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(key) = ApiKey::parse(text) {
        assert_eq!(key.expose(), text);
    }
}
