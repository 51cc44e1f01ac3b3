//! The fuzz targets, for a moment each: mutations of the corpus, the same ones every time.
//!
//! `just fuzz` runs the same targets for as long as one likes, led by what the code does with its input.

use std::path::Path;
use std::time::{Duration, Instant};

#[path = "../fuzz/src/seeds.rs"]
mod seeds;
#[path = "../fuzz/src/targets.rs"]
mod targets;

use targets::{TARGETS, Target};

/// Mutations of each target; a debug build makes some thousand a second.
const ROUNDS: u32 = 1_500;
/// A slow machine makes fewer.
const ENOUGH: Duration = Duration::from_secs(4);
/// The largest input that is made.
const MAX_BYTES: usize = 16 * 1024;

/// Texts that readers have opinions about.
const TOKENS: [&[u8]; 28] = [
    b"null",
    b"true",
    b"{}",
    b"[]",
    b"\"\"",
    b"-1",
    b"0",
    b"1e999",
    b"99999999999999999999",
    b"\\u0000",
    b"\\ud800",
    b"\xff\xfe",
    b"\xc3",
    b"\n\n",
    b"\r\n",
    b"data: [DONE]\n\n",
    b"data: ",
    b"event: error\n",
    b"\"error\":{}",
    b"\"index\":4294967295",
    b"\"usage\":null",
    b"\"choices\":[]",
    b"[[[[[[[[",
    b"%zz",
    b"=",
    b"*",
    b"../",
    b"\0\0\0\x10",
];

/// Numbers that look random and are the same every time.
struct Sequence(u64);

impl Sequence {
    fn next(&mut self) -> usize {
        // Splitmix, after Steele, Lea and Flood, "Fast splittable pseudorandom number generators".
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) as usize
    }

    fn below(&mut self, bound: usize) -> usize {
        self.next() % bound.max(1)
    }
}

/// A seed with a few changes.
fn mutated(seeds: &[Vec<u8>], random: &mut Sequence) -> Vec<u8> {
    let mut data = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(data.len() + 1);
        let end = (at + 1 + random.below(40)).min(data.len());
        match random.below(8) {
            0 if at < data.len() => data[at] ^= 1 << random.below(8),
            1 if at < data.len() => data[at] = random.next() as u8,
            2 | 3 => drop(data.splice(at..at, TOKENS[random.below(TOKENS.len())].iter().copied())),
            4 => drop(data.drain(at.min(end)..end)),
            5 => {
                let again = data[at.min(end)..end].to_vec();
                data.splice(at..at, again);
            }
            6 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                data.truncate(at);
                data.extend_from_slice(&other[from..]);
            }
            _ => data.truncate(at),
        }
    }
    data.truncate(MAX_BYTES);
    data
}

fn run(name: &str, target: Target) {
    let seeds = seeds::of(Path::new(env!("CARGO_MANIFEST_DIR")), name);
    assert!(!seeds.is_empty(), "{name} has no corpus");
    seeds.iter().for_each(|seed| target(seed));
    let mut random = Sequence(u64::from(crc32fast::hash(name.as_bytes())));
    let begun = Instant::now();
    for round in 0..ROUNDS {
        let data = mutated(&seeds, &mut random);
        let result = std::panic::catch_unwind(|| target(&data));
        assert!(
            result.is_ok(),
            "{name} fails in round {round} on {:?}",
            String::from_utf8_lossy(&data)
        );
        if begun.elapsed() > ENOUGH {
            break;
        }
    }
}

/// Tests of the same shape, so that each target is one of its own and they run beside each other.
macro_rules! fuzzed {
    ($($test:ident: $target:literal),+ $(,)?) => {
        $(
            #[test]
            fn $test() {
                let (name, target) = TARGETS.iter().find(|(name, _)| *name == $target).unwrap();
                run(name, *target);
            }
        )+

        #[test]
        fn every_target_is_tried() {
            let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, [$($target),+]);
        }
    };
}

fuzzed! {
    chats_of_openais_dialect: "chat_openai",
    chats_of_anthropics_dialect: "chat_anthropic",
    legacy_completions: "completion",
    embeddings: "embedding",
    answers_of_openai: "answer_openai",
    answers_of_azure: "answer_azure",
    answers_of_anthropic: "answer_anthropic",
    answers_of_bedrock: "answer_aws",
    answers_of_vertex: "answer_gcp",
    answers_of_gemini: "answer_gemini",
    answers_of_compatible_providers: "answer_compatible",
    failures_of_every_provider: "failure",
    server_sent_events: "sse",
    data_urls: "data_url",
    waits: "retry_after",
    scopes: "scope",
    configurations: "configuration",
    credentials: "credential",
    addresses_to_fetch: "fetch_url",
    keys: "api_key",
}
