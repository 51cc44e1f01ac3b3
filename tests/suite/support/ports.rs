//! Ports for processes that are killed and started again at the same address.
//!
//! While such a process is down, nobody else may be found at its port: neither another test, which the system could give
//! the port if it lay in the range it gives out itself (32768 and up on Linux), nor a caller, whose own end of a connection
//! would get the port and then be connected to itself.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Where the search begins, and how many ports are searched: all below what the system gives out itself.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A port that nobody listens at, at `127.0.0.1` and `127.0.0.2`, and that no other call in this process gives.
pub fn kept_free() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = u16::try_from(std::process::id() % u32::from(COUNT)).expect("it is below the count");
    for _ in 0..COUNT {
        let offset = u32::from(begin) + u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = FIRST + u16::try_from(offset % u32::from(COUNT)).expect("it is below the count");
        if [[127, 0, 0, 1], [127, 0, 0, 2]]
            .iter()
            .all(|address| TcpListener::bind((std::net::Ipv4Addr::from(*address), port)).is_ok())
        {
            return port;
        }
    }
    panic!("no port is free from {FIRST} on");
}
