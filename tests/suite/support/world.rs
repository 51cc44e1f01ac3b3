//! `World`: a gateway as a process of its own with everything it may depend on (Postgres, Redis, Vault, two providers),
//! each behind something that can fail.

use std::net::SocketAddr;
use std::path::PathBuf;

use memchr::memmem;
use serde_json::{Value, json};

use super::database::on_postgres;
use super::fault_proxy::{Fault, FaultProxy};
use super::process::{Installation, Process};
use super::redis::PrivateRedis;
use super::vault::{ROOT, VaultDouble};
use super::{Script, ScriptedProvider};

/// The provider's key, which only Vault has.
const IN_VAULT: &str = "sk-canary-that-only-vault-has";

/// A gateway with Postgres, Redis, Vault and two providers of `mock-chat`, each behind something that can fail.
pub struct World {
    /// Both providers.
    pub provider: ScriptedProvider,
    /// The way to Postgres.
    pub database: FaultProxy,
    /// Redis, which has a way of its own.
    pub redis: PrivateRedis,
    /// The way to Vault.
    pub vault: FaultProxy,
    /// The gateway.
    pub installation: Installation,
    /// The ways to the providers.
    pub ways: [FaultProxy; 2],
    _vault: VaultDouble,
}

impl World {
    /// `None` where the suite runs without Postgres, or there is no Redis to start.
    pub async fn start() -> Option<Self> {
        if !on_postgres() {
            return None;
        }
        let redis = PrivateRedis::start().await?;
        let provider = ScriptedProvider::start().await;
        let lets_in = format!("Bearer {IN_VAULT}");
        provider.always(Script::faithful().unless(move |received| {
            (received.header("authorization") != Some(lets_in.as_str())).then(Script::unauthorized)
        }));
        let mut installation = Installation::new(&provider).await;
        let (database, url) = behind_a_proxy(installation.database_url()).await;
        let double = VaultDouble::start().await;
        for id in ["openai", "second"] {
            double.put("secret", &format!("providers/{id}"), &json!({ "api_key": IN_VAULT }));
        }
        let vault = FaultProxy::start(double.address().trim_start_matches("http://").parse().unwrap()).await;
        let ways = [
            FaultProxy::start(provider.address()).await,
            FaultProxy::start(provider.address()).await,
        ];
        let of = |id: &str, proxy: &FaultProxy| {
            format!(
                "[providers.{id}]\nbase_url = \"http://{}/v1\"\n[[providers.{id}.deployments]]\nmodel = \"mock-chat\"\n\
                 name = \"mock-chat\"\ninput_usd = \"2.5\"\noutput_usd = \"10\"\ncache_read_usd = \"1.25\"\n",
                proxy.address()
            )
        };
        installation.configure(&(of("openai", &ways[0]) + &of("second", &ways[1])));
        installation.set("DATABASE_URL", url);
        installation.set("BONITO_REDIS_URL", redis.url());
        installation.set("VAULT_ADDR", format!("http://{}", vault.address()));
        installation.set("VAULT_TOKEN", ROOT);
        installation.set("BONITO_KEYS_POLL_MS", 200);
        installation.set("BONITO_SNAPSHOT_WRITE_MS", 50);
        installation.set("BONITO_BUDGETS_WAIT_MS", 300);
        // Whoever cannot reach the database gives up soon enough for a test.
        installation.set("BONITO_DATABASE_ACQUIRE_TIMEOUT_MS", 2_000);
        Some(Self {
            provider,
            database,
            redis,
            vault,
            installation,
            ways,
            _vault: double,
        })
    }

    /// From now on Postgres, Redis and Vault do this.
    pub fn all_are(&self, fault: Fault) {
        self.database.set(fault);
        self.redis.proxy.set(fault);
        self.vault.set(fault);
    }

    /// A key: its id, and its secret.
    pub async fn new_key(&self, name: &str) -> (String, String) {
        let arguments = ["key", "create", "--name", name, "--rate-limit", "10000", "--json"];
        let made: Value = serde_json::from_str(&self.installation.command(&arguments).await).unwrap();
        let text = |member: &str| made[member].as_str().unwrap().to_owned();
        (text("id"), text("key"))
    }

    /// The last good snapshot's file.
    pub fn file(&self) -> PathBuf {
        self.installation.dir().join("data").join("snapshot")
    }

    /// Nothing that is secret can be read in the file, and nobody else may read it at all.
    pub fn the_file_says_nothing(&self, secrets: &[&str]) {
        let bytes = std::fs::read(self.file()).unwrap();
        for secret in secrets.iter().copied().chain([IN_VAULT, "mock-chat", "default"]) {
            assert!(memmem::find(&bytes, secret.as_bytes()).is_none(), "{secret}");
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(self.file()).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }
}

/// A proxy before the server of a URL, and the URL by way of it.
pub async fn behind_a_proxy(url: &str) -> (FaultProxy, String) {
    let server = url.split('@').nth(1).and_then(|rest| rest.split('/').next());
    let server = server.expect("the URL names a server");
    let address: SocketAddr = server.parse().expect("an address and a port");
    let proxy = FaultProxy::start(address).await;
    let through = url.replace(server, &proxy.address().to_string());
    (proxy, through)
}

/// What `/readyz` answers.
pub async fn readiness(process: &Process) -> (u16, Value) {
    let answer = reqwest::get(format!("{}/readyz", process.operations))
        .await
        .expect("operations answer");
    (answer.status().as_u16(), answer.json().await.expect("it is JSON"))
}

/// What it says of one component; empty where it says nothing.
pub fn about<'r>(readiness: &'r Value, component: &str) -> &'r str {
    let mut all = readiness["degraded"].as_array().expect("a list").iter();
    let found = all.find(|degraded| degraded["component"] == component);
    found.map_or("", |degraded| degraded["reason"].as_str().expect("a text"))
}
