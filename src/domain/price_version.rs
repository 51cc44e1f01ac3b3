//! The figures of a price as they are written down: under its version, so that what a call has cost can be explained when its
//! price is no longer in force, and in the book of a re-pricing.

use serde::{Deserialize, Serialize};

use super::money::NanoUsd;
use super::pricing::{LongPrompt, Price, Rates};
use super::service::Surcharges;

/// Rates as they are written: input, output, and what prompt caches cost; nano-dollars for a million tokens.
type Written = [Option<i64>; 5];

/// A price without its version.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Figures {
    rates: Written,
    #[serde(skip_serializing_if = "Option::is_none")]
    long_prompt: Option<(u64, Written)>,
    #[serde(default)]
    surcharges: Surcharges,
}

impl Figures {
    /// Those of a price.
    pub(super) fn of(price: &Price) -> Self {
        let long = price.long_prompt.as_ref();
        Self {
            rates: written(&price.rates),
            long_prompt: long.map(|long| (long.above_tokens, written(&long.rates))),
            surcharges: price.surcharges,
        }
    }

    /// The price that has them, under its version.
    pub(super) fn price(&self, version: &str) -> Price {
        Price {
            version: version.into(),
            rates: read(&self.rates),
            long_prompt: self.long_prompt.map(|(above_tokens, rates)| LongPrompt {
                above_tokens,
                rates: read(&rates),
            }),
            batch: None,
            surcharges: self.surcharges,
        }
    }
}

/// The figures of a price as JSON, without its version.
pub fn kept(price: &Price) -> String {
    serde_json::to_string(&Figures::of(price)).expect("numbers can be written")
}

/// The price of a version with these figures; `None` where they cannot be read.
pub fn of_kept(version: &str, figures: &str) -> Option<Price> {
    let figures: Figures = serde_json::from_str(figures).ok()?;
    Some(figures.price(version))
}

fn written(rates: &Rates) -> Written {
    [
        Some(rates.input.0),
        Some(rates.output.0),
        rates.cache_read.map(|rate| rate.0),
        rates.cache_write.map(|rate| rate.0),
        rates.cache_write_1h.map(|rate| rate.0),
    ]
}

fn read([input, output, cache_read, cache_write, cache_write_1h]: &Written) -> Rates {
    let rate = |rate: &Option<i64>| rate.map(NanoUsd);
    Rates {
        input: rate(input).unwrap_or_default(),
        output: rate(output).unwrap_or_default(),
        cache_read: rate(cache_read),
        cache_write: rate(cache_write),
        cache_write_1h: rate(cache_write_1h),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_price_is_read_as_it_was_kept(
            input in 0..i64::MAX, output in 0..i64::MAX, cached: Option<u32>, above: Option<(u32, u32)>,
            priority: Option<u16>,
        ) {
            let rates = |input: i64| Rates {
                input: NanoUsd(input),
                output: NanoUsd(output),
                cache_read: cached.map(|rate| NanoUsd(rate.into())),
                ..Rates::default()
            };
            let price = Price {
                version: "list/m@2026-11-01#1".into(),
                rates: rates(input),
                long_prompt: above.map(|(above_tokens, input)| LongPrompt {
                    above_tokens: above_tokens.into(),
                    rates: rates(input.into()),
                }),
                batch: None,
                surcharges: Surcharges { priority, ..Surcharges::default() },
            };
            prop_assert_eq!(of_kept("list/m@2026-11-01#1", &kept(&price)), Some(price));
        }
    }

    #[test]
    fn what_is_no_price_is_none() {
        assert_eq!(of_kept("x", "{}"), None);
        assert_eq!(of_kept("x", "not json"), None);
    }
}
