//! What a request has cost: the sums that the meter made, to the last digit, by the price whose version is written on the
//! attempt.

use std::collections::HashMap;

use maud::{Markup, html};

use super::{format, parts};
use crate::analytics::{AttemptRow, RequestRow};
use crate::domain::money::NANO_PER_USD;
use crate::domain::pricing::{Charge, Price};
use crate::domain::service::Service;
use crate::domain::usage::TokenUsage;

/// Millionths of a nano-dollar in a dollar.
const PARTS_PER_USD: i128 = NANO_PER_USD as i128 * 1_000_000;

/// Prices by their versions.
pub type Prices = HashMap<String, Price>;

/// Millionths of a nano-dollar as dollars, to the last digit there is.
fn dollars(parts: i128) -> String {
    let whole = parts / PARTS_PER_USD;
    let fraction = format!("{:015}", parts % PARTS_PER_USD);
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() {
        format!("${whole}")
    } else {
        format!("${whole}.{fraction}")
    }
}

/// The price that an attempt was charged at, if it is known.
fn price_of<'p>(attempt: &AttemptRow, prices: &'p Prices) -> Option<&'p Price> {
    prices.get(Service::bare(attempt.price_version.as_deref()?))
}

fn usage_of(attempt: &AttemptRow) -> TokenUsage {
    let count = |tokens: i64| u64::try_from(tokens).unwrap_or(0);
    TokenUsage {
        input: count(attempt.input_tokens),
        cached_input: count(attempt.cached_tokens),
        cache_write: count(attempt.cache_write_tokens),
        output: count(attempt.output_tokens),
        reasoning: count(attempt.reasoning_tokens),
        service: attempt.price_version.as_deref().map(Service::of_version),
        ..TokenUsage::default()
    }
}

/// The card of it.
pub fn cost(row: &RequestRow, attempts: &[AttemptRow], prices: &Prices) -> Markup {
    let charged: Vec<&AttemptRow> = attempts
        .iter()
        .filter(|attempt| attempt.cost_nanousd != Some(0) || attempt.input_tokens + attempt.output_tokens > 0)
        .collect();
    html! {
        @if row.cache == "hit" {
            (parts::empty("check", "No cost", "The response was served from the cache.", html! {
                @if let Some(saved) = row.saved_nanousd { p.muted.small { "A provider's response would have cost " (format::usd_exact(saved)) "." } }
            }))
        } @else if charged.is_empty() {
            (parts::empty("check", "No cost", "No provider answered, so nothing was charged.", html! {}))
        } @else {
            div.card-body.stack id="cost" {
                @for attempt in &charged { (charge(attempt, charged.len() > 1, prices)) }
                @if row.metering != "reported" {
                    p.muted.small {
                        @if row.metering == "unpriced" { "This deployment has no price, so the request is not included in any total." }
                        @else { "The provider did not report token counts; the gateway estimated them." }
                    }
                }
            }
        }
    }
}

fn charge(attempt: &AttemptRow, several: bool, prices: &Prices) -> Markup {
    let usage = usage_of(attempt);
    let price = price_of(attempt, prices);
    let charges: Vec<Charge> = price
        .iter()
        .flat_map(|price| price.charges(&usage))
        .filter(|charge| charge.tokens > 0)
        .collect();
    let sum: i128 = charges.iter().map(Charge::per_million).sum();
    let exact = price.and_then(|price| price.cost(&usage).ok()).map(|cost| cost.0);
    html! {
        div {
            @if several { h3 { "Attempt " (attempt.number) ", " (attempt.provider) "/" (attempt.model) } }
            @if price.is_some() {
                div.table-wrap tabindex="0" role="region" aria-label={ "Cost of attempt " (attempt.number) } {
                    table.table.sums {
                        thead { tr { th { "Tokens" } th.right { "Count" } th.right { "USD per million" } th.right { "USD" } } }
                        tbody {
                            @for charge in &charges {
                                tr {
                                    td { (charge.kind) }
                                    td.right data-tokens=(charge.tokens) { (format::count(i64::try_from(charge.tokens).unwrap_or(i64::MAX))) }
                                    td.right { "× " (format::usd_exact(charge.rate.0)) }
                                    td.right { "= " (dollars(charge.per_million())) }
                                }
                            }
                        }
                        tfoot {
                            @if sum % 1_000_000 != 0 { tr { td colspan="3" { "Total" } td.right { (dollars(sum)) } } }
                            tr.total {
                                td colspan="3" { @if sum % 1_000_000 != 0 { "Rounded up to the nano-dollar" } @else { "Total" } }
                                td.right data-cost=[attempt.cost_nanousd] { (attempt.cost_nanousd.map_or_else(|| "unknown".to_owned(), format::usd_exact)) }
                            }
                        }
                    }
                }
                @if exact != attempt.cost_nanousd {
                    p.muted.small { "The amount charged is " (attempt.cost_nanousd.map_or_else(|| "unknown".to_owned(), format::usd_exact)) ". Stored token counts do not distinguish every kind, such as one-hour cache writes." }
                }
                p.muted.small { "Price version " code { (attempt.price_version.as_deref().unwrap_or_default()) } "." }
            } @else {
                dl.facts {
                    dt { "Tokens" } dd { (format::count(attempt.input_tokens)) " in, " (format::count(attempt.output_tokens)) " out" }
                    dt { "Cost" } dd { (attempt.cost_nanousd.map_or_else(|| "unknown".to_owned(), format::usd_exact)) }
                    @if let Some(version) = &attempt.price_version { dt { "Price" } dd { code { (version) } } }
                }
                @if attempt.price_version.is_some() { p.muted.small { "This price is no longer in effect and was not kept, so the calculation is not shown." } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::request::tests::attempt;
    use super::*;
    use crate::domain::money::NanoUsd;
    use crate::domain::pricing::Rates;
    use crate::domain::service::Surcharges;

    #[test]
    fn millionths_of_nano_dollars_are_written_out() {
        for (parts, text) in [
            (0, "$0"),
            (1, "$0.000000000000001"),
            (250_000_000_000, "$0.00025"),
            (PARTS_PER_USD * 3, "$3"),
        ] {
            assert_eq!(dollars(parts), text);
        }
    }

    #[test]
    fn figures_of_another_price_are_not_shown() {
        let price = Price {
            version: "list#1".into(),
            rates: Rates {
                input: NanoUsd(1_000_000),
                output: NanoUsd(2_000_000),
                ..Rates::default()
            },
            long_prompt: None,
            batch: None,
            surcharges: Surcharges::default(),
        };
        let one = attempt(1, 0, 10, Some(5));
        let prices = |price: &Price| Prices::from([(price.version.to_string(), price.clone())]);
        assert_eq!(price_of(&one, &prices(&price)), Some(&price));
        let newer = Price {
            version: "list#2".into(),
            ..price
        };
        assert_eq!(price_of(&one, &prices(&newer)), None);
        let shown = charge(&one, false, &prices(&newer)).into_string();
        assert!(shown.contains("no longer in effect"), "{shown}");
    }

    proptest! {
        #[test]
        fn the_shown_sums_are_what_is_charged(input in 0..500_000_u64, cached in 0..500_000_u64, output in 0..90_000_u64, rate in 1..90_000_000_000_i64) {
            let price = Price {
                version: "v".into(),
                rates: Rates { input: NanoUsd(rate), output: NanoUsd(rate / 3 + 1), cache_read: Some(NanoUsd(rate / 10)), ..Rates::default() },
                long_prompt: None,
                batch: None,
                surcharges: Surcharges::default(),
            };
            let usage = TokenUsage { input, cached_input: cached, output, ..TokenUsage::default() };
            let sum: i128 = price.charges(&usage).iter().map(Charge::per_million).sum();
            prop_assert_eq!((sum + 999_999) / 1_000_000, i128::from(price.cost(&usage).unwrap().0));
        }
    }
}
