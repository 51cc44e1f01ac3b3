//! What past calls cost at other prices than those they were recorded with.
//!
//! Pure: prices and rows in, verdicts and sums out. Nothing is guessed: where a row does not say which of several
//! deployments served it, or how long what it wrote into a cache was to be kept, and the answer would change its cost, it
//! is left as it is and counted as unclear. A row is never made unpriced.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ids::{OrganizationId, PriceVersion};
use super::money::NanoUsd;
use super::price_version::Figures;
use super::pricing::Price;
use super::usage::TokenUsage;

/// Which calls are meant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RepricingTerms {
    /// From when on they came.
    pub from: DateTime<Utc>,
    /// Before when.
    pub to: DateTime<Utc>,
    /// Only calls of this provider.
    pub provider: Option<String>,
    /// Only calls of this model.
    pub model: Option<String>,
    /// Whether it is only found out what would change.
    pub dry_run: bool,
}

impl RepricingTerms {
    /// Whether an attempt at this deployment is meant.
    pub fn covers(&self, provider: &str, model: &str) -> bool {
        self.provider.as_deref().is_none_or(|wanted| wanted == provider)
            && self.model.as_deref().is_none_or(|wanted| wanted == model)
    }
}

/// A re-pricing, as far as it is.
#[derive(Clone, PartialEq, Debug)]
pub struct Repricing {
    /// Its id.
    pub id: Uuid,
    /// Whose calls they are.
    pub organization: OrganizationId,
    /// Which calls are meant.
    pub terms: RepricingTerms,
    /// The job that does it.
    pub job: Uuid,
    /// Who asked for it.
    pub author: String,
    /// Whether everything is done.
    pub done: bool,
    /// The last request that was looked at.
    pub cursor: Option<Uuid>,
    /// What came of it so far.
    pub sums: Sums,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When it was done.
    pub finished_at: Option<DateTime<Utc>>,
}

/// What came of a re-pricing. Differences are nano-dollars, exactly.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Sums {
    /// Requests that were looked at.
    pub requests: u64,
    /// Attempts that have another price or cost now.
    pub changed: u64,
    /// Those of them that had no price before.
    pub newly_priced: u64,
    /// Attempts for which there is no price; they stay as they are.
    pub without_price: u64,
    /// Attempts whose price the row does not make clear; they stay as they are.
    pub unclear: u64,
    /// What the changed ones cost before; 0 where that was not known.
    pub before_nanousd: i64,
    /// What they cost now.
    pub after_nanousd: i64,
    /// The same by deployment, as far as something changed: `provider/model`.
    pub models: BTreeMap<String, ModelSums>,
}

/// What came of it for one model at one provider.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct ModelSums {
    /// Attempts that have another price or cost now.
    pub changed: u64,
    /// Those of them that had no price before.
    pub newly_priced: u64,
    /// What they cost before; 0 where that was not known.
    pub before_nanousd: i64,
    /// What they cost now.
    pub after_nanousd: i64,
}

impl Sums {
    /// Takes a verdict in.
    pub fn add(&mut self, call: &PastCall<'_>, verdict: &Verdict) {
        match verdict {
            Verdict::Same => {}
            Verdict::WithoutPrice => self.without_price += 1,
            Verdict::Unclear => self.unclear += 1,
            Verdict::Changed { cost, .. } => {
                let before = call.cost_nanousd.unwrap_or(0);
                let newly = u64::from(call.cost_nanousd.is_none());
                self.changed += 1;
                self.newly_priced += newly;
                self.before_nanousd = self.before_nanousd.saturating_add(before);
                self.after_nanousd = self.after_nanousd.saturating_add(cost.0);
                let model = self
                    .models
                    .entry(format!("{}/{}", call.provider, call.model))
                    .or_default();
                model.changed += 1;
                model.newly_priced += newly;
                model.before_nanousd = model.before_nanousd.saturating_add(before);
                model.after_nanousd = model.after_nanousd.saturating_add(cost.0);
            }
        }
    }
}

/// An attempt as the ledger has it.
#[derive(Clone, Debug)]
pub struct PastCall<'r> {
    /// Who served it.
    pub provider: &'r str,
    /// Which model.
    pub model: &'r str,
    /// When its request was admitted.
    pub at: DateTime<Utc>,
    /// What it used. `cache_write` holds everything that was written into a cache, but for what `written_1h` says.
    pub usage: TokenUsage,
    /// How much of `cache_write` was for one hour; `None`: nobody has noted it.
    pub written_1h: Option<u64>,
    /// What it cost, in nano-dollars; `None`: it had no price.
    pub cost_nanousd: Option<i64>,
    /// By which price.
    pub price_version: Option<&'r str>,
}

/// What becomes of an attempt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is as it would be.
    Same,
    /// There is no price for it.
    WithoutPrice,
    /// Its row does not say enough.
    Unclear,
    /// It costs something else, or the same by another price.
    Changed {
        /// What.
        cost: NanoUsd,
        /// By which price.
        version: PriceVersion,
    },
}

/// The prices of deployments, fixed when a re-pricing begins: it may take long, and must not depend on when it was where.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct PriceBook {
    /// By provider and model.
    tariffs: Vec<Tariff>,
}

/// The prices of one model at one provider.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Tariff {
    provider: String,
    model: String,
    /// One for each deployment that is charged differently.
    deployments: Vec<Series>,
}

/// The prices of one deployment, one after the other.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Series(Vec<Step>);

/// A price from a moment on.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Step {
    from: Option<DateTime<Utc>>,
    version: String,
    #[serde(flatten)]
    figures: Figures,
}

impl PriceBook {
    /// Adds a deployment: its prices, each from a moment on, the earliest first; `None` is the beginning of time.
    pub fn add<P: Borrow<Price>>(
        &mut self,
        provider: &str,
        model: &str,
        prices: impl IntoIterator<Item = (Option<DateTime<Utc>>, P)>,
    ) {
        let steps = prices.into_iter().map(|(from, price)| {
            let price = price.borrow();
            Step {
                from,
                version: price.version.to_string(),
                figures: Figures::of(price),
            }
        });
        let series = Series(steps.collect());
        let is_it = |tariff: &&mut Tariff| tariff.provider == provider && tariff.model == model;
        match self.tariffs.iter_mut().find(is_it) {
            Some(tariff) if tariff.deployments.iter().any(|other| other.costs_like(&series)) => {}
            Some(tariff) => tariff.deployments.push(series),
            None => self.tariffs.push(Tariff {
                provider: provider.to_owned(),
                model: model.to_owned(),
                deployments: vec![series],
            }),
        }
    }

    /// The price of a version that is in it.
    pub fn price_named(&self, version: &str) -> Option<Price> {
        let series = self.tariffs.iter().flat_map(|tariff| &tariff.deployments);
        let mut steps = series.flat_map(|series| &series.0);
        steps.find(|step| step.version == version).map(Step::price)
    }

    /// What becomes of a past call.
    pub fn judge(&self, call: &PastCall<'_>) -> Verdict {
        if call.usage.total() == 0 {
            // What consumed nothing costs nothing at every price.
            return Verdict::Same;
        }
        let is_it = |tariff: &&Tariff| tariff.provider == call.provider && tariff.model == call.model;
        let Some(tariff) = self.tariffs.iter().find(is_it) else {
            return Verdict::WithoutPrice;
        };
        let series = match tariff.deployments.as_slice() {
            [only] => only,
            several => {
                let recorded = call.price_version.map(base);
                let mut named = several.iter().filter(|series| {
                    let bases = series.0.iter().map(|step| base(&step.version));
                    bases.into_iter().any(|base| Some(base) == recorded)
                });
                match (named.next(), named.next()) {
                    (Some(only), None) => only,
                    _ => return Verdict::Unclear,
                }
            }
        };
        let in_force = series.0.iter().rev();
        let Some(step) = in_force
            .into_iter()
            .find(|step| step.from.is_none_or(|from| from <= call.at))
        else {
            return Verdict::WithoutPrice;
        };
        let price = step.price();
        let written = call.usage.cache_write;
        let (hour, unsure) = match call.written_1h {
            Some(hour) => (hour.min(written), false),
            None => (0, written > 0),
        };
        let split = |hour: u64| TokenUsage {
            cache_write: written - hour,
            cache_write_1h: hour,
            ..call.usage
        };
        let Ok(cost) = price.cost(&split(hour)) else {
            return Verdict::Unclear;
        };
        if unsure && price.cost(&split(written)) != Ok(cost) {
            return Verdict::Unclear;
        }
        let version = price.version_for(&call.usage);
        if call.cost_nanousd == Some(cost.0) && call.price_version == Some(version.as_str()) {
            return Verdict::Same;
        }
        Verdict::Changed { cost, version }
    }
}

impl Series {
    fn costs_like(&self, other: &Self) -> bool {
        let figures = |series: &Self| -> Vec<_> { series.0.iter().map(|step| (step.from, step.figures)).collect() };
        figures(self) == figures(other)
    }
}

impl Step {
    fn price(&self) -> Price {
        self.figures.price(&self.version)
    }
}

/// What of a version names the deployment: its figures and their date come after it.
fn base(version: &str) -> &str {
    version.split(['@', '#']).next().unwrap_or(version)
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone as _;
    use proptest::prelude::*;

    use super::*;
    use crate::domain::pricing::Rates;
    use crate::domain::service::{Service, Surcharges};

    fn price(version: &str, input: i64, output: i64) -> Price {
        Price {
            version: version.into(),
            rates: Rates {
                input: NanoUsd(input * 1_000_000),
                output: NanoUsd(output * 1_000_000),
                ..Rates::default()
            },
            long_prompt: None,
            batch: None,
            surcharges: Surcharges {
                priority: Some(200),
                ..Surcharges::default()
            },
        }
    }

    fn day(day: u32) -> DateTime<Utc> {
        Utc.with_ymd_and_hms(2026, 11, day, 0, 0, 0).unwrap()
    }

    fn call<'r>(at: DateTime<Utc>, cost: Option<i64>, version: Option<&'r str>) -> PastCall<'r> {
        PastCall {
            provider: "p",
            model: "m",
            at,
            usage: TokenUsage {
                input: 100,
                output: 10,
                ..TokenUsage::default()
            },
            written_1h: Some(0),
            cost_nanousd: cost,
            price_version: version,
        }
    }

    fn changed(cost: i64, version: &str) -> Verdict {
        Verdict::Changed {
            cost: NanoUsd(cost),
            version: version.into(),
        }
    }

    #[test]
    fn a_call_is_charged_by_the_price_that_held_when_it_came() {
        let (early, late) = (price("early", 1, 2), price("late", 10, 20));
        let mut book = PriceBook::default();
        book.add("p", "m", [(Some(day(5)), &early), (Some(day(10)), &late)]);
        assert_eq!(book.judge(&call(day(1), None, None)), Verdict::WithoutPrice);
        assert_eq!(book.judge(&call(day(5), None, None)), changed(120, "early"));
        assert_eq!(
            book.judge(&call(day(9), Some(1_200), Some("late"))),
            changed(120, "early")
        );
        assert_eq!(
            book.judge(&call(day(10), Some(120), Some("early"))),
            changed(1_200, "late")
        );
        assert_eq!(book.judge(&call(day(20), Some(1_200), Some("late"))), Verdict::Same);
        let elsewhere = PastCall {
            model: "other",
            ..call(day(20), None, None)
        };
        assert_eq!(book.judge(&elsewhere), Verdict::WithoutPrice);
    }

    #[test]
    fn a_call_that_was_served_before_others_is_charged_for_that_again() {
        let price = price("p/m@2026#2", 1, 2);
        let mut book = PriceBook::default();
        book.add("p", "m", [(None, &price)]);
        let before = "p/m@2025#1+priority";
        let call = PastCall {
            usage: TokenUsage {
                service: Some(Service::of_version(before)),
                ..call(day(1), None, None).usage
            },
            ..call(day(1), Some(300), Some(before))
        };
        let verdict = book.judge(&call);
        assert_eq!(verdict, changed(240, "p/m@2026#2+priority"));
        let after = PastCall {
            cost_nanousd: Some(240),
            price_version: Some("p/m@2026#2+priority"),
            ..call
        };
        assert_eq!(book.judge(&after), Verdict::Same);
    }

    #[test]
    fn nothing_is_guessed_about_which_deployment_it_was() {
        let (global, us) = (price("p/global.m@2026#1", 1, 2), price("p/us.m@2026#2", 2, 4));
        let mut book = PriceBook::default();
        book.add("p", "m", [(None, &global)]);
        book.add("p", "m", [(None, &us)]);
        assert_eq!(book.judge(&call(day(1), None, None)), Verdict::Unclear);
        assert_eq!(
            book.judge(&call(day(1), Some(1), Some("p/us.m@2025#9"))),
            changed(240, "p/us.m@2026#2")
        );
        assert_eq!(book.judge(&call(day(1), Some(1), Some("gone#1"))), Verdict::Unclear);
        // Two that cost the same are one.
        let mut alike = PriceBook::default();
        alike.add("p", "m", [(None, &global)]);
        alike.add(
            "p",
            "m",
            [(
                None,
                &Price {
                    version: "other".into(),
                    ..global.clone()
                },
            )],
        );
        assert_eq!(
            alike.judge(&call(day(1), None, None)),
            changed(120, "p/global.m@2026#1")
        );
    }

    #[test]
    fn nothing_is_guessed_about_how_long_a_cache_was_to_be_kept() {
        let mut hourly = price("v", 1, 1);
        hourly.rates.cache_write = Some(NanoUsd(2_000_000));
        hourly.rates.cache_write_1h = Some(NanoUsd(4_000_000));
        let mut book = PriceBook::default();
        book.add("p", "m", [(None, &hourly)]);
        let wrote = |written_1h| PastCall {
            usage: TokenUsage {
                input: 100,
                cache_write: 50,
                output: 10,
                ..TokenUsage::default()
            },
            written_1h,
            ..call(day(1), None, None)
        };
        assert_eq!(book.judge(&wrote(None)), Verdict::Unclear);
        assert_eq!(book.judge(&wrote(Some(0))), changed(50 + 100 + 10, "v"));
        assert_eq!(book.judge(&wrote(Some(50))), changed(50 + 200 + 10, "v"));
        hourly.rates.cache_write_1h = None;
        let mut same = PriceBook::default();
        same.add("p", "m", [(None, &hourly)]);
        assert_eq!(same.judge(&wrote(None)), changed(160, "v"));
    }

    proptest! {
        /// Whatever the prices: after a verdict is carried out, the next one finds nothing to do, and the sums are the
        /// differences.
        #[test]
        fn repricing_twice_is_repricing_once(
            rates in prop::collection::vec((0i64..100_000, 0i64..100_000, 1u32..28), 0..4),
            calls in prop::collection::vec((1u32..28, 0u64..5_000, 0u64..5_000, prop::option::of(0i64..1_000_000)), 1..20),
        ) {
            let mut steps: Vec<(Option<DateTime<Utc>>, Price)> = rates
                .iter()
                .enumerate()
                .map(|(n, &(input, output, from))| (Some(day(from)), price(&format!("v{n}"), input, output)))
                .collect();
            steps.sort_by_key(|(from, _)| *from);
            let mut book = PriceBook::default();
            book.add("p", "m", steps.iter().map(|(from, price)| (*from, price)));
            let book: PriceBook = serde_json::from_str(&serde_json::to_string(&book).unwrap()).unwrap();
            let mut sums = Sums::default();
            let (mut before, mut after) = (0, 0);
            for (at, input, output, cost) in calls {
                let mut row = call(day(at), cost, None);
                row.usage = TokenUsage { input, output, ..TokenUsage::default() };
                let verdict = book.judge(&row);
                sums.add(&row, &verdict);
                let mut version = String::new();
                before += row.cost_nanousd.unwrap_or(0);
                if let Verdict::Changed { cost, version: applied } = &verdict {
                    row.cost_nanousd = Some(cost.0);
                    version = applied.to_string();
                }
                after += row.cost_nanousd.unwrap_or(0);
                if !version.is_empty() {
                    row.price_version = Some(&version);
                    prop_assert_eq!(book.judge(&row), Verdict::Same);
                }
            }
            prop_assert_eq!(sums.after_nanousd - sums.before_nanousd, after - before);
            let by_model: i64 = sums.models.values().map(|model| model.after_nanousd - model.before_nanousd).sum();
            prop_assert_eq!(by_model, after - before);
        }
    }
}
