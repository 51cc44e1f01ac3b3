//! What an organization could do for less.

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// Traffic that another deployment would have served for less.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cheaper {
    /// Who served it, and the model.
    pub deployment: String,
    /// Requests.
    pub requests: i64,
    /// What it cost, at the prices that were paid.
    pub cost_nanousd: i64,
    /// The deployment that would have cost least.
    pub alternative: String,
    /// What the same tokens cost there, at today's price.
    pub alternative_nanousd: i64,
}

/// What caches did and could do.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Caching {
    /// Requests.
    pub requests: i64,
    /// Answers out of the response cache.
    pub hits: i64,
    /// What they saved.
    pub saved_nanousd: i64,
    /// Tokens read by models whose prompt cache has a price of its own.
    pub input_tokens: i64,
    /// Those of them that came out of a prompt cache.
    pub cached_tokens: i64,
    /// What that saved, at today's prices.
    pub prompt_saved_nanousd: i64,
    /// What would be saved besides if all other prompt tokens had come out of it: what caching of prompts can gain at most.
    pub prompt_possible_nanousd: i64,
}

/// A key that nobody uses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdleKey {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// When it was last used.
    pub last_used_at: Option<DateTime<Utc>>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// A budget that will not last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AtRisk {
    /// Its id.
    pub id: Uuid,
    /// What it is for: `organization`, `team`, `key`, `provider`, `model` or `tag`.
    pub scope: String,
    /// Which one; empty for the organization.
    pub reference: String,
    /// Its amount.
    pub amount_nanousd: i64,
    /// What was spent of it.
    pub spent_nanousd: i64,
    /// What will have been at the end of its period, if it goes on as since its beginning.
    pub expected_nanousd: i64,
    /// When it will be used up then; in the past where it is.
    pub used_up_at: DateTime<Utc>,
    /// When its period ends.
    pub ends_at: DateTime<Utc>,
}

/// Everything together.
#[derive(Clone, Default, Debug)]
pub struct Insights {
    /// Traffic that another deployment of the same model would have served for less, most first.
    pub cheaper: Vec<Cheaper>,
    /// Caches.
    pub caching: Caching,
    /// Keys that nobody uses, least recently used first.
    pub idle_keys: Vec<IdleKey>,
    /// Budgets that will not last, soonest used up first.
    pub at_risk: Vec<AtRisk>,
}

/// What a budget will have spent at the end of its span, and when it is used up, if it goes on as since the beginning.
/// `None`: it lasts, or the span has hardly begun.
pub fn runs_out(
    (start, end): (DateTime<Utc>, DateTime<Utc>),
    now: DateTime<Utc>,
    amount_nanousd: i64,
    spent_nanousd: i64,
) -> Option<(i64, DateTime<Utc>)> {
    let length = i128::from((end - start).num_seconds());
    let gone = i128::from((now - start).num_seconds()).clamp(0, length);
    if spent_nanousd >= amount_nanousd {
        return Some((spent_nanousd, now));
    }
    // In the first hundredth of it any single call would be a trend.
    if gone * 100 < length || gone == 0 || spent_nanousd <= 0 {
        return None;
    }
    let expected = i128::from(spent_nanousd) * length / gone;
    if expected <= i128::from(amount_nanousd) {
        return None;
    }
    let until = i128::from(amount_nanousd) * gone / i128::from(spent_nanousd);
    let until = i64::try_from(until).ok().and_then(chrono::TimeDelta::try_seconds)?;
    Some((i64::try_from(expected).unwrap_or(i64::MAX), start + until))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn a_budget_is_at_risk_if_it_would_not_last_its_period() {
        let span = (at("2026-11-01T00:00:00Z"), at("2026-12-01T00:00:00Z"));
        let now = at("2026-11-11T00:00:00Z");
        assert_eq!(runs_out(span, now, 300, 100), None);
        assert_eq!(runs_out(span, now, 200, 100), Some((300, at("2026-11-21T00:00:00Z"))));
        assert_eq!(runs_out(span, now, 100, 120), Some((120, now)));
        assert_eq!(
            runs_out(span, at("2026-11-01T01:00:00Z"), 200, 100),
            None,
            "too early to say"
        );
        assert_eq!(runs_out(span, now, 200, 0), None);
    }
}
