//! What is wrong or getting old in the prices and models a configuration uses: the findings of `bonito prices check`.
//!
//! Pure: the day is passed in. Only what enabled providers serve is looked at.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{Days, NaiveDate};

use super::catalog::{Catalog, Deployment, same_figures};
use super::catalog_file::Mode;
use crate::config::{Settings, Unlisted};
use crate::domain::pricing::Price;

/// What a finding is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// List prices that nobody has looked at for long.
    Stale,
    /// Something that is served and has no price, so its cost is unknown.
    Unpriced,
    /// A model that its provider has stopped serving.
    Retired,
    /// A model that its provider will soon stop serving.
    Retiring,
    /// An alias, or a part of one, that no configured provider serves.
    Alias,
    /// A price of one's own that is not the list price.
    Differs,
}

impl Kind {
    /// The text form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::Unpriced => "unpriced",
            Self::Retired => "retired",
            Self::Retiring => "retiring",
            Self::Alias => "alias",
            Self::Differs => "differs",
        }
    }
}

/// One thing to look at.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Finding {
    /// What it is about.
    pub kind: Kind,
    /// A deployment, a provider or an alias.
    pub subject: String,
    /// What was found, as a phrase.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<9} {}: {}", self.kind.as_str(), self.subject, self.detail)
    }
}

/// The day a check is made for, and what it calls old and soon.
#[derive(Clone, Copy, Debug)]
pub struct Calendar {
    /// The day.
    pub today: NaiveDate,
    /// List prices older than this many days are stale.
    pub stale_after_days: u32,
    /// Models that retire within this many days are retiring.
    pub notice_days: u32,
}

/// Everything there is to look at, by kind and subject.
pub fn check(settings: &Settings, catalog: &Catalog, calendar: Calendar) -> Vec<Finding> {
    let mut findings = stale(catalog, calendar);
    for deployment in catalog
        .deployments()
        .filter(|deployment| deployment.mode != Mode::Responses)
    {
        findings.extend(of_deployment(deployment, calendar));
    }
    for provider in settings.providers.iter().filter(|provider| provider.enabled) {
        if provider.unlisted_models == Unlisted::Forward {
            findings.push(Finding {
                kind: Kind::Unpriced,
                subject: provider.id.clone(),
                detail: "it forwards models that nobody listed, and those have no price".to_owned(),
            });
        }
    }
    for (alias, models) in &settings.aliases {
        for model in models.iter().filter(|model| !catalog.stands_for_something(model)) {
            findings.push(Finding {
                kind: Kind::Alias,
                subject: alias.clone(),
                detail: format!("no configured provider serves {model}"),
            });
        }
    }
    findings.sort();
    findings
}

/// One finding for each provider, because its prices are looked up together.
fn stale(catalog: &Catalog, calendar: Calendar) -> Vec<Finding> {
    let limit = calendar
        .today
        .checked_sub_days(Days::new(u64::from(calendar.stale_after_days)));
    let mut old: BTreeMap<&str, (usize, NaiveDate)> = BTreeMap::new();
    for deployment in catalog.deployments() {
        let Some(as_of) = charged_list_price(deployment) else {
            continue;
        };
        if limit.is_some_and(|limit| as_of < limit) {
            let entry = old.entry(deployment.provider.as_str()).or_insert((0, as_of));
            *entry = (entry.0 + 1, entry.1.min(as_of));
        }
    }
    let finding = |(provider, (count, oldest)): (&str, (usize, NaiveDate))| Finding {
        kind: Kind::Stale,
        subject: provider.to_owned(),
        detail: format!(
            "{count} list {} older than {} days, the oldest of {oldest}",
            if count == 1 { "price is" } else { "prices are" },
            calendar.stale_after_days
        ),
    };
    // The built-in model costs nothing for ever.
    old.into_iter()
        .filter(|(provider, _)| *provider != "echo")
        .map(finding)
        .collect()
}

/// The date of the list price that a deployment is charged by, if it is.
fn charged_list_price(deployment: &Deployment) -> Option<NaiveDate> {
    let list = deployment.list_price.as_ref()?;
    let charged = deployment.price.as_ref()?;
    (charged.version == list.price.version).then_some(list.as_of).flatten()
}

fn of_deployment(deployment: &Deployment, calendar: Calendar) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |kind, detail| {
        findings.push(Finding {
            kind,
            subject: deployment.id.as_str().to_owned(),
            detail,
        });
    };
    if let Some(date) = deployment.retires {
        let soon = calendar
            .today
            .checked_add_days(Days::new(u64::from(calendar.notice_days)));
        if date <= calendar.today {
            add(Kind::Retired, format!("its provider retired it on {date}"));
        } else if soon.is_some_and(|soon| date <= soon) {
            add(Kind::Retiring, format!("its provider retires it on {date}"));
        }
    }
    match (&deployment.price, &deployment.list_price) {
        (None, _) => add(
            Kind::Unpriced,
            "it has no price; write input_usd and output_usd".to_owned(),
        ),
        (Some(own), Some(list)) if !same_figures(own, &list.price) => {
            add(
                Kind::Differs,
                format!("{}, while the list says {}", shown(own), shown(&list.price)),
            );
        }
        (Some(_), _) => {}
    }
    findings
}

/// The rates in a few words, so that the difference can be seen.
fn shown(price: &Price) -> String {
    let mut text = format!("input {} output {}", price.rates.input, price.rates.output);
    let optional = [
        ("cache read", price.rates.cache_read),
        ("cache write", price.rates.cache_write),
        ("one-hour write", price.rates.cache_write_1h),
        ("batch input", price.batch.map(|batch| batch.input)),
        ("batch output", price.batch.map(|batch| batch.output)),
    ];
    for (name, rate) in optional {
        if let Some(rate) = rate {
            text.push_str(&format!(" {name} {rate}"));
        }
    }
    if let Some(long) = price.long_prompt {
        let rates = long.rates;
        text.push_str(&format!(
            " above {} tokens input {} output {}",
            long.above_tokens, rates.input, rates.output
        ));
    }
    text
}
