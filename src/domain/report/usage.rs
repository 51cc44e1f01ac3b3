//! A question about usage and its answer.

use std::collections::BTreeSet;

use chrono::{DateTime, Datelike as _, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::cells::Cut;
use super::figures::Figures;
use super::forecast::{Forecast, midnight};
use super::hour::Hour;
use crate::domain::ids::OrganizationId;

/// How long the points of a series are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Granularity {
    /// Hours.
    Hour,
    /// Days of UTC.
    Day,
    /// Months of UTC.
    Month,
}

impl Granularity {
    /// The beginning of the point that an hour belongs to.
    pub fn point_of(self, time: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Self::Hour => Hour::at(time).start(),
            Self::Day => Hour::at(time).day().start(),
            Self::Month => midnight(time.date_naive().with_day(1).unwrap_or(time.date_naive())),
        }
    }
}

/// By what figures are grouped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupBy {
    /// The model that served.
    Model,
    /// The provider that served.
    Provider,
    /// The key.
    Key,
    /// The key's team at the time.
    Team,
    /// The tags that the key has now. A request of a key with several counts for each of them.
    Tag,
    /// The organization.
    Organization,
}

impl GroupBy {
    /// The cut that tells the groups apart.
    pub fn cut(self) -> Cut {
        match self {
            Self::Model => Cut::Model,
            Self::Provider => Cut::Provider,
            Self::Key | Self::Tag => Cut::Key,
            Self::Team => Cut::Team,
            Self::Organization => Cut::Nothing,
        }
    }
}

/// Which requests are meant. What is `None` does not matter.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UsageFilter {
    /// Those of one of these keys.
    pub keys: Option<BTreeSet<Uuid>>,
    /// Those of keys of this team.
    pub team: Option<Uuid>,
    /// Those this provider served.
    pub provider: Option<String>,
    /// Those this model served.
    pub model: Option<String>,
}

impl UsageFilter {
    /// The cut that tells apart what is meant.
    pub fn cut(&self) -> Cut {
        let parts = [
            self.keys.as_ref().map(|_| Cut::Key),
            self.team.map(|_| Cut::Team),
            self.provider.as_ref().map(|_| Cut::Provider),
            self.model.as_ref().map(|_| Cut::Model),
        ];
        parts.into_iter().flatten().fold(Cut::Nothing, Cut::and)
    }
}

/// A question about usage.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UsageQuestion {
    /// Whose; `None`: everybody's.
    pub organization: Option<OrganizationId>,
    /// The first hour.
    pub from: Hour,
    /// The hour after the last one.
    pub to: Hour,
    /// How long the points of series are.
    pub granularity: Granularity,
    /// By what figures are grouped, besides.
    pub group_by: Option<GroupBy>,
    /// How many groups are told apart at most, those that cost most first.
    pub most_groups: usize,
    /// Which requests.
    pub filter: UsageFilter,
    /// When it is asked.
    pub now: DateTime<Utc>,
}

/// The figures of one span of a series.
pub type Point = (DateTime<Utc>, Figures);

/// The figures of a group.
#[derive(Clone, Debug)]
pub struct Group {
    /// The id of what it is about; `None` where that has none, or for what has no such thing.
    pub id: Option<Uuid>,
    /// Its name: a model's, a key's…; `None`: the requests that have no such thing.
    pub name: Option<String>,
    /// Its figures.
    pub figures: Figures,
    /// The same over time.
    pub series: Vec<Point>,
}

/// An answer about usage.
#[derive(Clone, Debug)]
pub struct UsageReport {
    /// Everything together.
    pub totals: Figures,
    /// The same of the span of equal length before it.
    pub previous: Figures,
    /// The same over time; a span in which nothing happened has no point.
    pub series: Vec<Point>,
    /// By group, dearest first.
    pub groups: Vec<Group>,
    /// The groups beyond the most that were asked for, as one that has neither id nor name.
    pub others: Option<Group>,
    /// What this month will have cost, by the same filter.
    pub forecast: Option<Forecast>,
}

/// By what share something changed, from -1; `None`: there was nothing before.
pub fn change(before: i64, after: i64) -> Option<f64> {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a share for people; the counts stand beside it"
    )]
    let change = (after as f64 - before as f64) / before as f64;
    (before > 0).then_some(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_answered_from_the_coarsest_cut_that_can() {
        let mut filter = UsageFilter::default();
        assert_eq!(filter.cut(), Cut::Nothing);
        filter.model = Some("m".into());
        assert_eq!(filter.cut(), Cut::Model);
        assert_eq!(filter.cut().and(GroupBy::Organization.cut()), Cut::Model);
        assert_eq!(filter.cut().and(GroupBy::Tag.cut()), Cut::Everything);
    }

    #[test]
    fn points_begin_where_their_span_does() {
        let time: DateTime<Utc> = "2026-11-29T13:14:15Z".parse().unwrap();
        let begins = |granularity: Granularity| granularity.point_of(time).to_rfc3339();
        assert_eq!(begins(Granularity::Hour), "2026-11-29T13:00:00+00:00");
        assert_eq!(begins(Granularity::Day), "2026-11-29T00:00:00+00:00");
        assert_eq!(begins(Granularity::Month), "2026-11-01T00:00:00+00:00");
    }

    #[test]
    fn nothing_before_makes_no_trend() {
        assert_eq!(
            (change(0, 5), change(10, 5), change(10, 30)),
            (None, Some(-0.5), Some(2.0))
        );
    }
}
