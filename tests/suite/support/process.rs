//! The binary as a process of its own, to be killed: an installation in a directory, and its starts.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use bonito::domain::ids::OrganizationId;
use bonito::store::ledger::RequestRow;
use bonito::store::organizations::FIRST_SLUG;
use bonito::store::{Store, StoreOptions};
use sea_orm::{ConnectOptions, ConnectionTrait as _, DatabaseConnection};
use tokio::process::{Child, Command};

use super::database::{self, on_postgres};
use super::gateway::MASTER_KEY;
use super::ports;
use super::provider::ScriptedProvider;

/// How long a start or a stop may take at most.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a gateway lives, with a provider whose one model is `mock-chat`.
pub struct Installation {
    dir: tempfile::TempDir,
    database: String,
    port: u16,
    /// Ports of further replicas, by their numbers.
    ports: Vec<u16>,
    env: Vec<(String, String)>,
    /// The first key's secret, after the first start.
    pub key: String,
    /// Whether the first key keeps the limit that it was made with.
    pub first_key_as_made: bool,
}

/// A gateway that runs.
pub struct Process {
    child: Child,
    /// Where the API is.
    pub api: String,
    /// Where operations are.
    pub operations: String,
    /// From the start of the process until it was ready.
    pub came_up_after: Duration,
}

/// Holds the ledger's tables, so that the database takes no rows until this is let go.
pub struct Outage(DatabaseConnection);

impl Installation {
    /// One that was never started.
    pub async fn new(provider: &ScriptedProvider) -> Self {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let database = database::fresh(dir.path()).await;
        let base_url = provider.base_url();
        let file = format!(
            "[providers.openai]\nbase_url = {base_url:?}\napi_key_env = \"TEST_KEY\"\n\
             [[providers.openai.deployments]]\nmodel = \"mock-chat\"\nname = \"mock-chat\"\n\
             input_usd = \"2.5\"\noutput_usd = \"10\"\ncache_read_usd = \"1.25\"\n"
        );
        std::fs::write(dir.path().join("bonito.toml"), file).expect("the file can be written");
        Self {
            dir,
            database,
            port: ports::kept_free(),
            ports: Vec::new(),
            env: Vec::new(),
            key: String::new(),
            first_key_as_made: false,
        }
    }

    /// One setting, as a variable.
    pub fn set(&mut self, variable: &str, value: impl ToString) {
        self.env.push((variable.to_owned(), value.to_string()));
    }

    /// Further lines of its configuration file.
    pub fn add_lines(&self, lines: &str) {
        let path = self.dir().join("bonito.toml");
        let file = std::fs::read_to_string(&path).expect("it was written");
        std::fs::write(path, format!("{file}\n{lines}\n")).expect("the file can be written");
    }

    /// Another configuration file.
    pub fn configure(&self, file: &str) {
        std::fs::write(self.dir().join("bonito.toml"), file).expect("the file can be written");
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The journal's directory, unless one was set.
    pub fn journal(&self) -> PathBuf {
        self.dir().join("data").join("journal")
    }

    /// Starts it, and returns when it is ready.
    pub async fn start(&mut self) -> Process {
        let process = self.run("serve", self.port, "data").await;
        self.first_time().await;
        process
    }

    /// Starts one of several replicas on the one database, each with a directory of its own and always at the same
    /// address, and returns when it is ready.
    pub async fn start_replica(&mut self, number: usize) -> Process {
        while self.ports.len() <= number {
            self.ports.push(ports::kept_free());
        }
        let process = self.run("serve", self.ports[number], &format!("data-{number}")).await;
        self.first_time().await;
        process
    }

    async fn first_time(&mut self) {
        if self.key.is_empty() {
            self.key = self.first_key().await;
            if !self.first_key_as_made {
                // What is tested here is not the limit of a new key.
                self.sql("UPDATE gateway_keys SET rate_limit = 1000000").await;
            }
        }
    }

    /// Starts a process that runs jobs and serves nobody, and returns when it is ready. Several may run at a time.
    pub async fn start_worker(&self) -> Process {
        self.run("work", ports::kept_free(), "data").await
    }

    /// Runs one command of the binary on the real database, whatever stands in front of it, and gives what it printed.
    pub async fn command(&self, arguments: &[&str]) -> String {
        let mut command = self.binary(ports::kept_free(), "data");
        let output = command
            .args(arguments)
            .env("DATABASE_URL", &self.database)
            .output()
            .await
            .expect("the binary starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts one command of the binary, to be killed.
    pub fn begin(&self, argument: &str) -> Child {
        let mut command = self.binary(ports::kept_free(), "data");
        command.arg(argument).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("the binary starts")
    }

    /// Starts it where it cannot start, and gives what it said.
    pub async fn fails_to_start(&self) -> String {
        let mut command = self.binary(self.port, "data");
        let ended = tokio::time::timeout(PATIENCE, command.arg("serve").output()).await;
        let output = ended.expect("it gives up").expect("the binary starts");
        assert!(!output.status.success(), "it started");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// The binary with its settings, and nothing said of what to do.
    fn binary(&self, port: u16, data: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bonito"));
        command.args(["--config", "bonito.toml"]);
        command.current_dir(self.dir()).env_clear().kill_on_drop(true);
        command
            .env("BONITO_SERVER_LISTEN", format!("127.0.0.1:{port}"))
            .env("BONITO_OPERATIONS_LISTEN", format!("127.0.0.2:{port}"))
            .env("BONITO_DATA_DIR", data)
            .env("BONITO_MASTER_KEY", MASTER_KEY)
            .env("DATABASE_URL", &self.database)
            .env("TEST_KEY", "sk-secret-of-openai")
            // Whatever else the machine does, requests are not turned away for it here.
            .env("BONITO_OVERLOAD_LAG_MS", "0")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    async fn run(&self, what: &str, port: u16, data: &str) -> Process {
        let file = |name: &str| -> File {
            let mut options = OpenOptions::new();
            let opened = options.create(true).append(true).open(self.dir().join(name));
            opened.expect("the file can be written")
        };
        let (api, operations) = (format!("127.0.0.1:{port}"), format!("127.0.0.2:{port}"));
        let mut command = self.binary(port, data);
        command.arg(what);
        if what == "work" {
            // No two share a journal, and there may be many.
            command.env("BONITO_JOURNAL_DIR", format!("data/journal-of-{port}"));
        }
        command.stdout(file("stdout")).stderr(file("stderr"));
        let began = Instant::now();
        let mut child = command.spawn().expect("the binary starts");
        let ready = format!("http://{operations}/readyz");
        loop {
            if reqwest::get(&ready).await.is_ok_and(|answer| answer.status() == 200) {
                break;
            }
            let ended = child.try_wait().expect("it can be asked");
            assert!(
                ended.is_none() && began.elapsed() < PATIENCE,
                "it does not come up: {}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Process {
            child,
            api: format!("http://{api}"),
            operations: format!("http://{operations}"),
            came_up_after: began.elapsed(),
        }
    }

    async fn first_key(&self) -> String {
        let began = Instant::now();
        loop {
            let printed = std::fs::read_to_string(self.dir().join("stdout")).expect("it can be read");
            let key = printed
                .split_whitespace()
                .find(|word| word.starts_with("bn-") && word.len() > 20);
            if let Some(key) = key {
                return key.to_owned();
            }
            assert!(began.elapsed() < PATIENCE, "no key is printed: {printed}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Its database's address.
    pub fn database_url(&self) -> &str {
        &self.database
    }

    /// What it printed so far.
    pub fn printed(&self) -> String {
        std::fs::read_to_string(self.dir().join("stdout")).unwrap_or_default()
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir().join("stderr")).unwrap_or_default()
    }

    /// Its database, past the gateway.
    pub async fn store(&self) -> (Store, OrganizationId) {
        let options = StoreOptions {
            url: self.database.clone(),
            max_connections: 2,
            min_connections: 0,
            statement_timeout: None,
            acquire_timeout: PATIENCE,
            lazy: false,
        };
        let store = Store::connect(&options).await.expect("the database can be reached");
        let organization = store.organization_by_slug(FIRST_SLUG).await.expect("it answers");
        (store, organization.expect("the first start made it"))
    }

    /// Every row of the ledger.
    pub async fn rows(&self) -> Vec<RequestRow> {
        let (store, organization) = self.store().await;
        let rows = store.all_requests(organization).await.expect("the database answers");
        store.close().await;
        rows
    }

    async fn connection(&self) -> DatabaseConnection {
        let mut options = ConnectOptions::new(self.database.clone());
        options.max_connections(1).sqlx_logging(false);
        sea_orm::Database::connect(options)
            .await
            .expect("the database can be reached")
    }

    /// Runs statements in its database, past the gateway.
    pub async fn sql(&self, statement: &str) {
        let database = self.connection().await;
        database
            .execute_unprepared(statement)
            .await
            .expect("the statement runs");
        database.close().await.expect("the connection closes");
    }

    /// From now on the database takes no rows.
    pub async fn outage(&self) -> Outage {
        let database = self.connection().await;
        let statement = if on_postgres() {
            "BEGIN; LOCK TABLE gateway_requests IN EXCLUSIVE MODE"
        } else {
            "BEGIN IMMEDIATE"
        };
        let began = Instant::now();
        while let Err(error) = database.execute_unprepared(statement).await {
            assert!(began.elapsed() < PATIENCE, "{error}");
        }
        Outage(database)
    }
}

impl Outage {
    /// The database is well again.
    pub async fn end(self) {
        self.0.execute_unprepared("ROLLBACK").await.expect("it ends");
        self.0.close().await.expect("the connection closes");
    }
}

impl Process {
    /// Kills it with SIGKILL, in the middle of whatever it does.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("it can be killed");
    }

    /// Stops it as an operator would, and gives its exit code.
    pub async fn terminate(mut self) -> i32 {
        let id = self.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status().await;
        assert!(sent.expect("kill runs").success());
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        ended
            .expect("it stops")
            .expect("it can be waited for")
            .code()
            .unwrap_or(-1)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// The bytes of memory it has.
    pub fn resident_bytes(&self) -> u64 {
        let pages = std::fs::read_to_string(format!("/proc/{}/statm", self.id())).expect("it runs");
        pages
            .split(' ')
            .nth(1)
            .and_then(|pages| pages.parse::<u64>().ok())
            .expect("a number")
            * 4_096
    }

    async fn metrics(&self) -> String {
        let answer = reqwest::get(format!("{}/metrics", self.operations)).await;
        answer.expect("it answers").text().await.expect("it answers")
    }

    /// The value of a metric, summed over its labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.metrics().await;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let values = lines.filter(|line| line.split(['{', ' ']).next() == Some(name));
        values
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// The value of one series, by its name with its labels; 0 where there is none.
    pub async fn series(&self, name: &str) -> f64 {
        let text = self.metrics().await;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or(0.0)
    }

    /// Waits until a metric has a value.
    pub async fn until_metric(&self, name: &str, patience: Duration, holds: impl Fn(f64) -> bool) {
        let began = Instant::now();
        loop {
            let value = self.metric(name).await;
            if holds(value) {
                return;
            }
            assert!(began.elapsed() < patience, "{name} stays at {value}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
