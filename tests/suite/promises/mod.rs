//! The promises of `docs/promises.md`, each with its test.
//!
//! In the everyday suite they run for seconds. With `BONITO_PROMISES=full`, which `just promises` sets, they run at full
//! size and print a line with their figures for the table.

mod addresses;
mod chaos;
mod credentials;
mod durability;
mod history;
mod keys;
mod limits;
mod load;
mod money;
mod origins;
mod overload;
mod panics;
mod restart;
mod revocation;
mod secrecy;
mod snapshot;
mod upgrade;
mod upstreams;
mod webhooks;

use std::time::Duration;

/// Whether to run at full size.
pub fn full() -> bool {
    std::env::var("BONITO_PROMISES").is_ok_and(|size| size == "full")
}

/// A number that may be given for a full run, such as `BONITO_PROMISES_CYCLES`.
pub fn size(variable: &str, everyday: u64, at_full_size: u64) -> u64 {
    let given = std::env::var(variable).ok().and_then(|text| text.parse().ok());
    given.unwrap_or(if full() { at_full_size } else { everyday })
}

/// Says what came of a promise.
#[expect(clippy::print_stdout, reason = "the figures are what a full run is for")]
pub fn figures(promise: &str, said: impl std::fmt::Display) {
    println!("PROMISE {promise}: {said}");
}

/// What so many percent of the durations do not exceed.
fn percentile(took: &[Duration], percent: usize) -> Duration {
    let mut took = took.to_vec();
    took.sort_unstable();
    took[(took.len() - 1) * percent / 100]
}
