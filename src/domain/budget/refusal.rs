//! Why a budget stops a call, in words for whoever gets the answer.

use std::fmt;

use chrono::{DateTime, NaiveTime, Utc};

use super::super::ids::{ModelName, ProviderId};
use super::super::money::NanoUsd;
use super::Budget;

/// Why a budget stops a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BudgetRefusal {
    /// What the budget is for: `key "search"`.
    pub label: String,
    /// The kind of what it is for, out of the closed set.
    pub scope: &'static str,
    /// The reason.
    pub reason: Reason,
    /// How much was spent, at the least.
    pub spent: NanoUsd,
    /// The amount of the budget.
    pub amount: NanoUsd,
    /// What the amount is for, as one speaks of it: `this month`.
    pub period: &'static str,
    /// When it begins anew, as people say it.
    resets: String,
}

/// The reasons.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reason {
    /// Nothing of it is left, or less than the call may cost.
    UsedUp {
        /// What the call may cost.
        worst: NanoUsd,
        /// The limit on the answer's tokens with which it would fit.
        fits: Option<u64>,
    },
    /// The call may cost more than the whole budget.
    TooLarge {
        /// What the call may cost.
        worst: NanoUsd,
        /// The limit on the answer's tokens with which it would fit.
        fits: Option<u64>,
    },
    /// Calls under way hold what is left, and did not end while the call waited.
    Held,
    /// Nobody knows what the call would cost.
    Unpriced {
        /// Who would have served it.
        provider: ProviderId,
        /// The model.
        model: ModelName,
    },
    /// The database could not be asked how much is left.
    Unknown,
}

impl Reason {
    /// The text form, for metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::UsedUp { .. } => "used_up",
            Self::TooLarge { .. } => "too_large",
            Self::Held => "held",
            Self::Unpriced { .. } => "unpriced",
            Self::Unknown => "unknown",
        }
    }
}

impl BudgetRefusal {
    /// The refusal of a budget of which so much was spent, in the period that ends then.
    pub fn new(budget: &Budget, reason: Reason, spent: NanoUsd, ends: Option<DateTime<Utc>>) -> Self {
        Self {
            label: budget.label.clone(),
            scope: budget.scope.kind(),
            reason,
            spent,
            amount: budget.terms.amount,
            period: budget.terms.period.spoken(),
            resets: match ends {
                Some(end) => {
                    let local = end.with_timezone(&budget.terms.zone);
                    let day = local.format("%F");
                    let zone = match budget.terms.zone {
                        chrono_tz::UTC => String::new(),
                        zone => format!(" ({zone})"),
                    };
                    match local.time() == NaiveTime::MIN {
                        true => format!("it resets on {day}{zone}"),
                        false => format!("it resets on {day} at {}{zone}", local.format("%R")),
                    }
                }
                None => "it does not reset".to_owned(),
            },
        }
    }
}

impl BudgetRefusal {
    /// Whether another deployment may serve the same call. A call that has waited does not wait once more for a budget
    /// that is about the caller.
    pub fn another_may_serve(&self) -> bool {
        match self.reason {
            Reason::UsedUp { .. } | Reason::TooLarge { .. } | Reason::Unpriced { .. } => true,
            Reason::Held | Reason::Unknown => matches!(self.scope, "provider" | "model"),
        }
    }
}

impl fmt::Display for BudgetRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            label,
            amount,
            period,
            resets,
            ..
        } = self;
        let (spent, of) = (dollars(self.spent), dollars(*amount));
        let smaller = |f: &mut fmt::Formatter<'_>, fits: &Option<u64>| match fits {
            Some(tokens) => write!(f, "; with max_tokens of at most {tokens} it would fit"),
            None => Ok(()),
        };
        match &self.reason {
            Reason::UsedUp { worst, fits } => {
                if self.spent >= *amount {
                    write!(f, "budget for {label} is used up ({spent} of {of} USD {period})")?;
                } else {
                    let worst = dollars(*worst);
                    write!(
                        f,
                        "budget for {label} is nearly used up ({spent} of {of} USD {period}), and this call may cost \
                         {worst} USD"
                    )?;
                    smaller(f, fits)?;
                }
                write!(f, "; {resets}")
            }
            Reason::TooLarge { worst, fits } => {
                let worst = dollars(*worst);
                write!(
                    f,
                    "this call may cost {worst} USD, more than the whole budget for {label} ({of} USD {period})"
                )?;
                smaller(f, fits)
            }
            Reason::Held => write!(
                f,
                "what is left of the budget for {label} is held by calls under way ({spent} of {of} USD spent {period}); \
                 try again when they have ended"
            ),
            Reason::Unpriced { provider, model } => write!(
                f,
                "there is no price for {model:?} at {provider}, so the budget for {label} could not be held; an \
                 administrator can set a price, or allow calls without one for this budget",
                model = model.as_str()
            ),
            Reason::Unknown => write!(
                f,
                "how much is left of the budget for {label} cannot be found out right now; try again later"
            ),
        }
    }
}

/// Dollars with at least two decimals, as on a bill, and all that are not zero.
pub fn dollars(amount: NanoUsd) -> String {
    let text = amount.to_string();
    match text.split_once('.') {
        None => format!("{text}.00"),
        Some((_, cents)) if cents.len() == 1 => format!("{text}0"),
        Some(_) => text,
    }
}

#[cfg(test)]
mod tests {
    use chrono_tz::Tz;
    use uuid::Uuid;

    use super::super::calendar::Period;
    use super::super::{BudgetId, BudgetScope, BudgetTerms, Enforcement, Unpriced};
    use super::*;
    use crate::domain::ids::OrganizationId;
    use crate::domain::key::Revision;

    fn usd(text: &str) -> NanoUsd {
        NanoUsd::parse_usd(text).unwrap()
    }

    fn said(amount: &str, period: Period, zone: Tz, spent: &str, reason: Reason) -> String {
        let budget = Budget {
            id: BudgetId(Uuid::nil()),
            organization: OrganizationId(Uuid::nil()),
            scope: BudgetScope::Organization,
            label: "key \"team-a\"".into(),
            terms: BudgetTerms {
                amount: usd(amount),
                period,
                zone,
                enforcement: Enforcement::Hard,
                unpriced: Unpriced::Refuse,
                default_output_tokens: None,
                thresholds: [100].into_iter().collect(),
                enabled: true,
            },
            revision: Revision(1),
        };
        let span = period.span(zone, "2026-11-29T12:00:00Z".parse().unwrap());
        BudgetRefusal::new(&budget, reason, usd(spent), span.end).to_string()
    }

    #[test]
    fn a_refusal_names_the_budget_the_amounts_and_the_way_out() {
        use Period::{Daily, Monthly, Total};
        let used_up = |fits| Reason::UsedUp {
            worst: usd("0.081"),
            fits,
        };
        assert_eq!(
            said("50", Monthly, Tz::UTC, "50", used_up(None)),
            "budget for key \"team-a\" is used up (50.00 of 50.00 USD this month); it resets on 2026-12-01"
        );
        assert_eq!(
            said("50", Daily, chrono_tz::Europe::Berlin, "49.97", used_up(Some(120))),
            "budget for key \"team-a\" is nearly used up (49.97 of 50.00 USD today), and this call may cost 0.081 USD; \
             with max_tokens of at most 120 it would fit; it resets on 2026-11-30 (Europe/Berlin)"
        );
        let worst = usd("1.5");
        assert_eq!(
            said("1", Total, Tz::UTC, "0", Reason::TooLarge { worst, fits: Some(7) }),
            "this call may cost 1.50 USD, more than the whole budget for key \"team-a\" (1.00 USD in total); with \
             max_tokens of at most 7 it would fit"
        );
        assert!(said("1", Total, Tz::UTC, "1", used_up(None)).ends_with("it does not reset"));
    }
}
