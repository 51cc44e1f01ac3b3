//! May an answer be taken from the response cache, and may it be kept there? The decisions, without the cache.

use std::time::Duration;

/// What a caller said in `Cache-Control` about its request (RFC 9111, section 5.2.1). Directives that we do not know are
/// passed over, as they must be.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CacheControl {
    /// Nothing is kept, and nothing that was kept is used.
    pub no_store: bool,
    /// What was kept is not used; the answer may be kept.
    pub no_cache: bool,
    /// What was kept is used if it is not older.
    pub max_age: Option<Duration>,
}

impl CacheControl {
    /// Reads the header's lines.
    pub fn parse<'l>(lines: impl Iterator<Item = &'l str>) -> Self {
        let mut control = Self::default();
        for directive in lines.flat_map(|line| line.split(',')) {
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "no-store" => control.no_store = true,
                "no-cache" => control.no_cache = true,
                "max-age" => {
                    // What is no number is taken for the strictest, as section 4.2.1 advises.
                    let seconds = value.trim().trim_matches('"').parse().unwrap_or(0);
                    control.max_age = Some(Duration::from_secs(seconds));
                }
                _ => {}
            }
        }
        control
    }
}

/// What of a request decides whether its answer can stand for another one.
#[derive(Clone, Copy, Debug)]
pub struct Cacheable {
    /// Whether the same answer is to be expected each time: embeddings, a temperature of zero, a seed.
    pub predictable: bool,
    /// Whether the model may call tools.
    pub tools: bool,
}

/// Which answers are kept, and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CachePolicy {
    /// For how long; zero: not at all. A key may say otherwise.
    pub ttl: Duration,
    /// Also those that another time might be different.
    pub unpredictable: bool,
    /// Also those that may call tools.
    pub tools: bool,
}

impl CachePolicy {
    /// How long the answer to a request may be kept and used; `None`: it has nothing to do with the cache.
    pub fn ttl_of(&self, request: Cacheable, of_the_key: Option<Duration>, control: CacheControl) -> Option<Duration> {
        let ttl = of_the_key.unwrap_or(self.ttl);
        let fits = (request.predictable || self.unpredictable) && (!request.tools || self.tools);
        (!ttl.is_zero() && fits && !control.no_store).then_some(ttl)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_read_whatever_their_form() {
        let parse = |lines: &[&str]| CacheControl::parse(lines.iter().copied());
        assert_eq!(parse(&[]), CacheControl::default());
        assert!(parse(&["private, No-Store"]).no_store);
        assert!(parse(&["max-stale=3", "no-cache"]).no_cache);
        let second = Duration::from_secs(1);
        for (text, age) in [
            ("max-age=60", 60),
            ("MAX-AGE = \"60\"", 60),
            ("max-age", 0),
            ("max-age=-1", 0),
        ] {
            assert_eq!(parse(&[text]).max_age, Some(second * age), "{text}");
        }
    }

    #[test]
    fn a_request_is_cached_only_where_everybody_agrees() {
        let minute = Duration::from_secs(60);
        let policy = CachePolicy {
            ttl: minute,
            unpredictable: false,
            tools: false,
        };
        let plain = Cacheable {
            predictable: true,
            tools: false,
        };
        let none = CacheControl::default();
        assert_eq!(policy.ttl_of(plain, None, none), Some(minute));
        assert_eq!(policy.ttl_of(plain, Some(2 * minute), none), Some(2 * minute));
        assert_eq!(policy.ttl_of(plain, Some(Duration::ZERO), none), None);
        assert_eq!(
            policy.ttl_of(plain, None, CacheControl { no_store: true, ..none }),
            None
        );
        for (predictable, tools) in [(false, false), (true, true), (false, true)] {
            assert_eq!(policy.ttl_of(Cacheable { predictable, tools }, None, none), None);
        }
        let all = CachePolicy {
            ttl: Duration::ZERO,
            unpredictable: true,
            tools: true,
        };
        let request = Cacheable {
            predictable: false,
            tools: true,
        };
        assert_eq!(all.ttl_of(request, Some(minute), none), Some(minute));
        assert_eq!(all.ttl_of(request, None, none), None);
    }
}
