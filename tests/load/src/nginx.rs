//! nginx as a plain reverse proxy: the yardstick.
//!
//! It is close to the least a proxy can cost, so "a third of nginx" says more about a gateway than a bare number from
//! one machine. It gets what makes it fast: kept-alive connections to the upstream, no access log, and no buffering
//! for streams, which live under a path of their own for that reason.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::BoxError;
use crate::process::{Child, Pinning, Start, find_program};

/// Where the location for streams begins; the rest of the path is the upstream's.
pub const STREAM_PREFIX: &str = "/stream";

/// Starts nginx on `port` in front of the upstream on `upstream_port`, with everything it writes under `directory`.
pub fn start(port: u16, upstream_port: u16, directory: &Path, pinning: Pinning) -> Result<Child, BoxError> {
    let program = find_program("nginx").ok_or("nginx is not installed; it is the yardstick of this table")?;
    let prefix = directory.join("nginx");
    fs::create_dir(&prefix)?;
    let configuration = prefix.join("nginx.conf");
    fs::write(&configuration, render(port, upstream_port, pinning)?)?;
    let error_log = prefix.join("error.log");
    Start {
        name: "nginx",
        program: &program,
        arguments: [
            OsStr::new("-p"),
            prefix.as_os_str(),
            OsStr::new("-c"),
            configuration.as_os_str(),
            // Before the configuration is read, nginx would write to a log only root may open.
            OsStr::new("-e"),
            error_log.as_os_str(),
        ]
        .into(),
        environment: &BTreeMap::new(),
        pinning: pinning.of_test_subject(),
        directory,
    }
    .spawn()
}

fn render(port: u16, upstream_port: u16, pinning: Pinning) -> Result<String, BoxError> {
    // `auto` counts the machine's processors, not those it is pinned to.
    let workers = if pinning == Pinning::Off { "auto" } else { "1" };
    // Started by root, nginx would give its workers to a user who cannot enter our directory.
    let user = match current_user()?.as_str() {
        "root" => "user root;",
        _ => "",
    };
    Ok(format!(
        "daemon off;
{user}
worker_processes {workers};
pid nginx.pid;
error_log error.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    upstream mock {{
        server 127.0.0.1:{upstream_port};
        keepalive 256;
        keepalive_requests 1000000000;
    }}
    server {{
        # A queue of connections for each worker, so that they share them evenly.
        listen 127.0.0.1:{port} reuseport;
        proxy_http_version 1.1;
        proxy_set_header Connection \"\";
        location / {{
            proxy_pass http://mock;
        }}
        location {STREAM_PREFIX}/ {{
            proxy_pass http://mock/;
            proxy_buffering off;
        }}
    }}
}}
"
    ))
}

fn current_user() -> Result<String, BoxError> {
    let output = Command::new("id").arg("-un").output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
