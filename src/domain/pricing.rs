//! What a usage costs at a price. Integers only, one rounding, at the very end.

use super::ids::PriceVersion;
use super::money::NanoUsd;
use super::service::{Service, Surcharges};
use super::usage::TokenUsage;

/// The price of one deployment: nano-dollars per **million** tokens of each kind.
///
/// Where a provider does not publish a price for a kind, the kind is charged as the kind that contains it: cached and
/// cache-written tokens as input, reasoning and audio as output or input.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Price {
    /// Names this row on every ledger row that was charged by it.
    pub version: PriceVersion,
    /// Rates for ordinary prompts.
    pub rates: Rates,
    /// Rates for prompts above a size, where the provider has them.
    pub long_prompt: Option<LongPrompt>,
    /// What the provider publishes for batches of its own, which the gateway does not make: for the comparison of lists alone.
    pub batch: Option<BatchRates>,
    /// What it costs to be served otherwise than usual, where the provider has that.
    pub surcharges: Surcharges,
}

/// Nano-dollars per million tokens.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Rates {
    /// Input tokens that no other rate covers.
    pub input: NanoUsd,
    /// Output tokens, reasoning included.
    pub output: NanoUsd,
    /// Input tokens out of a prompt cache.
    pub cache_read: Option<NanoUsd>,
    /// Input tokens into a prompt cache.
    pub cache_write: Option<NanoUsd>,
    /// Input tokens into a prompt cache for one hour.
    pub cache_write_1h: Option<NanoUsd>,
}

/// A second set of rates for the *whole* request once its prompt, cached tokens included, is above a size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LongPrompt {
    /// The prompt size that is still charged at the ordinary rates.
    pub above_tokens: u64,
    /// The rates above it.
    pub rates: Rates,
}

/// What a batch pays for each million tokens. Only these two are published; the rest follows from them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct BatchRates {
    /// Input tokens that no other rate covers.
    pub input: NanoUsd,
    /// Output tokens, reasoning included.
    pub output: NanoUsd,
}

impl Rates {
    /// Every rate at so many percent, rounded up to the next nano-dollar.
    #[must_use]
    pub fn at_percent(self, percent: u32) -> Self {
        self.at(i64::from(percent), 100)
    }

    /// Every rate times `factor ÷ divisor`, rounded up to the next nano-dollar.
    fn at(self, factor: i64, divisor: i64) -> Self {
        let scaled = |rate: NanoUsd| NanoUsd(scale(rate.0, factor, divisor));
        Self {
            input: scaled(self.input),
            output: scaled(self.output),
            cache_read: self.cache_read.map(scaled),
            cache_write: self.cache_write.map(scaled),
            cache_write_1h: self.cache_write_1h.map(scaled),
        }
    }
}

impl LongPrompt {
    /// The rates above a size at `own`, where a list has this at `ordinary`: each kind of token grows by the same factor.
    #[must_use]
    pub fn carried_over(&self, ordinary: &Rates, own: &Rates) -> Self {
        let grown = |own: NanoUsd, above: NanoUsd, below: NanoUsd| match below.0 {
            0 => own,
            below => NanoUsd(scale(own.0, above.0, below)),
        };
        let input = grown(own.input, self.rates.input, ordinary.input);
        // A kind that the list does not tell apart grows as input does.
        let kind = |own: Option<NanoUsd>, above: Option<NanoUsd>, below: Option<NanoUsd>| {
            own.map(|rate| match (above, below) {
                (Some(above), Some(below)) => grown(rate, above, below),
                _ => grown(rate, self.rates.input, ordinary.input),
            })
        };
        let rates = Rates {
            input,
            output: grown(own.output, self.rates.output, ordinary.output),
            cache_read: kind(own.cache_read, self.rates.cache_read, ordinary.cache_read),
            cache_write: kind(own.cache_write, self.rates.cache_write, ordinary.cache_write),
            cache_write_1h: kind(own.cache_write_1h, self.rates.cache_write_1h, ordinary.cache_write_1h),
        };
        Self::new(self.above_tokens, own, rates)
    }

    /// The rates above a size, with the one that nobody publishes: writes for one hour grow by the same factor as
    /// ordinary writes, or else as input.
    pub fn new(above_tokens: u64, ordinary: &Rates, mut rates: Rates) -> Self {
        if rates.cache_write_1h.is_none() {
            let (above, below) = match (rates.cache_write, ordinary.cache_write) {
                (Some(above), Some(below)) if below.0 > 0 => (above, below),
                _ => (rates.input, ordinary.input),
            };
            rates.cache_write_1h = ordinary
                .cache_write_1h
                .map(|hour| NanoUsd(scale(hour.0, above.0, below.0.max(1))));
        }
        Self { above_tokens, rates }
    }
}

/// `amount × factor ÷ divisor`, rounded up. None of them is negative, and the divisor is not zero.
fn scale(amount: i64, factor: i64, divisor: i64) -> i64 {
    let product = i128::from(amount) * i128::from(factor);
    let divisor = i128::from(divisor);
    // No rate is near the limit; one that were would be refused as a cost a moment later.
    i64::try_from((product + divisor - 1) / divisor).unwrap_or(i64::MAX)
}

impl Price {
    /// What `usage` is charged for: each kind of token once, at its own rate.
    pub fn charges(&self, usage: &TokenUsage) -> [Charge; 5] {
        let usage = usage.consistent();
        let rates = match &self.long_prompt {
            Some(long) if usage.input > long.above_tokens => &long.rates,
            _ => &self.rates,
        };
        let served = self.surcharges.per_myriad(usage.service.unwrap_or_default());
        let rates = rates.at(i64::from(served), 10_000);
        let write = rates.cache_write.unwrap_or(rates.input);
        let parts = usage.cached_input + usage.cache_write + usage.cache_write_1h;
        [
            ("input", usage.input - parts, rates.input),
            (
                "cached input",
                usage.cached_input,
                rates.cache_read.unwrap_or(rates.input),
            ),
            ("cache write", usage.cache_write, write),
            (
                "cache write for an hour",
                usage.cache_write_1h,
                rates.cache_write_1h.unwrap_or(write),
            ),
            ("output", usage.output, rates.output),
        ]
        .map(|(kind, tokens, rate)| Charge { kind, tokens, rate })
    }

    /// The version under which `usage` is charged: the price's own, and how the call was served where that is charged for.
    pub fn version_for(&self, usage: &TokenUsage) -> PriceVersion {
        match self.surcharges.charged(usage.service.unwrap_or_default()) {
            usual if usual == Service::default() => self.version.clone(),
            service => format!("{}{}", self.version.as_str(), service.marks()).as_str().into(),
        }
    }

    /// Cost of `usage`, rounded up to the next nano-dollar so that small calls are never free.
    ///
    /// # Errors
    /// [`PricingError::Overflow`] above about nine billion dollars; the caller should treat it as a corrupt record.
    ///
    /// # Source
    /// The rule for long prompts (all tokens at the second rates, by the size of the whole prompt) is the providers'
    /// own: OpenAI "prompts with more than 272K input tokens are priced at 2x input and 1.5x output for the full
    /// session", Google "prompts > 200k tokens".
    pub fn cost(&self, usage: &TokenUsage) -> Result<NanoUsd, PricingError> {
        let charges = self.charges(usage);
        let per_million: i128 = charges.iter().map(Charge::per_million).sum();
        // Rounding up by hand: signed `div_ceil` is not stable, and no rate is negative.
        let nano = (per_million + 999_999) / 1_000_000;
        i64::try_from(nano).map(NanoUsd).map_err(|_| PricingError::Overflow)
    }
}

/// Tokens of one kind, and what they are charged at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Charge {
    /// The kind, in words.
    pub kind: &'static str,
    /// How many.
    pub tokens: u64,
    /// Nano-dollars per million of them.
    pub rate: NanoUsd,
}

impl Charge {
    /// What they cost, in millionths of a nano-dollar.
    pub fn per_million(&self) -> i128 {
        i128::from(self.tokens) * i128::from(self.rate.0)
    }
}

/// Why a cost could not be computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PricingError {
    /// The cost does not fit; such a usage cannot be real.
    #[error("the cost of this usage is beyond nine billion dollars")]
    Overflow,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::service::Tier;
    use super::*;

    fn usd(text: &str) -> NanoUsd {
        NanoUsd::parse_usd(text).unwrap()
    }

    fn sonnet_like() -> Price {
        Price {
            version: "test".into(),
            rates: Rates {
                input: usd("3"),
                output: usd("15"),
                cache_read: Some(usd("0.3")),
                cache_write: Some(usd("3.75")),
                cache_write_1h: Some(usd("6")),
            },
            long_prompt: Some(LongPrompt {
                above_tokens: 200_000,
                rates: Rates {
                    input: usd("6"),
                    output: usd("22.5"),
                    cache_read: Some(usd("0.6")),
                    cache_write: Some(usd("7.5")),
                    cache_write_1h: None,
                },
            }),
            batch: None,
            surcharges: Surcharges {
                fast: Some(200),
                us: Some(110),
                ..Surcharges::default()
            },
        }
    }

    #[test]
    fn each_kind_of_token_is_charged_once_at_its_own_rate() {
        let usage = TokenUsage {
            input: 1_000,
            cached_input: 600,
            cache_write: 200,
            cache_write_1h: 100,
            output: 50,
            reasoning: 40,
            ..TokenUsage::default()
        };
        // 100 × 3 + 600 × 0.3 + 200 × 3.75 + 100 × 6 + 50 × 15 = 2,580 µ$
        assert_eq!(sonnet_like().cost(&usage), Ok(NanoUsd(2_580_000)));
    }

    #[test]
    fn the_long_prompt_rates_begin_one_token_above_the_line_and_cover_the_whole_request() {
        let at = TokenUsage {
            input: 200_000,
            output: 10,
            ..TokenUsage::default()
        };
        let above = TokenUsage { input: 200_001, ..at };
        assert_eq!(sonnet_like().cost(&at), Ok(NanoUsd(600_000_000 + 150_000)));
        assert_eq!(sonnet_like().cost(&above), Ok(NanoUsd(1_200_006_000 + 225_000)));
    }

    #[test]
    fn every_kind_of_token_costs_more_where_the_call_was_served_otherwise() {
        let served = |tier, in_us| TokenUsage {
            input: 200_001,
            cached_input: 1_000,
            output: 10,
            service: Some(Service { tier, in_us }),
            ..TokenUsage::default()
        };
        let price = sonnet_like();
        let cost = |tier, in_us| price.cost(&served(tier, in_us)).unwrap().0;
        let usual = cost(Tier::Standard, false);
        assert_eq!(cost(Tier::Fast, false), usual * 2);
        assert_eq!(cost(Tier::Fast, true) * 10, usual * 22);
        assert_eq!(cost(Tier::Flex, false), usual, "nobody publishes another price for it");
        assert_eq!(price.version_for(&served(Tier::Fast, true)).as_str(), "test+fast+us");
        assert_eq!(price.version_for(&served(Tier::Flex, false)).as_str(), "test");
    }

    #[test]
    fn an_own_price_grows_for_long_prompts_as_the_list_price_does() {
        let list = sonnet_like();
        let own = Rates {
            input: usd("1"),
            output: usd("10"),
            cache_read: Some(usd("0.2")),
            ..Rates::default()
        };
        let long = list.long_prompt.unwrap().carried_over(&list.rates, &own);
        assert_eq!(long.above_tokens, 200_000);
        let expected = Rates {
            input: usd("2"),
            output: usd("15"),
            cache_read: Some(usd("0.4")),
            ..Rates::default()
        };
        assert_eq!(long.rates, expected);
    }

    #[test]
    fn a_part_of_a_nano_dollar_is_rounded_up_once() {
        let price = Price {
            version: "test".into(),
            rates: Rates {
                input: usd("0.00001"),
                output: usd("0.00001"),
                ..Rates::default()
            },
            long_prompt: None,
            batch: None,
            surcharges: Surcharges::default(),
        };
        let usage = TokenUsage {
            input: 1,
            output: 1,
            ..TokenUsage::default()
        };
        assert_eq!(price.cost(&usage), Ok(NanoUsd(1)));
        assert_eq!(price.cost(&TokenUsage::default()), Ok(NanoUsd::ZERO));
    }

    #[test]
    fn an_impossible_usage_is_an_error_not_a_wrapped_number() {
        let usage = TokenUsage {
            output: u64::MAX,
            ..TokenUsage::default()
        };
        assert_eq!(sonnet_like().cost(&usage), Err(PricingError::Overflow));
    }

    proptest! {
        #[test]
        fn caching_never_makes_a_call_dearer_where_reads_are_cheaper(input in 0..200_000u64, cached in 0..200_000u64) {
            let plain = TokenUsage { input, ..TokenUsage::default() };
            let with_cache = TokenUsage { cached_input: cached, ..plain };
            prop_assert!(sonnet_like().cost(&with_cache).unwrap() <= sonnet_like().cost(&plain).unwrap());
        }
    }
}
