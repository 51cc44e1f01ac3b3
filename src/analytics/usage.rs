//! Figures over a time: totals, series, groups, the trend and the forecast.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::csv::{Cell as CsvCell, Csv};
use super::{Analytics, AnalyticsError, tags};
use crate::domain::report::cells::{Cell, Cut};
use crate::domain::report::figures::Figures;
use crate::domain::report::forecast::{forecast, needs_from};
use crate::domain::report::hour::{Day, Hour};
use crate::domain::report::usage::{Granularity, Group, GroupBy, UsageQuestion, UsageReport};
use crate::store::usage::SumsQuestion;

/// What a group is about: an id, a name, or neither.
type GroupKey = (Uuid, String);
/// Figures by the points they belong to.
type Series = BTreeMap<DateTime<Utc>, Figures>;

/// Figures of groups, while they are gathered.
#[derive(Default)]
struct Gathered {
    totals: Figures,
    series: Series,
    groups: HashMap<GroupKey, (Figures, Series)>,
}

impl Analytics {
    /// Answers a question about usage. Every request is in the answer once that the database had when it was asked.
    ///
    /// # Errors
    /// The database fails, or takes too long.
    pub async fn usage(&self, question: &UsageQuestion) -> Result<UsageReport, AnalyticsError> {
        self.in_turn(self.answer(question)).await
    }

    async fn answer(&self, question: &UsageQuestion) -> Result<UsageReport, AnalyticsError> {
        let names = self.names(question).await?;
        let filter_cut = question.filter.cut();
        let cut = question.group_by.map_or(filter_cut, |by| filter_cut.and(by.cut()));
        let sums = SumsQuestion {
            organization: question.organization,
            from: question.from,
            to: question.to,
            cut,
            filter: question.filter.clone(),
            by_hour: question.granularity == Granularity::Hour,
            percentiles: true,
        };
        let mut gathered = Gathered::default();
        self.store
            .fold_usage(&sums, |at, cell, figures| {
                let point = question.granularity.point_of(at);
                gathered.totals.merge(&figures);
                gathered.series.entry(point).or_default().merge(&figures);
                for group in names.groups_of(question.group_by, &cell) {
                    let (whole, series) = gathered.groups.entry(group).or_default();
                    whole.merge(&figures);
                    series.entry(point).or_default().merge(&figures);
                }
            })
            .await?;
        let mut previous = Figures::default();
        let before = SumsQuestion {
            from: question.from.plus(question.from.0 - question.to.0),
            to: question.from,
            cut: filter_cut,
            by_hour: false,
            ..sums.clone()
        };
        self.store
            .fold_usage(&before, |_, _, figures| previous.merge(&figures))
            .await?;
        let mut daily: BTreeMap<Day, i64> = BTreeMap::new();
        let ahead = SumsQuestion {
            from: needs_from(question.now),
            to: Hour::at(question.now).plus(1),
            percentiles: false,
            ..before
        };
        self.store
            .fold_usage(&ahead, |at, _, figures| {
                *daily.entry(Hour::at(at).day()).or_default() += figures.cost_nanousd
            })
            .await?;
        let daily: Vec<(Day, i64)> = daily.into_iter().collect();
        let (groups, others) = names.sorted(gathered.groups, question);
        Ok(UsageReport {
            totals: gathered.totals,
            previous,
            series: gathered.series.into_iter().collect(),
            groups,
            others,
            forecast: forecast(question.now, &daily),
        })
    }

    async fn names(&self, question: &UsageQuestion) -> Result<Names, AnalyticsError> {
        let mut names = Names::default();
        match question.group_by {
            Some(GroupBy::Key) => {
                let keys = self.store.key_labels(question.organization).await?;
                names.by_id = keys.into_iter().map(|key| (key.id, key.name)).collect();
            }
            Some(GroupBy::Tag) => {
                let keys = self.store.key_labels(question.organization).await?;
                names.tags = keys.iter().map(|key| (key.id, tags(key).collect())).collect();
            }
            Some(GroupBy::Team) => {
                names.by_id = self
                    .store
                    .team_names(question.organization)
                    .await?
                    .into_iter()
                    .collect()
            }
            Some(GroupBy::Organization) => names.by_id = self.store.organization_names().await?.into_iter().collect(),
            Some(GroupBy::Model | GroupBy::Provider) | None => {}
        }
        Ok(names)
    }
}

/// What groups are called.
#[derive(Default)]
struct Names {
    by_id: HashMap<Uuid, String>,
    tags: HashMap<Uuid, Vec<String>>,
}

impl Names {
    /// The groups that a cell belongs to.
    fn groups_of(&self, by: Option<GroupBy>, cell: &Cell) -> Vec<GroupKey> {
        let named = |id: Uuid| vec![(id, String::new())];
        match by {
            None => Vec::new(),
            Some(GroupBy::Model) => vec![(Uuid::nil(), cell.model.clone())],
            Some(GroupBy::Provider) => vec![(Uuid::nil(), cell.provider.clone())],
            Some(GroupBy::Key) => named(cell.key),
            Some(GroupBy::Team) => named(cell.team),
            Some(GroupBy::Organization) => named(cell.organization),
            Some(GroupBy::Tag) => match self.tags.get(&cell.key) {
                Some(tags) if !tags.is_empty() => tags.iter().map(|tag| (Uuid::nil(), tag.clone())).collect(),
                _ => vec![(Uuid::nil(), String::new())],
            },
        }
    }

    /// Groups with their names, dearest first, and what is beyond the most that were asked for.
    fn sorted(
        &self,
        groups: HashMap<GroupKey, (Figures, Series)>,
        question: &UsageQuestion,
    ) -> (Vec<Group>, Option<Group>) {
        let mut groups: Vec<(GroupKey, (Figures, Series))> = groups.into_iter().collect();
        groups.sort_by(|(one, (of_one, _)), (other, (of_other, _))| {
            let weight = |figures: &Figures| (figures.cost_nanousd, figures.requests);
            weight(of_other).cmp(&weight(of_one)).then_with(|| one.cmp(other))
        });
        let beyond = groups.split_off(groups.len().min(question.most_groups));
        // Tags overlap, so that what is left over of them is no sum of requests.
        let others = (!beyond.is_empty() && question.group_by != Some(GroupBy::Tag)).then(|| {
            let (mut figures, mut series) = (Figures::default(), Series::new());
            for (_, (of_one, points)) in beyond {
                figures.merge(&of_one);
                for (at, of_point) in points {
                    series.entry(at).or_default().merge(&of_point);
                }
            }
            Group {
                id: None,
                name: None,
                figures,
                series: series.into_iter().collect(),
            }
        });
        let shown = groups.into_iter().map(|((id, name), (figures, series))| Group {
            id: (!id.is_nil()).then_some(id),
            name: if id.is_nil() {
                Some(name).filter(|name| !name.is_empty())
            } else {
                self.by_id.get(&id).cloned()
            },
            figures,
            series: series.into_iter().collect(),
        });
        (shown.collect(), others)
    }
}

/// The columns of figures as a table.
const COLUMNS: [&str; 21] = [
    "starts_at",
    "group_id",
    "group_name",
    "requests",
    "failed",
    "success_rate",
    "cache_hits",
    "attempts",
    "estimated",
    "unpriced",
    "input_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost_nanousd",
    "saved_nanousd",
    "latency_p50_ms",
    "latency_p95_ms",
    "latency_p99_ms",
    "first_token_p95_ms",
];

/// What the groups beyond the most that were asked for are called together in a table.
const OTHERS: &str = "(others)";

/// A report as a table: a line for each point, of each group where there are groups, and of what is beyond the most of them,
/// so that the lines add up to the totals. Tags overlap and do not. A piece for each group, made when it is asked for.
pub fn table(report: UsageReport, grouped: bool) -> impl Iterator<Item = String> + Send + 'static {
    let mut csv = Csv::default();
    csv.line(COLUMNS.map(Into::into));
    let head = std::iter::once(csv.take());
    let parts = parts(report, grouped).into_iter();
    head.chain(parts.filter(|part| !part.series.is_empty()).map(lines))
}

/// A report as a table of its groups: a line for each one over the whole time, which began at `from`.
pub fn breakdown(report: UsageReport, grouped: bool, from: DateTime<Utc>) -> String {
    let mut csv = Csv::default();
    csv.line(COLUMNS.map(Into::into));
    for part in parts(report, grouped) {
        csv.line(line(from, part.id, part.name.as_deref(), &part.figures));
    }
    csv.take()
}

/// The failed requests of a report as a table: a line for each point and each class that failed then.
pub fn errors(report: &UsageReport) -> String {
    let mut csv = Csv::default();
    csv.line(["starts_at", "error_class", "requests"].map(Into::into));
    for (at, figures) in &report.series {
        for (class, count) in figures.errors.iter().filter(|(_, count)| **count > 0) {
            csv.line([second(*at).into(), class.as_str().into(), (*count).into()]);
        }
    }
    csv.take()
}

/// The groups of a report and what is beyond them, or everything as one.
fn parts(report: UsageReport, grouped: bool) -> Vec<Group> {
    if grouped {
        let others = report.others.map(|others| Group {
            name: Some(OTHERS.to_owned()),
            ..others
        });
        return report.groups.into_iter().chain(others).collect();
    }
    vec![Group {
        id: None,
        name: None,
        figures: report.totals,
        series: report.series,
    }]
}

fn lines(part: Group) -> String {
    let mut csv = Csv::default();
    for (at, figures) in &part.series {
        csv.line(line(*at, part.id, part.name.as_deref(), figures));
    }
    csv.take()
}

fn second(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

fn line<'c>(at: DateTime<Utc>, id: Option<Uuid>, name: Option<&'c str>, figures: &Figures) -> [CsvCell<'c>; 21] {
    let ms = |us: Option<f64>| us.map(|us| us / 1_000.0);
    [
        second(at).into(),
        id.map(|id| id.to_string()).into(),
        name.into(),
        figures.requests.into(),
        figures.failed().into(),
        figures.success_rate().into(),
        figures.cache_hits.into(),
        figures.attempts.into(),
        figures.estimated.into(),
        figures.unpriced.into(),
        figures.input_tokens.into(),
        figures.cached_tokens.into(),
        figures.cache_write_tokens.into(),
        figures.output_tokens.into(),
        figures.reasoning_tokens.into(),
        figures.cost_nanousd.into(),
        figures.saved_nanousd.into(),
        ms(figures.latency.quantile(0.5)).into(),
        ms(figures.latency.quantile(0.95)).into(),
        ms(figures.latency.quantile(0.99)).into(),
        ms(figures.first_token.quantile(0.95)).into(),
    ]
}

/// The cut that figures of deployments are read from.
pub(super) const BY_DEPLOYMENT: Cut = Cut::Everything;
