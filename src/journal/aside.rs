//! Records that the database does not take, kept where a person finds them: one JSON object a line.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::PathBuf;

use parking_lot::Mutex;
use serde_json::json;

use crate::domain::record::UsageRecord;

/// Beyond it, the log alone has what is set aside. A hundred thousand rows have place in it.
const MAX_BYTES: u64 = 64 << 20;

/// The file.
#[derive(Debug)]
pub(super) struct Aside {
    /// `None`: in memory, for tests.
    path: Option<PathBuf>,
    turn: Mutex<()>,
}

impl Aside {
    /// The file in a journal's directory.
    pub fn new(path: Option<PathBuf>) -> Self {
        Self {
            path,
            turn: Mutex::default(),
        }
    }

    /// Appends a record, and returns when it is on disk. `class` is the database's code for what it does not like.
    pub fn keep(&self, record: &UsageRecord, class: &str) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let _turn = self.turn.lock();
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        if file.metadata()?.len() > MAX_BYTES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "too much is set aside"));
        }
        let mut line = line(record, class).to_string();
        line.push('\n');
        file.write_all(line.as_bytes())?;
        file.sync_data()
    }
}

fn line(record: &UsageRecord, class: &str) -> serde_json::Value {
    let attempts: Vec<_> = record
        .attempts
        .iter()
        .map(|attempt| {
            json!({
                "deployment": attempt.deployment.as_str(),
                "status": attempt.status,
                "error_class": attempt.error.map(|class| class.as_str()),
                "upstream_request_id": attempt.upstream_request_id,
                "input_tokens": attempt.charge.usage.input,
                "cached_tokens": attempt.charge.usage.cached_input,
                "output_tokens": attempt.charge.usage.output,
                "reasoning_tokens": attempt.charge.usage.reasoning,
                "cost_nanousd": attempt.charge.cost.map(|cost| cost.0),
                "price_version": attempt.charge.price_version.as_ref().map(|version| version.as_str()),
                "metering": attempt.charge.metering().as_str(),
            })
        })
        .collect();
    json!({
        "reason": class,
        "id": record.id.0,
        "organization_id": record.owner.organization.0,
        "team_id": record.owner.team.map(|team| team.0),
        "key_id": record.owner.key.0,
        "created_at": record.admitted_at,
        "operation": record.operation.as_str(),
        "dialect": record.dialect.as_str(),
        "requested_model": record.requested_model,
        "stream": record.stream,
        "status": record.status,
        "error_class": record.error.map(|class| class.as_str()),
        "client_cancelled": record.client_cancelled,
        "latency_us": u64::try_from(record.latency.as_micros()).unwrap_or(u64::MAX),
        "cost_nanousd": record.cost().map(|cost| cost.0),
        "cache": record.cache.as_str(),
        "attempts": attempts,
    })
}
