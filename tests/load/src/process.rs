//! The processes a run starts: how they begin, what they cost, and that none of them outlives the run.
//!
//! A child is asked to stop when its [`Child`] is dropped, which every way out of a run comes past, a panic and Ctrl-C
//! included; where `setpriv` exists the kernel asks as well should the run itself be killed. Costs are read from
//! `/proc`, and count a process with everything it started, because nginx does its work in child processes.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::TcpListener;
use std::ops::{Add, Sub};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, io, process};

use crate::BoxError;

/// How long a child may take to stop after SIGTERM.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// Linux counts processor time in these for programs, whatever its own timer does.
const TICKS_PER_SECOND: u64 = 100;
const KIB: u64 = 1024;

/// Which processors the parts of a run use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pinning {
    /// All of them, for all.
    Off,
    /// The process under test alone on the first, everything else on the second.
    Separate,
}

impl Pinning {
    /// Moves this process, and with it every child that is not under test, to the second processor.
    pub fn apply_to_self(self) -> Result<(), BoxError> {
        if self == Self::Off {
            return Ok(());
        }
        let own_pid = process::id().to_string();
        let status = Command::new("taskset")
            .args(["-a", "-p", "-c", "1", &own_pid])
            .stdout(Stdio::null())
            .status()
            .map_err(|error| format!("--pin needs taskset: {error}"))?;
        if status.success() {
            Ok(())
        } else {
            Err("--pin needs two processors".into())
        }
    }

    /// What stands in front of the command of a process under test.
    pub fn of_test_subject(self) -> &'static [&'static str] {
        match self {
            Self::Off => &[],
            Self::Separate => &["taskset", "-c", "0"],
        }
    }
}

/// A process of ours, ended when this is dropped.
pub struct Child {
    name: String,
    process: process::Child,
    log: PathBuf,
    pub started: Instant,
}

/// How to start a [`Child`].
pub struct Start<'a> {
    pub name: &'a str,
    pub program: &'a Path,
    pub arguments: Vec<&'a OsStr>,
    /// The whole environment; nothing but PATH and HOME is inherited, so that a developer's own settings do not
    /// change the figures.
    pub environment: &'a BTreeMap<String, String>,
    pub pinning: &'a [&'a str],
    /// Its output goes to a file here.
    pub directory: &'a Path,
}

impl Start<'_> {
    /// The child's parent must stay alive as a *thread*, so call this from the main task only.
    pub fn spawn(self) -> Result<Child, BoxError> {
        let log = self.directory.join(format!("{}.log", self.name));
        let output = File::create(&log)?;
        let mut words: Vec<&OsStr> = self.pinning.iter().map(OsStr::new).collect();
        if find_program("setpriv").is_some() {
            words.extend(["setpriv", "--pdeathsig", "TERM"].map(OsStr::new));
        }
        words.push(self.program.as_os_str());
        words.extend(self.arguments);

        let started = Instant::now();
        let process = clean_command(words[0], self.environment)
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", self.program.display()))?;
        Ok(Child {
            name: self.name.to_owned(),
            process,
            log,
            started,
        })
    }
}

/// Programs that take whatever processor time nobody else wants, one for each processor.
///
/// A virtual machine's idle processor is given back to its host, and getting it again takes longer than a proxy does:
/// with one connection, that is what would be measured. The scheduler lets anything else go first at once.
pub fn keep_awake(directory: &Path) -> Result<Vec<Child>, BoxError> {
    (0..processors())
        .map(|processor| {
            Start {
                name: &format!("awake-{processor}"),
                program: Path::new("chrt"),
                arguments: ["--idle", "0", "sh", "-c", "while :; do :; done"]
                    .map(OsStr::new)
                    .into(),
                environment: &BTreeMap::new(),
                pinning: &["taskset", "-c", &processor.to_string()],
                directory,
            }
            .spawn()
        })
        .collect()
}

/// A command that sees `environment`, PATH and HOME alone.
pub fn clean_command(program: &OsStr, environment: &BTreeMap<String, String>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(environment);
    for kept in ["PATH", "HOME"] {
        if let Some(value) = env::var_os(kept) {
            command.env(kept, value);
        }
    }
    command
}

impl Child {
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Its status, once it has ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().ok().flatten()
    }

    /// Says how `name` failed, with the last lines it wrote.
    pub fn failure(&self, what: &str) -> BoxError {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(20)..].join("\n  ");
        format!("{} {what}; its last lines were:\n  {last}", self.name).into()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.ended().is_some() {
            return;
        }
        let family = family(self.pid());
        signal("TERM", self.pid());
        let patience = Instant::now() + STOP_PATIENCE;
        while self.ended().is_none() {
            if Instant::now() > patience {
                eprintln!("{} does not stop; killing it", self.name);
                // Its own children first: once it is gone, nobody would tell them. It cannot start others meanwhile
                // that matter, because nothing calls it any more.
                family[1..].iter().for_each(|child| signal("KILL", *child));
                if self.process.kill().and_then(|()| self.process.wait()).is_err() {
                    eprintln!("{} cannot be killed", self.name);
                }
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The standard library can only kill; asking politely goes through the shell's own `kill`.
fn signal(name: &str, pid: u32) {
    let sent = Command::new("sh")
        .args(["-c", "kill -$0 $1 2>/dev/null", name, &pid.to_string()])
        .status();
    if let Err(error) = sent {
        eprintln!("cannot send SIG{name} to {pid}: {error}");
    }
}

/// Where `name` is, in PATH or where Debian keeps daemons.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// `count` loopback ports that were free a moment ago, all different.
pub fn free_ports<const COUNT: usize>() -> io::Result<[u16; COUNT]> {
    let mut listeners = Vec::new();
    let mut ports = [0; COUNT];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        *port = listener.local_addr()?.port();
        // Held until all are chosen.
        listeners.push(listener);
    }
    Ok(ports)
}

/// A directory of our own, removed with everything in it when dropped.
pub struct ScratchDir(PathBuf);

impl ScratchDir {
    pub fn create() -> io::Result<Self> {
        let path = env::temp_dir().join(format!("bonito-load-{}", process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Memory of a process and all its descendants, in bytes.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Memory {
    pub resident_bytes: u64,
    /// The sum of each process's own peak, which is at least the peak of the sum.
    pub peak_bytes: u64,
}

pub fn memory(pid: u32) -> Memory {
    let mut memory = Memory::default();
    for member in family(pid) {
        let status = fs::read_to_string(format!("/proc/{member}/status")).unwrap_or_default();
        memory.resident_bytes += status_kib(&status, "VmRSS:") * KIB;
        memory.peak_bytes += status_kib(&status, "VmHWM:") * KIB;
    }
    memory
}

/// Processor time since a process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CpuTime {
    ticks: u64,
}

impl CpuTime {
    /// Of a process and all its descendants.
    pub fn of_family(pid: u32) -> Self {
        let ticks = family(pid)
            .into_iter()
            .filter_map(read_stat)
            .map(|stat| stat.cpu_ticks)
            .sum();
        Self { ticks }
    }

    /// Of the whole machine.
    pub fn of_machine() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let fields: Vec<u64> = stat
            .lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(1)
            .filter_map(|field| field.parse().ok())
            .collect();
        // user nice system idle iowait irq softirq steal; guest time is already in user's.
        let ticks = [0, 1, 2, 5, 6, 7].iter().filter_map(|index| fields.get(*index)).sum();
        Self { ticks }
    }

    pub fn as_secs_f64(self) -> f64 {
        self.ticks as f64 / TICKS_PER_SECOND as f64
    }
}

impl Add for CpuTime {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            ticks: self.ticks + other.ticks,
        }
    }
}

impl Sub for CpuTime {
    type Output = Self;

    /// Nothing below zero: the kernel's counters of one moment are not exactly of one moment.
    fn sub(self, earlier: Self) -> Self {
        Self {
            ticks: self.ticks.saturating_sub(earlier.ticks),
        }
    }
}

/// Processors of the machine, those this process may not use included.
pub fn processors() -> usize {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let numbered = |line: &&str| {
        line.strip_prefix("cpu")
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    stat.lines().filter(numbered).count().max(1)
}

/// The fields of `/proc/PID/stat` this file needs.
struct Stat {
    parent: u32,
    cpu_ticks: u64,
}

fn read_stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(line: &str) -> Option<Stat> {
    // The second field is the program's name in parentheses and may itself contain anything.
    let fields: Vec<&str> = line.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        cpu_ticks: number(11)? + number(12)?,
    })
}

/// `pid` first, then its descendants.
fn family(pid: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|member| Some((member, read_stat(member)?.parent)))
        .collect();
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(child, _)| *child));
        next += 1;
    }
    family
}

fn status_kib(status: &str, field: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|kib| kib.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let line = "42 (a (b) c) S 7 42 42 0 -1 4194560 100 0 0 0 30 12 0 0 20 0 1 0 500 0 0";
        let stat = parse_stat(line).unwrap();
        assert_eq!((stat.parent, stat.cpu_ticks), (7, 42));
    }

    #[test]
    fn memory_is_read_in_kib() {
        assert_eq!(status_kib("VmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\n", "VmRSS:"), 1024);
        assert_eq!(status_kib("", "VmRSS:"), 0);
    }

    #[test]
    fn a_dropped_child_is_gone() {
        let directory = env::temp_dir();
        let child = Start {
            name: "bonito-load-test-sleeper",
            program: Path::new("sleep"),
            arguments: vec![OsStr::new("600")],
            environment: &BTreeMap::new(),
            pinning: &[],
            directory: &directory,
        }
        .spawn()
        .unwrap();
        let pid = child.pid();
        assert!(read_stat(pid).is_some());
        drop(child);
        assert!(read_stat(pid).is_none());
        fs::remove_file(directory.join("bonito-load-test-sleeper.log")).unwrap();
    }
}
