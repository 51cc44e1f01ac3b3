//! What every deployment of an organization costs it at which time: the prices that past calls are charged by.

use std::borrow::Cow;

use chrono::{DateTime, Utc};

use super::catalog::Catalog;
use super::document::{Policy, TermPrice};
use crate::domain::call::Operation;
use crate::domain::pricing::Price;
use crate::domain::repricing::{PriceBook, RepricingTerms};

/// The prices of everything the terms cover: the organization's own from when on they hold, and before that, or where it
/// has none, those of the gateway's configuration and catalogue.
pub fn price_book(policy: &Policy, catalog: &Catalog, terms: &RepricingTerms) -> PriceBook {
    let mut book = PriceBook::default();
    let own = |id: &str, provider: &str, model: &str| -> &[TermPrice] {
        let prices = &policy.terms.prices;
        let found = prices.get(id).or_else(|| prices.get(&format!("{provider}/{model}")));
        found.map_or(&[], Vec::as_slice)
    };
    for deployment in catalog.deployments() {
        let (provider, model) = (deployment.provider.as_str(), deployment.model.as_str());
        if terms.covers(provider, model) {
            let usual = deployment.price.as_deref();
            book.add(
                provider,
                model,
                steps(usual, own(deployment.id.as_str(), provider, model)),
            );
        }
    }
    // Models that are forwarded without being listed have a price if the organization says so.
    for (id, prices) in &policy.terms.prices {
        let listed = catalog.deployments().any(|deployment| {
            deployment.id.as_str() == id || format!("{}/{}", deployment.provider, deployment.model) == *id
        });
        let forwarded = catalog.resolve(id, Operation::Chat).filter(|_| !listed);
        for deployment in forwarded.into_iter().flat_map(|resolved| resolved.deployments) {
            let (provider, model) = (deployment.provider.as_str(), deployment.model.as_str());
            if terms.covers(provider, model) {
                book.add(provider, model, steps(deployment.price.as_deref(), prices));
            }
        }
    }
    book
}

/// The price with a version, of those in force for a model at a provider: its own, or one that the organization wrote.
pub fn price_named(
    catalog: &Catalog,
    policy: &Policy,
    (provider, model): (&str, &str),
    version: &str,
) -> Option<Price> {
    let deployments = catalog
        .deployments()
        .filter(|deployment| deployment.provider.as_str() == provider && deployment.model.as_str() == model);
    let usual = deployments.filter_map(|deployment| deployment.price.as_deref());
    // What an own price leaves open depends on the usual one; there may be none.
    let all = usual.map(Some).chain([None]).flat_map(|usual| {
        let own = policy.terms.prices.values().flatten();
        let own = own.map(move |price| price.beside(usual));
        usual.map(Cow::Borrowed).into_iter().chain(own)
    });
    all.into_iter()
        .find(|price| price.version.as_str() == version)
        .map(Cow::into_owned)
}

/// The prices of a deployment, the earliest first.
fn steps<'p>(
    usual: Option<&'p Price>,
    own: &'p [TermPrice],
) -> impl Iterator<Item = (Option<DateTime<Utc>>, Cow<'p, Price>)> {
    let from_the_beginning = own.first().is_some_and(|first| first.from.is_none());
    let before = usual.filter(|_| !from_the_beginning);
    let before = before.map(|price| (None, Cow::Borrowed(price)));
    before
        .into_iter()
        .chain(own.iter().map(move |price| (price.from, price.beside(usual))))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::TimeZone as _;
    use serde_json::json;

    use super::*;
    use crate::config::{Sources, load};
    use crate::domain::call::Strategy;
    use crate::domain::money::NanoUsd;
    use crate::domain::repricing::{PastCall, Verdict};
    use crate::domain::usage::TokenUsage;
    use crate::routing::document::read;

    #[test]
    fn an_organizations_prices_hold_from_when_on_they_say_and_the_usual_ones_before() {
        let sources = Sources {
            env: vec![("OPENAI_API_KEY".to_owned(), "k".to_owned())],
            ..Sources::default()
        };
        let settings = load(&sources, &[]).unwrap().settings;
        let shared = Arc::new(Catalog::build(&settings));
        let policy = read(
            &json!({"prices": [
                {"deployment": "openai/gpt-4o", "from": "2026-11-10T00:00:00Z", "input_usd": "1", "output_usd": "1"}
            ]}),
            Strategy::Balanced,
        )
        .unwrap();
        let terms = RepricingTerms {
            from: Utc.timestamp_opt(0, 0).unwrap(),
            to: Utc::now(),
            provider: Some("openai".into()),
            model: None,
            dry_run: true,
        };
        let book = price_book(&policy, &policy.catalog(&shared), &terms);
        let cost = |model: &'static str, day: u32| {
            let call = PastCall {
                provider: "openai",
                model,
                at: Utc.with_ymd_and_hms(2026, 11, day, 0, 0, 0).unwrap(),
                usage: TokenUsage {
                    input: 1_000_000,
                    ..TokenUsage::default()
                },
                written_1h: None,
                cost_nanousd: None,
                price_version: None,
            };
            match book.judge(&call) {
                Verdict::Changed { cost, .. } => Some(cost),
                _ => None,
            }
        };
        assert_eq!(cost("gpt-4o", 9), Some(NanoUsd(2_500_000_000)));
        assert_eq!(cost("gpt-4o", 10), Some(NanoUsd(1_000_000_000)));
        assert!(cost("gpt-4o-mini", 10).is_some_and(|cost| cost.0 > 0));
        assert_eq!(cost("nobody-knows", 10), None);
    }
}
