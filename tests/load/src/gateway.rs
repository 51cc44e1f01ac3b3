//! Bonito itself, as somebody with an OpenAI key would run it: the release binary, one data directory, defaults; and, where
//! that is asked for, as somebody who governs it would.
//!
//! Keys, limits, the journal and the ledger stay switched on: what is measured is the gateway as it is meant to be
//! run. A key's limit is at most 10,000 requests a minute, less than one second of this load, so the load goes through
//! as many keys as it needs.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Deserialize;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::BoxError;
use crate::client::Endpoint;
use crate::process::{Child, Pinning, Start};
use crate::target::{BONITO, GOVERNED, MODEL, ON_REDIS};

/// How long one command such as `bonito key create` may take, migrations of a first start included.
const COMMAND_PATIENCE: Duration = Duration::from_secs(30);
/// How long `bonito serve` may take to be ready.
const READY_PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, clap::Args)]
pub struct GatewayArgs {
    /// The gateway's binary
    #[arg(long, default_value = "target/release/bonito")]
    bonito: PathBuf,
    /// Keys the load is spread over; all of them together must be allowed more than a gateway can do
    #[arg(long, default_value_t = 256)]
    keys: usize,
    /// Requests per minute each key may make
    #[arg(long, default_value_t = 10_000)]
    rate_limit: u64,
}

/// How much of governance is switched on.
#[derive(Clone, Debug)]
pub enum Governance {
    /// What every key has: a limit on its requests, counted in the process.
    Least,
    /// Limits on requests, tokens and concurrency and hard budgets, at several scopes that all of the load meets.
    InMemory,
    /// The same, counted in the Redis of this URL.
    OnRedis(String),
}

impl Governance {
    /// What a gateway with it is called in the table.
    fn name(&self) -> &'static str {
        match self {
            Self::Least => BONITO,
            Self::InMemory => GOVERNED,
            Self::OnRedis(_) => ON_REDIS,
        }
    }
}

/// A scope's limits, as arguments of `bonito limit set`: so high that nothing is refused.
const LIMITS: [&[&str]; 3] = [
    &["--requests", MANY, "--tokens", MANY, "--concurrency", "100000"],
    &[
        "--each-key",
        "--requests",
        "10000",
        "--tokens",
        MANY,
        "--concurrency",
        "1000",
    ],
    &["--model", MODEL, "--requests", MANY],
];
const MANY: &str = "1000000000";

/// How to run one gateway: its binary, environment and ports.
pub struct Gateway {
    args: GatewayArgs,
    governance: Governance,
    environment: BTreeMap<String, String>,
    port: u16,
    operations_port: u16,
}

/// What `bonito key create --json` prints; other fields are of no use here.
#[derive(Deserialize)]
struct CreatedKey {
    key: String,
}

impl Gateway {
    pub fn new(
        args: GatewayArgs,
        governance: Governance,
        ports: [u16; 2],
        upstream_port: u16,
        directory: &Path,
    ) -> Self {
        let [port, operations_port] = ports;
        let data = directory.join(format!("{}-data", governance.name()));
        let mut environment: BTreeMap<String, String> = [
            ("BONITO_DATA_DIR", data.display().to_string()),
            ("BONITO_SERVER_LISTEN", format!("127.0.0.1:{port}")),
            ("BONITO_OPERATIONS_LISTEN", format!("127.0.0.1:{operations_port}")),
            ("OPENAI_API_KEY", "sk-load".to_owned()),
            ("OPENAI_BASE_URL", format!("http://127.0.0.1:{upstream_port}/v1")),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        if let Governance::OnRedis(url) = &governance {
            environment.insert("REDIS_URL".to_owned(), url.clone());
        }
        Self {
            args,
            governance,
            environment,
            port,
            operations_port,
        }
    }

    /// What it is called in the table.
    pub fn name(&self) -> &'static str {
        self.governance.name()
    }

    pub fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    fn operations(&self) -> Result<Endpoint, BoxError> {
        Endpoint::parse(&format!("http://127.0.0.1:{}", self.operations_port))
    }

    /// Creates the keys, one process after the other since SQLite has one writer.
    pub async fn create_keys(&self) -> Result<Vec<String>, BoxError> {
        if !self.args.bonito.is_file() {
            let binary = self.args.bonito.display();
            return Err(format!(
                "{binary} does not exist: build it, name another with --bonito, or leave it out with --without-bonito"
            )
            .into());
        }
        let mut keys = Vec::with_capacity(self.args.keys);
        for number in 0..self.args.keys.max(1) {
            keys.push(self.create_key(number).await?);
        }
        if !matches!(self.governance, Governance::Least) {
            for limits in LIMITS {
                self.ask(&[&["limit", "set"], limits].concat()).await?;
            }
            for whom in ["organization".to_owned(), format!("model={MODEL}")] {
                let budget = [
                    "budget", "set", "--for", &whom, "--amount", "1000000", "--period", "monthly",
                ];
                self.ask(&budget).await?;
            }
        }
        Ok(keys)
    }

    async fn create_key(&self, number: usize) -> Result<String, BoxError> {
        let name = if number == 0 {
            "load".to_owned()
        } else {
            format!("load-{number}")
        };
        let rate_limit = self.args.rate_limit.to_string();
        let arguments = ["key", "create", "--name", &name, "--rate-limit", &rate_limit, "--json"];
        let printed = self.ask(&arguments).await?;
        let created: CreatedKey = serde_json::from_slice(&printed)
            .map_err(|error| format!("bonito key create --json did not print a JSON object with a key: {error}"))?;
        Ok(created.key)
    }

    /// Runs one of its commands that come to an end, and gives what it printed.
    async fn ask(&self, arguments: &[&str]) -> Result<Vec<u8>, BoxError> {
        let what = format!("bonito {}", arguments[..2].join(" "));
        let mut command = Command::from(crate::process::clean_command(
            self.args.bonito.as_os_str(),
            &self.environment,
        ));
        command.args(arguments).kill_on_drop(true);
        let output = timeout(COMMAND_PATIENCE, command.output())
            .await
            .map_err(|_| format!("{what} does not end"))??;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{what} failed with {}: {}", output.status, message.trim()).into());
        }
        Ok(output.stdout)
    }

    /// Starts `bonito serve` and waits until it says it is ready.
    pub async fn start(&self, directory: &Path, pinning: Pinning) -> Result<Child, BoxError> {
        let mut child = Start {
            name: self.name(),
            program: &self.args.bonito,
            arguments: vec![OsStr::new("serve")],
            environment: &self.environment,
            pinning: pinning.of_test_subject(),
            directory,
        }
        .spawn()?;
        let operations = self.operations()?;
        let patience = Instant::now() + READY_PATIENCE;
        while !matches!(
            operations.once(Method::GET, "/readyz", Bytes::new()).await,
            Ok((StatusCode::OK, _))
        ) {
            if let Some(status) = child.ended() {
                return Err(child.failure(&format!("ended with {status} instead of getting ready")));
            }
            if Instant::now() > patience {
                return Err(child.failure("is not ready"));
            }
            sleep(Duration::from_millis(1)).await;
        }
        Ok(child)
    }

    /// Rows the ledger says it has written, `None` where no such metric is told. The ledger writes behind the
    /// requests, so this waits for `expected` a little while.
    pub async fn ledger_rows(&self, expected: u64) -> Option<u64> {
        let operations = self.operations().ok()?;
        let patience = Instant::now() + Duration::from_secs(10);
        loop {
            let (status, metrics) = operations.once(Method::GET, "/metrics", Bytes::new()).await.ok()?;
            if status != StatusCode::OK {
                return None;
            }
            let rows = sum_of_metric(&String::from_utf8_lossy(&metrics), "bonito_ledger_rows_total")?;
            if rows >= expected || Instant::now() > patience {
                return Some(rows);
            }
            sleep(Duration::from_millis(200)).await;
        }
    }
}

/// The sum over all labels of one metric in Prometheus' text format.
fn sum_of_metric(metrics: &str, name: &str) -> Option<u64> {
    let values: Vec<f64> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with([' ', '{']))
        .filter_map(|rest| {
            let after_labels = rest.rsplit_once('}').map_or(rest, |(_, value)| value);
            after_labels.split_whitespace().next()?.parse().ok()
        })
        .collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels_and_no_other_is_taken_for_it() {
        let metrics = "# TYPE rows counter\nrows_total{state=\"exact\"} 40 1790000000\nrows_total{state=\"a} b\"} 2\n\
                       rows_total_bytes 9\nrows 7\n";
        assert_eq!(sum_of_metric(metrics, "rows_total"), Some(42));
        assert_eq!(sum_of_metric(metrics, "rows_total_bytes"), Some(9));
        assert_eq!(sum_of_metric(metrics, "absent"), None);
    }
}
