//! The sums over some requests.

use std::collections::BTreeMap;

use super::sketch::Sketch;

/// What one request adds to the sums.
#[derive(Clone, Default, Debug)]
pub struct Counted {
    /// Why it did not end well; `None`: it did.
    pub error_class: Option<String>,
    /// Whether its answer came out of the response cache.
    pub cache_hit: bool,
    /// Attempts at providers.
    pub attempts: i64,
    /// Whether its tokens were estimated.
    pub estimated: bool,
    /// Whether its cost is unknown.
    pub unpriced: bool,
    /// Tokens read, cached ones included.
    pub input_tokens: i64,
    /// Part of them out of a prompt cache.
    pub cached_tokens: i64,
    /// Part of them into a prompt cache.
    pub cache_write_tokens: i64,
    /// Tokens generated, reasoning included.
    pub output_tokens: i64,
    /// Part of them spent on reasoning.
    pub reasoning_tokens: i64,
    /// Known cost in nano-dollars.
    pub cost_nanousd: i64,
    /// What the response cache saved, in nano-dollars.
    pub saved_nanousd: i64,
    /// Microseconds to the end of the answer.
    pub latency_us: i64,
    /// Microseconds to the first event.
    pub first_token_us: Option<i64>,
}

/// Sums over requests. Tokens are counts, money is nano-dollars.
#[derive(Clone, Default, Debug)]
pub struct Figures {
    /// How many requests.
    pub requests: i64,
    /// Those that did not end well, by class.
    pub errors: BTreeMap<String, i64>,
    /// Answers out of the response cache.
    pub cache_hits: i64,
    /// Attempts at providers.
    pub attempts: i64,
    /// Requests whose tokens were estimated.
    pub estimated: i64,
    /// Requests whose cost is unknown.
    pub unpriced: i64,
    /// Tokens read, cached ones included.
    pub input_tokens: i64,
    /// Part of them out of a prompt cache.
    pub cached_tokens: i64,
    /// Part of them into a prompt cache.
    pub cache_write_tokens: i64,
    /// Tokens generated, reasoning included.
    pub output_tokens: i64,
    /// Part of them spent on reasoning.
    pub reasoning_tokens: i64,
    /// Known cost.
    pub cost_nanousd: i64,
    /// What the response cache saved.
    pub saved_nanousd: i64,
    /// How long requests took that reached a provider or were in the cache. Refusals of ours would only flatter it.
    pub latency: Sketch,
    /// How long it took to their first event.
    pub first_token: Sketch,
}

impl Figures {
    /// Counts a request.
    pub fn count(&mut self, one: &Counted) {
        self.requests += 1;
        if let Some(class) = &one.error_class {
            match self.errors.get_mut(class) {
                Some(count) => *count += 1,
                None => drop(self.errors.insert(class.clone(), 1)),
            }
        }
        self.cache_hits += i64::from(one.cache_hit);
        self.attempts = self.attempts.saturating_add(one.attempts);
        self.estimated += i64::from(one.estimated);
        self.unpriced += i64::from(one.unpriced);
        for (sum, value) in [
            (&mut self.input_tokens, one.input_tokens),
            (&mut self.cached_tokens, one.cached_tokens),
            (&mut self.cache_write_tokens, one.cache_write_tokens),
            (&mut self.output_tokens, one.output_tokens),
            (&mut self.reasoning_tokens, one.reasoning_tokens),
            (&mut self.cost_nanousd, one.cost_nanousd),
            (&mut self.saved_nanousd, one.saved_nanousd),
        ] {
            *sum = sum.saturating_add(value);
        }
        if one.attempts > 0 || one.cache_hit {
            self.latency.add(one.latency_us);
            if let Some(us) = one.first_token_us {
                self.first_token.add(us);
            }
        }
    }

    /// Adds the sums over other requests.
    pub fn merge(&mut self, other: &Self) {
        for (class, count) in &other.errors {
            match self.errors.get_mut(class) {
                Some(sum) => *sum = sum.saturating_add(*count),
                None => drop(self.errors.insert(class.clone(), *count)),
            }
        }
        for (sum, value) in [
            (&mut self.requests, other.requests),
            (&mut self.cache_hits, other.cache_hits),
            (&mut self.attempts, other.attempts),
            (&mut self.estimated, other.estimated),
            (&mut self.unpriced, other.unpriced),
            (&mut self.input_tokens, other.input_tokens),
            (&mut self.cached_tokens, other.cached_tokens),
            (&mut self.cache_write_tokens, other.cache_write_tokens),
            (&mut self.output_tokens, other.output_tokens),
            (&mut self.reasoning_tokens, other.reasoning_tokens),
            (&mut self.cost_nanousd, other.cost_nanousd),
            (&mut self.saved_nanousd, other.saved_nanousd),
        ] {
            *sum = sum.saturating_add(value);
        }
        self.latency.merge(&other.latency);
        self.first_token.merge(&other.first_token);
    }

    /// Requests that did not end well.
    pub fn failed(&self) -> i64 {
        self.errors.values().sum()
    }

    /// The share of requests that ended well, from 0 to 1; `None`: there were none.
    pub fn success_rate(&self) -> Option<f64> {
        share(self.requests - self.failed(), self.requests)
    }

    /// The sums alone, for comparisons: everything but the percentiles.
    pub fn sums(&self) -> [i64; 13] {
        [
            self.requests,
            self.failed(),
            self.cache_hits,
            self.attempts,
            self.estimated,
            self.unpriced,
            self.input_tokens,
            self.cached_tokens,
            self.cache_write_tokens,
            self.output_tokens,
            self.reasoning_tokens,
            self.cost_nanousd,
            self.saved_nanousd,
        ]
    }
}

/// A part of a whole, from 0 to 1; `None`: there is no whole.
pub fn share(part: i64, whole: i64) -> Option<f64> {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a share for people; the counts stand beside it"
    )]
    let share = part as f64 / whole as f64;
    (whole > 0).then_some(share)
}
