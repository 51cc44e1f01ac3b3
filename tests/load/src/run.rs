//! The whole comparison: start everything, measure everything in turn, judge, and leave nothing behind.
//!
//! The targets take turns inside every phase of every round, in an order that changes with the round, so that a
//! machine that is slow for a moment is slow for all of them. Judging is `goals`' part, printing is `table`'s.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs, process};

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::time::{sleep, timeout};

use crate::BoxError;
use crate::client::Endpoint;
use crate::drive::{Load, measure};
use crate::gateway::{Gateway, GatewayArgs, Governance};
use crate::goals::{SOAK_REQUESTS, judge};
use crate::mock::{Settings, Stats};
use crate::phase::Phase;
use crate::process::{Child, CpuTime, Pinning, ScratchDir, Start, free_ports, keep_awake, memory, processors};
use crate::results::{Machine, Measured, Outcome, Record, Soak, Subject};
use crate::target::{DIRECT, ExtraTarget, MODEL, NGINX, Target};
use crate::{nginx, table};

const ROUNDS: usize = 3;
const SOAK_PATIENCE: Duration = Duration::from_mins(1);
const MOCK_PATIENCE: Duration = Duration::from_secs(5);
/// Longer than any run takes; what is still running then is stuck.
const LONGEST_RUN: Duration = Duration::from_mins(30);
/// What the mock upstream and nginx, which know no keys, are asked with.
const NO_KEY: &str = "none";
/// Where `scripts/with-redis` says its Redis is.
const REDIS_URL: &str = "BONITO_TEST_REDIS_URL";

#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Measure direct, nginx and the extra targets alone
    #[arg(long)]
    without_bonito: bool,
    /// Measure bonito with limits on requests, tokens and concurrency and with hard budgets, too; and once more with those in
    /// Redis, where BONITO_TEST_REDIS_URL names one
    #[arg(long)]
    governed: bool,
    /// Another gateway in front of the same mock; repeatable
    #[arg(long = "target", value_name = "NAME=BASE_URL,KEY,MODEL[,PID]")]
    targets: Vec<ExtraTarget>,
    /// Port of the mock upstream, for a --target that is configured beforehand; default: a free one
    #[arg(long)]
    mock_port: Option<u16>,
    /// Measure six times as long
    #[arg(long)]
    full: bool,
    /// Process under test alone on the first processor, everything else on the second
    #[arg(long)]
    pin: bool,
    /// Keep idle processors from halting; on virtual machines waking one costs more than a proxy does
    #[arg(long)]
    awake: bool,
    /// Write everything measured to this file, too
    #[arg(long)]
    json: Option<PathBuf>,
}

impl RunArgs {
    /// What is switched on in each bonito of the table.
    fn governances(&self) -> Vec<Governance> {
        let mut all = vec![Governance::Least];
        if self.governed {
            all.push(Governance::InMemory);
            all.extend(env::var(REDIS_URL).ok().map(Governance::OnRedis));
        }
        all
    }
}

/// Runs the table, prints it, and writes the JSON file if one was asked for.
///
/// # Errors
/// When something cannot be started or does not answer. Figures short of their goals are no error.
pub async fn run(args: RunArgs) -> Result<(), BoxError> {
    let outcome = timeout(LONGEST_RUN, compare(&args))
        .await
        .map_err(|_| "the run is stuck and was given up")??;
    print!("{}", table::render(&outcome));
    if let Some(path) = &args.json {
        fs::write(path, serde_json::to_vec_pretty(&outcome)?)?;
    }
    Ok(())
}

async fn compare(args: &RunArgs) -> Result<Outcome, BoxError> {
    let pinning = if args.pin { Pinning::Separate } else { Pinning::Off };
    pinning.apply_to_self()?;
    // Dropped last, after the children that write into it.
    let directory = ScratchDir::create()?;
    let bench = Bench::start(args, pinning, directory.path()).await?;

    let mut subjects: Vec<Subject> = bench.targets.iter().map(Subject::new).collect();
    bench.soak(&mut subjects).await?;
    for round in 0..ROUNDS {
        bench.round(round, args.full, &mut subjects).await?;
    }
    for (target, subject) in bench.targets.iter().zip(&mut subjects) {
        subject.memory_after_run = target.pid.map(memory);
    }
    let records = bench.records(&subjects).await;
    let goals = judge(&subjects);
    let RunArgs {
        full,
        pin: pinned,
        awake,
        ..
    } = *args;
    Ok(Outcome {
        machine: Machine::here(),
        full,
        pinned,
        awake,
        subjects,
        goals,
        records,
    })
}

/// Everything that runs while measuring.
struct Bench {
    mock: Endpoint,
    gateways: Vec<Gateway>,
    targets: Vec<Target>,
    children: Vec<Child>,
}

impl Bench {
    async fn start(args: &RunArgs, pinning: Pinning, directory: &Path) -> Result<Self, BoxError> {
        let [free_port, nginx_port] = free_ports()?;
        let mock_port = args.mock_port.unwrap_or(free_port);
        let mock_url = format!("http://127.0.0.1:{mock_port}");
        let mock = Endpoint::parse(&mock_url)?;
        let mut bench = Self {
            mock,
            gateways: Vec::new(),
            targets: Vec::new(),
            children: Vec::new(),
        };

        if args.awake {
            bench.children.extend(keep_awake(directory)?);
        }
        say("starting the mock upstream and nginx");
        bench.start_mock(mock_port, directory).await?;
        let direct = Target::new(DIRECT, &format!("{mock_url}/v1"), NO_KEY, MODEL)?;
        bench.admit(direct, None).await?;

        let child = nginx::start(nginx_port, mock_port, directory, pinning)?;
        let nginx_url = format!("http://127.0.0.1:{nginx_port}");
        let mut nginx = Target::new(NGINX, &format!("{nginx_url}/v1"), NO_KEY, MODEL)?;
        nginx.streams = Endpoint::parse(&format!("{nginx_url}{}/v1", nginx::STREAM_PREFIX))?;
        bench.admit(nginx, Some(child)).await?;

        if !args.without_bonito {
            for governance in args.governances() {
                let gateway = Gateway::new(args.gateway.clone(), governance, free_ports()?, mock_port, directory);
                let name = gateway.name();
                say(&format!("creating keys and starting {name}"));
                let keys = gateway.create_keys().await?;
                let child = gateway.start(directory, pinning).await?;
                let target = Target::new(name, &gateway.base_url(), &keys[0], MODEL)?;
                bench.admit(Target { keys, ..target }, Some(child)).await?;
                bench.gateways.push(gateway);
            }
        }
        for extra in &args.targets {
            bench.admit(extra.target()?, None).await?;
        }
        Ok(bench)
    }

    async fn start_mock(&mut self, port: u16, directory: &Path) -> Result<(), BoxError> {
        let listen = format!("127.0.0.1:{port}");
        let child = Start {
            name: "mock",
            program: &env::current_exe()?,
            arguments: ["mock", "--listen", &listen].map(OsStr::new).into(),
            environment: &BTreeMap::new(),
            pinning: &[],
            directory,
        }
        .spawn()?;
        let patience = child.started + MOCK_PATIENCE;
        while let Err(error) = self.stats().await {
            if Instant::now() > patience {
                return Err(child.failure(&format!("does not answer ({error})")));
            }
            sleep(Duration::from_millis(5)).await;
        }
        self.children.push(child);
        Ok(())
    }

    /// Takes a target into the table once it answers. `child` is its process, where this run started it.
    async fn admit(&mut self, mut target: Target, child: Option<Child>) -> Result<(), BoxError> {
        let before = self.stats().await?;
        let started = child.as_ref().map_or_else(Instant::now, |child| child.started);
        let answered = match (target.wait_for_first_answer(started).await, &child) {
            (Ok(answered), _) => answered,
            (Err(error), Some(child)) => return Err(child.failure(&error.to_string())),
            (Err(error), None) => return Err(error),
        };
        if let Some(child) = child {
            target.pid = Some(child.pid());
            target.start_to_first_answer_s = Some((answered - started).as_secs_f64());
            self.children.push(child);
        }
        target.served_at_start = self.stats().await?.requests - before.requests;
        self.targets.push(target);
        Ok(())
    }

    /// Memory after many requests. It comes before the rounds because it warms everything up as well.
    async fn soak(&self, subjects: &mut [Subject]) -> Result<(), BoxError> {
        for (target, subject) in self.targets.iter().zip(subjects) {
            say(&format!("warming up {}", target.name));
            let before = self.stats().await?;
            match target.pid {
                Some(pid) => subject.soak = Some(soak(target, pid).await?),
                None => drop(measure(&soak_load(target, SOAK_REQUESTS / 10)).await?),
            }
            subject.served_by_mock += self.stats().await?.requests - before.requests;
        }
        Ok(())
    }

    async fn round(&self, round: usize, full: bool, subjects: &mut [Subject]) -> Result<(), BoxError> {
        for phase in Phase::ALL {
            say(&format!("round {} of {ROUNDS}: {}", round + 1, phase.title()));
            self.set_up_mock(phase.mock_settings()).await?;
            for turn in 0..self.targets.len() {
                let index = (turn + round) % self.targets.len();
                let measured = self.measure_target(&self.targets[index], phase, full).await?;
                let subject = &mut subjects[index];
                subject.served_by_mock += measured.mock.requests;
                subject.phases.entry(phase).or_default().push(measured);
            }
        }
        Ok(())
    }

    async fn measure_target(&self, target: &Target, phase: Phase, full: bool) -> Result<Measured, BoxError> {
        let load = target.load(phase, None, phase.time(full));
        let served_before = self.stats().await?;
        let clocks_before = Clocks::read(target);
        let figures = measure(&load)
            .await
            .map_err(|error| format!("{}: {error}", target.name))?;
        let clocks = Clocks::read(target);
        let served = self.stats().await?;
        Ok(Measured {
            figures,
            cpu_s: clocks
                .target
                .zip(clocks_before.target)
                .map(|(now, before)| (now - before).as_secs_f64()),
            mock: served - served_before,
            foreign_cpu: clocks.foreign_share_since(&clocks_before),
        })
    }

    /// Compares each gateway's record with the mock's count.
    async fn records(&self, subjects: &[Subject]) -> Vec<Record> {
        let mut records = Vec::new();
        for gateway in &self.gateways {
            let Some(subject) = subjects.iter().find(|subject| subject.name == gateway.name()) else {
                continue;
            };
            records.push(Record {
                name: subject.name.clone(),
                ledger_rows: gateway.ledger_rows(subject.served_by_mock).await,
                served_by_mock: subject.served_by_mock,
            });
        }
        records
    }

    async fn stats(&self) -> Result<Stats, BoxError> {
        self.mock.get_json("/__stats").await
    }

    async fn set_up_mock(&self, settings: Settings) -> Result<(), BoxError> {
        let body = Bytes::from(serde_json::to_vec(&settings)?);
        match self.mock.once(Method::PUT, "/__settings", body).await? {
            (StatusCode::OK, _) => Ok(()),
            (status, _) => Err(format!("the mock upstream refused its settings with {status}").into()),
        }
    }
}

async fn soak(target: &Target, pid: u32) -> Result<Soak, BoxError> {
    let load = soak_load(target, SOAK_REQUESTS);
    let first = measure(&load).await?;
    let first_memory = memory(pid);
    let second = measure(&load).await?;
    Ok(Soak {
        requests_each: first.requests.min(second.requests),
        failed: first.failed + second.failed,
        first: first_memory,
        second: memory(pid),
    })
}

fn soak_load(target: &Target, requests: u64) -> Load {
    target.load(Phase::ManyConnections, Some(requests), SOAK_PATIENCE)
}

/// Progress goes to the error stream, so that the table can be redirected.
fn say(progress: &str) {
    eprintln!("{progress}");
}

/// Processor time of everybody concerned, at one moment.
struct Clocks {
    at: Instant,
    target: Option<CpuTime>,
    /// This process, all its children and the target.
    known: Option<CpuTime>,
    machine: CpuTime,
}

impl Clocks {
    fn read(target: &Target) -> Self {
        let ours = CpuTime::of_family(process::id());
        let of_target = target.pid.map(CpuTime::of_family);
        let known = match (target.started_here, of_target) {
            (true, _) => Some(ours),
            (false, Some(theirs)) => Some(ours + theirs),
            // Without its process id, what a target uses cannot be told from what strangers use.
            (false, None) => None,
        };
        Self {
            at: Instant::now(),
            target: of_target,
            known,
            machine: CpuTime::of_machine(),
        }
    }

    /// The share of the machine that went to nobody concerned.
    fn foreign_share_since(&self, before: &Self) -> Option<f64> {
        let known = self.known? - before.known?;
        let foreign = (self.machine - before.machine) - known;
        let available_s = (self.at - before.at).as_secs_f64() * processors() as f64;
        Some(foreign.as_secs_f64() / available_s)
    }
}
