//! Prices as they are kept under their versions, so that what a call has cost can be explained when its price is no longer in
//! force.

use serde::{Deserialize, Serialize};

use super::pricing::{LongPrompt, Price};
use super::repricing::{Written, read, written};
use super::service::Surcharges;

/// The rates of a price, in nano-dollars for a million tokens.
#[derive(Serialize, Deserialize)]
struct Kept {
    rates: Written,
    #[serde(skip_serializing_if = "Option::is_none")]
    long_prompt: Option<(u64, Written)>,
    #[serde(default)]
    surcharges: Surcharges,
}

/// The rates of a price as JSON, without its version.
pub fn kept(price: &Price) -> String {
    let kept = Kept {
        rates: written(&price.rates),
        long_prompt: price
            .long_prompt
            .as_ref()
            .map(|long| (long.above_tokens, written(&long.rates))),
        surcharges: price.surcharges,
    };
    serde_json::to_string(&kept).expect("numbers can be written")
}

/// The price of a version with these rates; `None` where they cannot be read.
pub fn of_kept(version: &str, rates: &str) -> Option<Price> {
    let kept: Kept = serde_json::from_str(rates).ok()?;
    Some(Price {
        version: version.into(),
        rates: read(&kept.rates),
        long_prompt: kept.long_prompt.map(|(above_tokens, rates)| LongPrompt {
            above_tokens,
            rates: read(&rates),
        }),
        batch: None,
        surcharges: kept.surcharges,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::money::NanoUsd;
    use crate::domain::pricing::Rates;

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
