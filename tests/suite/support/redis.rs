//! A Redis of one's own, which a test may kill, start again, fill up and empty, behind a proxy that can fail as networks do.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use super::fault_proxy::FaultProxy;

/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The server.
pub struct PrivateRedis {
    server: Option<Child>,
    dir: tempfile::TempDir,
    address: SocketAddr,
    /// What stands between it and the gateways.
    pub proxy: FaultProxy,
}

impl PrivateRedis {
    /// Starts one; `None` where Redis is not installed and the suite was not told that it should be.
    pub async fn start() -> Option<Self> {
        let installed = Command::new("redis-server")
            .arg("--version")
            .stdout(Stdio::null())
            .status()
            .await
            .is_ok_and(|status| status.success());
        if !installed {
            assert!(
                std::env::var_os("BONITO_TEST_REDIS_URL").is_none(),
                "redis-server must be installed where BONITO_TEST_REDIS_URL is set"
            );
            return None;
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        drop(listener);
        let mut redis = Self {
            server: None,
            dir: tempfile::tempdir().expect("a directory can be made"),
            address,
            proxy: FaultProxy::start(address).await,
        };
        redis.revive().await;
        Some(redis)
    }

    /// Its address, by way of the proxy.
    pub fn url(&self) -> String {
        format!("redis://{}", self.proxy.address())
    }

    /// Kills it. What it knew is gone.
    pub async fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill().await;
        }
    }

    /// Starts it again, empty.
    pub async fn revive(&mut self) {
        let server = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &self.address.port().to_string()])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("redis-server starts");
        self.server = Some(server);
        let up = async {
            while self.ask(&["PING"]).await != "PONG" {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, up).await.expect("redis comes up");
    }

    /// Everything it holds, as it would write it to a disk, without compression.
    pub async fn dump(&self) -> Vec<u8> {
        assert_eq!(self.ask(&["CONFIG", "SET", "rdbcompression", "no"]).await, "OK");
        assert_eq!(self.ask(&["SAVE"]).await, "OK");
        std::fs::read(self.dir.path().join("dump.rdb")).expect("it was written")
    }

    /// Says a command, past the proxy, and gives the answer as redis-cli prints it.
    pub async fn ask(&self, command: &[&str]) -> String {
        if TcpStream::connect(self.address).await.is_err() {
            return String::new();
        }
        let output = Command::new("redis-cli")
            .args(["-h", "127.0.0.1", "-p", &self.address.port().to_string()])
            .args(command)
            .output()
            .await
            .expect("redis-cli runs");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}
