//! Hashes that say the same on every replica and after every restart, for canaries, sessions and shares.
//!
//! Not for secrets: whoever knows the input knows the output.

/// A hash of a text, salted by another one.
pub fn of(salt: &str, text: &str) -> u64 {
    // FNV-1a over both, with a byte between them that is in no UTF-8 text, and a finisher that spreads it over all bits.
    let bytes = salt.bytes().chain([0xff]).chain(text.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    finish(hash)
}

/// A hash of a number and a text.
pub fn seeded(seed: u64, text: &str) -> u64 {
    finish(of("", text) ^ finish(seed.wrapping_add(0x9e37_79b9_7f4a_7c15)))
}

/// Seeds of requests out of their ids, which are random in their lower half.
pub fn seed_of(id: u128) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "both halves go in")]
    let (low, high) = (id as u64, (id >> 64) as u64);
    finish(low ^ finish(high))
}

/// Whether a share of all texts contains this one. `percent` is in hundredths of a percent, 0 to 10,000.
///
/// A larger share contains every text that a smaller one with the same salt contains.
pub fn is_within(salt: &str, text: &str, basis_points: u32) -> bool {
    of(salt, text) % 10_000 < u64::from(basis_points)
}

/// The place of something among others that share a key in proportion to their weights; the lowest comes first.
///
/// Weighted rendezvous hashing: whoever leaves or joins moves only its own keys. `-ln(u) / w` for a uniform `u` is
/// exponentially distributed with rate `w`, so each is the lowest with a probability of its share of the weights.
pub fn rendezvous(hash: u64, weight: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "53 bits are plenty of a uniform number")]
    let uniform = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -uniform.ln() / weight.max(1e-9)
}

/// The finisher of SplitMix64.
fn finish(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_hashed_yesterday_hashes_alike_today() {
        // Canaries and sessions depend on these staying as they are.
        assert_eq!(of("canary", "req_1"), 1_307_664_002_593_517_012);
        assert_ne!(of("a", "b"), of("ab", ""));
    }

    #[test]
    fn a_share_is_what_it_says_and_grows_without_losing_anybody() {
        let names: Vec<String> = (0..20_000).map(|n| format!("request {n}")).collect();
        for basis_points in [0, 100, 1_000, 5_000, 10_000] {
            let within = names
                .iter()
                .filter(|name| is_within("canary", name, basis_points))
                .count();
            let expected = names.len() * basis_points as usize / 10_000;
            assert!(
                within.abs_diff(expected) <= names.len() / 100,
                "{basis_points}: {within}"
            );
        }
        let small = |name: &&String| is_within("canary", name, 1_000);
        assert!(names.iter().filter(small).all(|name| is_within("canary", name, 2_000)));
    }

    #[test]
    fn keys_are_shared_by_weight_and_only_those_of_a_leaver_move() {
        let choose = |key: u64, all: &[(&str, f64)]| {
            let place = |&(name, weight): &(&str, f64)| rendezvous(seeded(key, name), weight);
            all.iter()
                .min_by(|a, b| place(a).total_cmp(&place(b)))
                .unwrap()
                .0
                .to_owned()
        };
        let all = [("a", 1.0), ("b", 3.0), ("c", 6.0)];
        let mut counts = [0; 3];
        for key in 0..10_000 {
            let chosen = choose(key, &all);
            counts[all.iter().position(|(name, _)| *name == chosen).unwrap()] += 1;
            if chosen != "c" {
                assert_eq!(chosen, choose(key, &all[..2]), "it stays where it was");
            }
        }
        for (count, expected) in counts.iter().zip([1_000_i32, 3_000, 6_000]) {
            assert!((count - expected).abs() < 200, "{counts:?}");
        }
    }
}
