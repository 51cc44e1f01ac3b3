//! `[tracing]`: where spans go and which are made.
//!
//! The usual `OTEL_…` variables stand for these settings (`layers`), so that a gateway beside other services needs nothing
//! of its own.

use std::fmt;
use std::time::Duration;

use secrecy::SecretString;

use super::checks;
use super::reader::Reader;
use super::settings::SECOND_MS;

/// Where the signal's own path begins, below the address of a collector.
const TRACES_PATH: &str = "v1/traces";

/// What the service is called where nobody says.
const SERVICE_NAME: &str = "bonito-gateway";

/// Where spans go and which are made.
#[derive(Clone)]
pub struct TracingSettings {
    /// The URL that spans are posted to; `None`: nowhere.
    pub url: Option<String>,
    /// Headers of each call; they may hold a credential.
    pub headers: Vec<(String, SecretString)>,
    /// For one call.
    pub timeout: Duration,
    /// What the service is called.
    pub service_name: String,
    /// Further attributes of the service.
    pub resource: Vec<(String, String)>,
    /// Which traces are recorded.
    pub sampler: Sampler,
    /// The share of traces that are, from 0 to 1, where the sampler asks for one.
    pub ratio: f64,
    /// Whether requests that failed are recorded in any case.
    pub keep_errors: bool,
    /// Which headers providers and webhooks get.
    pub propagation: Propagation,
    /// Whether spans hold prompts and answers.
    pub content: bool,
    /// Bytes of them in one attribute.
    pub content_bytes: usize,
    /// Spans that may wait to be sent.
    pub queue: usize,
    /// Spans in one call.
    pub batch: usize,
    /// How long a span waits for company.
    pub flush: Duration,
}

impl fmt::Debug for TracingSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TracingSettings")
            .field("on", &self.url.is_some())
            .field("sampler", &self.sampler)
            .field("ratio", &self.ratio)
            .field("keep_errors", &self.keep_errors)
            .field("propagation", &self.propagation)
            .field("content", &self.content)
            .finish_non_exhaustive()
    }
}

/// Which traces are recorded.
///
/// # Source
/// Names of `OTEL_TRACES_SAMPLER`: <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sampler {
    /// What the caller says, and a share of those that begin here.
    ParentOrRatio,
    /// A share, whatever the caller says.
    Ratio,
    /// All.
    AlwaysOn,
    /// None.
    AlwaysOff,
}

/// Which headers providers and webhooks get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Propagation {
    /// None.
    None,
    /// `traceparent`.
    Parent,
    /// `traceparent`, and the caller's `tracestate`.
    ParentAndState,
}

impl TracingSettings {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let exporter = reader.choice("tracing.exporter", &[("otlp", true), ("none", false)]);
        let disabled = reader.flag("tracing.disabled");
        let protocol = reader.text("tracing.protocol");
        let url = url(reader);
        if protocol != "http/protobuf" && url.is_some() && exporter && !disabled {
            let problem = format!("{} is not spoken", checks::shown(&protocol));
            let hint = "write http/protobuf; collectors take it on port 4318";
            reader.refuse("tracing.protocol", problem, Some(hint.to_owned()));
        }
        let (sampler, ratio) = sampler(reader);
        let resource = pairs(reader, "tracing.resource");
        let named = resource.iter().find(|(key, _)| key == "service.name");
        let service_name = reader.optional_text("tracing.service_name");
        Self {
            url: url.filter(|_| exporter && !disabled),
            headers: pairs(reader, "tracing.headers")
                .into_iter()
                .map(|(name, value)| (name, SecretString::from(value)))
                .collect(),
            timeout: reader.milliseconds("tracing.timeout_ms", 1..=60 * SECOND_MS),
            service_name: service_name
                .or_else(|| named.map(|(_, name)| name.clone()))
                .unwrap_or_else(|| SERVICE_NAME.to_owned()),
            resource,
            sampler,
            ratio,
            keep_errors: reader.flag("tracing.keep_errors"),
            propagation: reader.choice(
                "tracing.propagate",
                &[
                    ("traceparent", Propagation::Parent),
                    ("tracestate", Propagation::ParentAndState),
                    ("none", Propagation::None),
                ],
            ),
            content: reader.flag("tracing.content"),
            content_bytes: reader.count("tracing.content_bytes", 1..=1_048_576),
            queue: reader.count("tracing.queue", 1..=1_000_000),
            batch: reader.count("tracing.batch", 1..=10_000),
            flush: reader.milliseconds("tracing.flush_ms", 1..=60 * SECOND_MS),
        }
    }
}

/// The URL for spans: their own, or below that of a collector.
fn url(reader: &mut Reader<'_>) -> Option<String> {
    let own = endpoint(reader, "tracing.traces_endpoint");
    let base = endpoint(reader, "tracing.endpoint");
    own.or_else(|| base.map(|base| format!("{}/{TRACES_PATH}", base.trim_end_matches('/'))))
}

fn endpoint(reader: &mut Reader<'_>, path: &'static str) -> Option<String> {
    let text = reader.optional_text(path)?;
    match checks::url_text(&text) {
        Ok(url) => Some(url),
        Err(problem) => {
            reader.refuse(path, problem, None);
            None
        }
    }
}

fn sampler(reader: &mut Reader<'_>) -> (Sampler, f64) {
    let (sampler, whole) = reader.choice(
        "tracing.sampler",
        &[
            ("parentbased_traceidratio", (Sampler::ParentOrRatio, None)),
            ("parentbased_always_on", (Sampler::ParentOrRatio, Some(1.0))),
            ("parentbased_always_off", (Sampler::ParentOrRatio, Some(0.0))),
            ("traceidratio", (Sampler::Ratio, None)),
            ("always_on", (Sampler::AlwaysOn, None)),
            ("always_off", (Sampler::AlwaysOff, None)),
        ],
    );
    let text = reader.filled_text("tracing.sample_ratio");
    let ratio = match text.trim().parse::<f64>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
        _ => {
            let problem = format!("{} is not a number from 0 to 1", checks::shown(&text));
            reader.refuse(
                "tracing.sample_ratio",
                problem,
                Some("write 0.05 for one in twenty".to_owned()),
            );
            0.0
        }
    };
    (sampler, whole.unwrap_or(ratio))
}

/// `name=value,name=value`, with values percent-encoded where they hold commas, as `OTEL_EXPORTER_OTLP_HEADERS` has it.
fn pairs(reader: &mut Reader<'_>, path: &'static str) -> Vec<(String, String)> {
    let Some(text) = reader.optional_text(path) else {
        return Vec::new();
    };
    let mut pairs = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let pair = part
            .split_once('=')
            .map(|(name, value)| (name.trim(), decoded(value.trim())));
        match pair {
            Some((name, Some(value))) if is_name(name) && value.bytes().all(|byte| byte >= b' ' && byte != 0x7f) => {
                pairs.push((name.to_owned(), value));
            }
            // Not quoted: it may hold a credential.
            _ => {
                let hint = "write name=value,name=value; encode commas in values as %2C";
                reader.refuse(path, "has a part that is not name=value", Some(hint.to_owned()));
            }
        }
    }
    pairs
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| (byte? as char).to_digit(16);
            let (high, low) = (digit(rest.next())?, digit(rest.next())?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::config::{self, Faults, Loaded, Sources};

    fn load(env: &[(&str, &str)]) -> Result<Loaded, Faults> {
        let env = env
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect();
        config::load(
            &Sources {
                env,
                ..Sources::default()
            },
            &[],
        )
    }

    fn read(env: &[(&str, &str)]) -> TracingSettings {
        load(env).unwrap_or_else(|faults| panic!("{faults}")).settings.tracing
    }

    #[test]
    fn the_usual_variables_say_where_spans_go() {
        assert_eq!(read(&[]).url, None);
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/otlp/");
        assert_eq!(
            read(&[base]).url.as_deref(),
            Some("http://collector:4318/otlp/v1/traces")
        );
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://other/spans");
        assert_eq!(read(&[base, own]).url.as_deref(), Some("http://other/spans"));
        for off in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")] {
            assert_eq!(read(&[base, off]).url, None, "{off:?}");
        }
        let faults = load(&[base, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")])
            .err()
            .unwrap()
            .to_string();
        assert!(
            faults.contains("OTEL_EXPORTER_OTLP_PROTOCOL") && faults.contains("4318"),
            "{faults}"
        );
    }

    #[test]
    fn a_service_has_the_strongest_of_its_names() {
        let resource = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=from-resource,team=a%2Cb");
        assert_eq!(read(&[]).service_name, "bonito-gateway");
        let named = read(&[resource]);
        assert_eq!(named.service_name, "from-resource");
        assert!(named.resource.contains(&("team".into(), "a,b".into())));
        assert_eq!(read(&[resource, ("OTEL_SERVICE_NAME", "edge")]).service_name, "edge");
    }

    #[test]
    fn headers_are_read_and_shown_to_nobody() {
        let read = read(&[
            ("OTEL_EXPORTER_OTLP_HEADERS", "weaker=1"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "api-key=secret%20one, x = y"),
        ]);
        let headers: Vec<_> = read
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.expose_secret()))
            .collect();
        assert_eq!(headers, [("api-key", "secret one"), ("x", "y")]);
        assert!(!format!("{read:?}").contains("secret"));
        for wrong in ["api-key", "=x", "a=%zz", "a=b%0Ac"] {
            let faults = load(&[("OTEL_EXPORTER_OTLP_HEADERS", wrong)])
                .err()
                .unwrap()
                .to_string();
            assert!(
                faults.contains("OTEL_EXPORTER_OTLP_HEADERS") && !faults.contains(wrong),
                "{faults}"
            );
        }
    }

    #[test]
    fn a_ratio_is_from_0_to_1() {
        for wrong in ["1.5", "-1", "all", "NaN"] {
            assert!(load(&[("OTEL_TRACES_SAMPLER_ARG", wrong)]).is_err(), "{wrong}");
        }
        assert!(load(&[("OTEL_TRACES_SAMPLER", "sometimes")]).is_err());
    }
}
