//! The things that are measured, and how each is asked.

use std::str::FromStr;
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::time::sleep;

use crate::BoxError;
use crate::client::{Ask, Endpoint, Prepared};
use crate::drive::{Load, Schedule};
use crate::phase::Phase;

pub const DIRECT: &str = "direct";
pub const NGINX: &str = "nginx";
pub const BONITO: &str = "bonito";
/// The same with limits and budgets.
pub const GOVERNED: &str = "governed";
/// The same with limits and budgets in Redis.
pub const ON_REDIS: &str = "on redis";

/// What everybody is asked for.
pub const MODEL: &str = "gpt-4o-mini";

const PROMPT_BYTES: usize = 256;
const START_PATIENCE: Duration = Duration::from_secs(10);

/// Something that answers chat requests in front of, or as, the mock upstream.
pub struct Target {
    pub name: String,
    /// Where whole answers are asked for.
    pub whole: Endpoint,
    pub streams: Endpoint,
    /// Used in turn.
    pub keys: Vec<String>,
    pub model: String,
    /// Whose processor time and memory are its own; its descendants count with it.
    pub pid: Option<u32>,
    /// Whether it is a child of this run.
    pub started_here: bool,
    /// Only of what this run started.
    pub start_to_first_answer_s: Option<f64>,
    /// Requests the mock upstream had served for it when the measuring began.
    pub served_at_start: u64,
}

/// A gateway somebody else started.
#[derive(Clone, Debug)]
pub struct ExtraTarget {
    name: String,
    base_url: String,
    key: String,
    model: String,
    pid: Option<u32>,
}

impl FromStr for ExtraTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = text.split_once('=').ok_or("expected NAME=BASE_URL,KEY,MODEL")?;
        if [DIRECT, NGINX, BONITO, GOVERNED, ON_REDIS].contains(&name) {
            return Err(format!("{name} is in the table already"));
        }
        let (base_url, key, model, pid) = match rest.split(',').collect::<Vec<_>>()[..] {
            [base_url, key, model] => (base_url, key, model, None),
            [base_url, key, model, pid] => (
                base_url,
                key,
                model,
                Some(pid.parse().map_err(|_| format!("{pid} is not a process id"))?),
            ),
            _ => return Err("expected NAME=BASE_URL,KEY,MODEL or NAME=BASE_URL,KEY,MODEL,PID".to_owned()),
        };
        Ok(Self {
            name: name.to_owned(),
            base_url: base_url.to_owned(),
            key: key.to_owned(),
            model: model.to_owned(),
            pid,
        })
    }
}

impl ExtraTarget {
    pub fn target(&self) -> Result<Target, BoxError> {
        let target = Target::new(&self.name, &self.base_url, &self.key, &self.model)?;
        Ok(Target {
            pid: self.pid,
            started_here: false,
            ..target
        })
    }
}

impl Target {
    pub fn new(name: &str, base_url: &str, key: &str, model: &str) -> Result<Self, BoxError> {
        let whole = Endpoint::parse(base_url)?;
        Ok(Self {
            name: name.to_owned(),
            streams: whole.clone(),
            whole,
            keys: vec![key.to_owned()],
            model: model.to_owned(),
            pid: None,
            started_here: true,
            start_to_first_answer_s: None,
            served_at_start: 0,
        })
    }

    fn ask(&self, stream: bool) -> Ask {
        // Usage is not asked for: most callers do not, and it leaves a gateway the work of asking for itself.
        Ask {
            model: self.model.clone(),
            prompt_bytes: PROMPT_BYTES,
            stream,
            include_usage: false,
        }
    }

    pub fn load(&self, phase: Phase, requests: Option<u64>, time: Duration) -> Load {
        Load {
            endpoint: if phase.streams() {
                self.streams.clone()
            } else {
                self.whole.clone()
            },
            keys: self.keys.clone(),
            ask: self.ask(phase.streams()),
            connections: phase.connections(),
            schedule: Schedule::Closed {
                requests,
                time: Some(time),
            },
            ramp: phase.ramp(),
        }
    }

    /// Asks until there is a whole answer, sees that a stream is answered, too, and tells when the first came.
    pub async fn wait_for_first_answer(&self, started: Instant) -> Result<Instant, BoxError> {
        let prepared = Prepared::new(&self.whole, &self.keys[0], &self.ask(false))?;
        loop {
            let problem = match self.whole.try_out(&prepared).await {
                Ok((StatusCode::OK, body)) if body.windows(7).any(|word| word == b"choices") => break,
                Ok((status, body)) => format!("answered {status}: {}", String::from_utf8_lossy(&body)),
                Err(error) => format!("does not answer: {error}"),
            };
            if started.elapsed() > START_PATIENCE {
                return Err(format!("{} {problem}", self.name).into());
            }
            sleep(Duration::from_millis(1)).await;
        }
        let answered = Instant::now();

        let prepared = Prepared::new(&self.streams, &self.keys[0], &self.ask(true))?;
        match self.streams.try_out(&prepared).await? {
            (StatusCode::OK, body) if body.ends_with(b"data: [DONE]\n\n") => Ok(answered),
            (status, _) => Err(format!("{} answers no stream (status {status})", self.name).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_name_and_three_or_four_parts() {
        let target: ExtraTarget = "other=http://127.0.0.1:4000/v1,sk-1,gpt-4o-mini,77".parse().unwrap();
        assert_eq!(
            (target.name.as_str(), target.key.as_str(), target.pid),
            ("other", "sk-1", Some(77))
        );
        assert!("other=http://127.0.0.1:4000/v1,sk-1".parse::<ExtraTarget>().is_err());
        assert!("nginx=http://127.0.0.1:4000/v1,sk-1,m".parse::<ExtraTarget>().is_err());
    }
}
