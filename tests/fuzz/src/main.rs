//! One target under libFuzzer: the one that `BONITO_FUZZ_TARGET` names. `tests/fuzz/run` builds and starts it.

#![no_main]

mod targets;

use std::sync::LazyLock;

static TARGET: LazyLock<targets::Target> = LazyLock::new(|| {
    let name = std::env::var("BONITO_FUZZ_TARGET").unwrap_or_default();
    let known: Vec<&str> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
    match targets::TARGETS.iter().find(|(other, _)| *other == name) {
        Some((_, target)) => *target,
        None => panic!("BONITO_FUZZ_TARGET must be one of {}", known.join(", ")),
    }
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET(data));
