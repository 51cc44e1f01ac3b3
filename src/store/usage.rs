//! Sums over requests: kept by hour and by day, and read together with the rows they do not have yet.
//!
//! A batch of the ledger leaves a mark on each hour it has rows of, in its own transaction (`mark`). An hour without a
//! mark is exactly what its sums say; an hour with one is read from its rows. So a question has every request once,
//! whatever was summed up when. Sums are made from one snapshot of the database that has the marks too; the marks are
//! then taken away only if they are still the same ([`Store::write_hour`]). If a batch came in between, they are not, and
//! what was made is thrown away. Whoever makes sums may therefore fail, be late or have company.
//!
//! Rows of some hours are gone (`Gone`): everybody's, and before others those of an organization that keeps its own for a
//! shorter time. Of these hours the sums are what is left, whatever marks they get: a row that comes that late is counted
//! besides, and added to the sums and removed when they are made again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use entity::usage_rollups::{daily, hourly};
use entity::{gateway_attempts, gateway_keys, gateway_meta, gateway_requests, usage_pending};
use futures_util::TryStreamExt as _;
use sea_orm::sea_query::{Alias, Expr, ExprTrait as _, OnConflict, Query, SelectStatement};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DatabaseBackend, DatabaseTransaction, EntityTrait, FromQueryResult,
    IsolationLevel, Iterable as _, QueryFilter, QueryOrder, QuerySelect, Set, TransactionOptions,
};
use uuid::Uuid;

use super::many::one_of;
use super::{Store, StoreError, begin};
use crate::domain::call::CacheStatus;
use crate::domain::ids::{KeyId, OrganizationId, RequestId};
use crate::domain::record::Metering;
use crate::domain::report::cells::{Cell, Cells, Cut};
use crate::domain::report::figures::{Counted, Figures};
use crate::domain::report::hour::{Day, Hour};
use crate::domain::report::sketch::Sketch;
use crate::domain::report::usage::UsageFilter;

/// Rows that are read at a time; memory is bounded by it.
const ROWS_AT_ONCE: u64 = 5_000;
/// The fact that says up to which hour rows are gone.
const PURGED_BEFORE: &str = "requests_purged_before_hour";
/// An hour that no request is after: in the year 9955, which both databases still sort behind today.
const NEVER: Hour = Hour(70_000_000);
/// The text forms of spans in marks.
const HOUR: &str = "hour";
const DAY: &str = "day";

/// The marks that were on a span.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Marks(Vec<(Uuid, Uuid)>);

impl Marks {
    /// Whether there were none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What was read of an hour.
#[derive(Debug)]
pub struct HourRead {
    hour: Hour,
    marks: Marks,
    gone: Gone,
    /// Rows that were read and came after the others of their organization's hour had been removed.
    late: Vec<Uuid>,
}

/// The hours before which rows are gone: everybody's, and those of organizations that keep theirs for a shorter time.
#[derive(Clone, Debug)]
pub(super) struct Gone {
    all: Hour,
    own: HashMap<Uuid, Hour>,
}

impl Gone {
    /// What is gone of an organization, or of every one.
    pub(super) async fn read(
        db: &impl ConnectionTrait,
        organization: Option<OrganizationId>,
    ) -> Result<Self, StoreError> {
        use gateway_meta::Column;
        let facts = match organization {
            Some(organization) => Column::Name.eq(purged_before_of(organization)),
            None => Column::Name.starts_with(format!("{PURGED_BEFORE}:")),
        };
        let facts = gateway_meta::Entity::find().filter(facts).all(db).await?;
        let own = facts.into_iter().filter_map(|fact| {
            let (_, organization) = fact.name.split_once(':')?;
            Some((organization.parse().ok()?, Hour(fact.value.parse().ok()?)))
        });
        Ok(Self {
            all: purged_before(db).await?,
            own: own.collect(),
        })
    }

    /// The hour before which an organization's rows are gone.
    pub(super) fn before(&self, organization: Uuid) -> Hour {
        self.own.get(&organization).map_or(self.all, |own| self.all.max(*own))
    }

    /// The hour from which on nobody's rows are gone.
    fn end(&self) -> Hour {
        self.own.values().fold(self.all, |end, own| end.max(*own))
    }
}

impl HourRead {
    /// Whether the hour has to be summed up.
    pub fn is_pending(&self) -> bool {
        !self.marks.is_empty()
    }
}

/// Which sums are asked for.
#[derive(Clone, Debug)]
pub struct SumsQuestion {
    /// Whose; `None`: everybody's.
    pub organization: Option<OrganizationId>,
    /// The first hour.
    pub from: Hour,
    /// The hour after the last one.
    pub to: Hour,
    /// Which cut; it must tell apart what the filter asks for.
    pub cut: Cut,
    /// Which cells.
    pub filter: UsageFilter,
    /// Whether hours have to be told apart.
    pub by_hour: bool,
    /// Whether percentiles are asked for. Reading them costs more than everything else.
    pub percentiles: bool,
}

/// Leaves a mark on hours, in the transaction that changes their rows.
pub(super) async fn mark(
    transaction: &DatabaseTransaction,
    replica: Uuid,
    hours: impl IntoIterator<Item = Hour>,
) -> Result<(), StoreError> {
    let hours: BTreeSet<Hour> = hours.into_iter().collect();
    mark_spans(transaction, replica, HOUR, hours.into_iter().map(Hour::start).collect()).await
}

async fn mark_spans(
    transaction: &DatabaseTransaction,
    replica: Uuid,
    span: &'static str,
    starts: Vec<DateTime<Utc>>,
) -> Result<(), StoreError> {
    use usage_pending::Column;
    let token = Uuid::now_v7();
    let marks: Vec<usage_pending::ActiveModel> = starts
        .into_iter()
        .map(|starts_at| usage_pending::ActiveModel {
            span: Set(span.to_owned()),
            starts_at: Set(starts_at),
            replica_id: Set(replica),
            token: Set(token),
        })
        .collect();
    if marks.is_empty() {
        return Ok(());
    }
    let renew = OnConflict::columns([Column::Span, Column::StartsAt, Column::ReplicaId])
        .update_column(Column::Token)
        .to_owned();
    usage_pending::Entity::insert_many(marks)
        .on_conflict(renew)
        .exec_without_returning(transaction)
        .await
        .map(drop)
}

impl Store {
    /// Begins to read what must be of one moment.
    pub(super) async fn moment(&self) -> Result<DatabaseTransaction, StoreError> {
        let isolation = (self.backend() == DatabaseBackend::Postgres).then_some(IsolationLevel::RepeatableRead);
        let options = TransactionOptions {
            isolation_level: isolation,
            ..Default::default()
        };
        begin(&self.db, options).await
    }

    /// Hours before one whose sums are not up to date, oldest first.
    ///
    /// # Errors
    /// The database fails.
    pub async fn pending_hours(&self, before: Hour, most: u64) -> Result<Vec<Hour>, StoreError> {
        let starts = self.pending(HOUR, before.start(), most).await?;
        Ok(starts.into_iter().map(Hour::at).collect())
    }

    /// Days before one whose sums are not up to date, oldest first.
    ///
    /// # Errors
    /// The database fails.
    pub async fn pending_days(&self, before: Day, most: u64) -> Result<Vec<Day>, StoreError> {
        let starts = self.pending(DAY, before.start(), most).await?;
        Ok(starts.into_iter().map(|start| Hour::at(start).day()).collect())
    }

    async fn pending(&self, span: &str, before: DateTime<Utc>, most: u64) -> Result<Vec<DateTime<Utc>>, StoreError> {
        use usage_pending::Column;
        usage_pending::Entity::find()
            .select_only()
            .column(Column::StartsAt)
            .distinct()
            .filter(Column::Span.eq(span))
            .filter(Column::StartsAt.lt(before))
            .order_by_asc(Column::StartsAt)
            .limit(most)
            .into_tuple()
            .all(&self.db)
            .await
    }

    /// Gives every request of an hour to `each`, and what [`Self::write_hour`] has to know.
    ///
    /// # Errors
    /// The database fails.
    pub async fn read_hour(&self, hour: Hour, mut each: impl FnMut(Cell, Counted)) -> Result<HourRead, StoreError> {
        let moment = self.moment().await?;
        let marks = marks_of(&moment, HOUR, hour.start()).await?;
        let gone = Gone::read(&moment, None).await?;
        let mut late = Vec::new();
        let anything = Condition::all();
        rows_between(&moment, (hour.first_id(), hour.plus(1).first_id()), &anything, |row| {
            if hour < gone.before(row.organization_id) {
                late.push(row.id);
            }
            let (cell, counted) = row.counted();
            each(cell, counted);
        })
        .await?;
        moment.commit().await?;
        Ok(HourRead {
            hour,
            marks,
            gone,
            late,
        })
    }

    /// Puts the sums of an hour in the place of those that were there, if no row has come since they were read. Says
    /// whether they are in force; if not, the hour is still marked.
    ///
    /// # Errors
    /// The database fails; nothing has changed.
    pub async fn write_hour(&self, read: HourRead, cells: Cells) -> Result<bool, StoreError> {
        let HourRead {
            hour,
            marks,
            gone,
            mut late,
        } = read;
        let transaction = self.begin().await?;
        if !take_marks(&transaction, HOUR, hour.start(), &marks).await? {
            transaction.rollback().await?;
            return Ok(false);
        }
        let mut cells = cells;
        if hour < gone.end() {
            let span = [(hour, hour.plus(1))];
            fold_sums(&transaction, "usage_hourly", None, &span, |_, cell, figures| {
                if hour < gone.before(cell.organization) {
                    cells.merge(cell, &figures);
                }
            })
            .await?;
            while !late.is_empty() {
                let part = late.split_off(late.len().saturating_sub(1_000));
                gateway_attempts::Entity::delete_many()
                    .filter(gateway_attempts::Column::RequestId.is_in(part.clone()))
                    .exec(&transaction)
                    .await?;
                gateway_requests::Entity::delete_many()
                    .filter(gateway_requests::Column::Id.is_in(part))
                    .exec(&transaction)
                    .await?;
            }
        }
        hourly::Entity::delete_many()
            .filter(hourly::Column::StartsAt.eq(hour.start()))
            .exec(&transaction)
            .await?;
        let rows: Vec<_> = cells
            .iter()
            .map(|(cell, figures)| hourly_row(cell, hour.start(), figures))
            .collect();
        self.inserts.run(&transaction, rows.into_iter()).await?;
        mark_spans(&transaction, self.replica, DAY, vec![hour.day().start()]).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Gives the sums of a day's hours to `each`, and what [`Self::write_day`] has to know. `None`: hours of it are not up
    /// to date.
    ///
    /// # Errors
    /// The database fails.
    pub async fn read_day(&self, day: Day, mut each: impl FnMut(Cell, &Figures)) -> Result<Option<Marks>, StoreError> {
        let moment = self.moment().await?;
        let marks = marks_of(&moment, DAY, day.start()).await?;
        let (first, end) = (day.first_hour(), day.next().first_hour());
        let hours = pending_between(&moment, first, end).await?;
        if hours.iter().any(|(span, _)| span == HOUR) {
            return Ok(None);
        }
        fold_sums(&moment, "usage_hourly", None, &[(first, end)], |_, cell, figures| {
            each(cell, &figures)
        })
        .await?;
        moment.commit().await?;
        Ok(Some(marks))
    }

    /// Puts the sums of a day in the place of those that were there, like [`Self::write_hour`].
    ///
    /// # Errors
    /// The database fails; nothing has changed.
    pub async fn write_day(&self, day: Day, marks: &Marks, cells: &Cells) -> Result<bool, StoreError> {
        let transaction = self.begin().await?;
        if !take_marks(&transaction, DAY, day.start(), marks).await? {
            transaction.rollback().await?;
            return Ok(false);
        }
        daily::Entity::delete_many()
            .filter(daily::Column::StartsAt.eq(day.start()))
            .exec(&transaction)
            .await?;
        let rows: Vec<_> = cells
            .iter()
            .map(|(cell, figures)| daily_row(cell, day.start(), figures))
            .collect();
        self.inserts.run(&transaction, rows.into_iter()).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Gives the sums that are asked for to `each`, with the beginnings of their spans: sums of days where they are up to
    /// date and hours need not be told apart, sums of hours where those are, and single requests for the rest.
    ///
    /// # Errors
    /// The database fails.
    pub async fn fold_usage(
        &self,
        question: &SumsQuestion,
        mut each: impl FnMut(DateTime<Utc>, Cell, Figures),
    ) -> Result<(), StoreError> {
        let moment = self.moment().await?;
        let pending = pending_between(&moment, question.from, question.to).await?;
        let plan = Plan::of(question, &pending);
        fold_sums(&moment, "usage_daily", Some(question), &plan.days, &mut each).await?;
        fold_sums(&moment, "usage_hourly", Some(question), &plan.hours, &mut each).await?;
        let gone = Gone::read(&moment, question.organization).await?;
        // Where rows are gone, those that are there came late and are not in the sums yet.
        let left: Vec<(Hour, Hour)> = plan
            .rows
            .iter()
            .map(|&(from, to)| (from, to.min(gone.end())))
            .filter(|(from, to)| from < to)
            .collect();
        fold_sums(&moment, "usage_hourly", Some(question), &left, |at, cell, figures| {
            if Hour::at(at) < gone.before(cell.organization) {
                each(at, cell, figures);
            }
        })
        .await?;
        let filter = rows_filter(question, self.backend());
        for (from, to) in plan.rows {
            let mut sums: BTreeMap<(Hour, Cell), Figures> = BTreeMap::new();
            rows_between(&moment, (from.first_id(), to.first_id()), &filter, |row| {
                let hour = Hour::of(RequestId(row.id));
                let (cell, counted) = row.counted();
                let cell = cell.in_cut(question.cut);
                sums.entry((hour, cell)).or_default().count(&counted);
            })
            .await?;
            for ((hour, cell), figures) in sums {
                each(hour.start(), cell, figures);
            }
        }
        moment.commit().await
    }

    /// What a key's requests cost, without those of some ids.
    ///
    /// # Errors
    /// The database fails.
    pub(super) async fn key_costs(&self, key: KeyId, without: &[Uuid]) -> Result<i64, StoreError> {
        use gateway_requests::Column;
        let moment = self.moment().await?;
        let pending: BTreeSet<Hour> = pending_between(&moment, Hour(0), NEVER)
            .await?
            .into_iter()
            .filter(|(span, _)| span == HOUR)
            .map(|(_, start)| Hour::at(start))
            .collect();
        let organization: Option<Uuid> = gateway_keys::Entity::find_by_id(key.0)
            .select_only()
            .column(gateway_keys::Column::OrganizationId)
            .into_tuple()
            .one(&moment)
            .await?;
        let organization = organization.unwrap_or_default();
        let gone = Gone::read(&moment, Some(OrganizationId(organization))).await?;
        let gone = gone.before(organization);
        let made_of_rows = pending.iter().filter(|hour| **hour >= gone).map(|hour| hour.start());
        let kept = Query::select()
            .expr_as(big_sum(Expr::col(hourly::Column::CostNanousd)), "cost")
            .from("usage_hourly")
            .and_where(Expr::col(hourly::Column::KeyId).eq(key.0))
            .and_where(Expr::col(hourly::Column::Cut).eq(Cut::Key.as_str()))
            .and_where(Expr::col(hourly::Column::StartsAt).is_not_in(made_of_rows))
            .to_owned();
        let row = moment.query_one(&kept).await?;
        let mut sum: i64 = row.map_or(Ok(0), |row| row.try_get("", "cost"))?;
        let of = async |condition: Condition| -> Result<i64, StoreError> {
            let rows = gateway_requests::Entity::find()
                .select_only()
                .expr_as(big_sum(Expr::col(Column::CostNanousd)), "cost")
                .filter(Column::KeyId.eq(key.0))
                .filter(condition);
            Ok(rows.into_tuple().one(&moment).await?.unwrap_or(0))
        };
        for (from, to) in together(pending.iter().copied()) {
            sum += of(ids_between(from.first_id(), to.first_id())).await?;
        }
        for part in without.chunks(ROWS_AT_ONCE as usize / 5) {
            sum -= of(Condition::all().add(Column::Id.is_in(part.iter().copied()))).await?;
        }
        moment.commit().await?;
        Ok(sum)
    }
}

/// A sum of a column. That of bigints is a NUMERIC on Postgres; it is brought back to what the columns are.
fn big_sum(column: sea_orm::sea_query::SimpleExpr) -> sea_orm::sea_query::SimpleExpr {
    use sea_orm::sea_query::{Func, SimpleExpr};
    SimpleExpr::from(Func::coalesce([column.sum(), Expr::value(0_i64)])).cast_as(Alias::new("bigint"))
}

/// Hours that follow each other, as spans of a first one and the one after the last.
fn together(hours: impl IntoIterator<Item = Hour>) -> Vec<(Hour, Hour)> {
    let mut spans: Vec<(Hour, Hour)> = Vec::new();
    for hour in hours {
        match spans.last_mut() {
            Some((_, end)) if *end == hour => *end = hour.plus(1),
            _ => spans.push((hour, hour.plus(1))),
        }
    }
    spans
}

/// From where each part of a question is answered: spans of hours.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct Plan {
    days: Vec<(Hour, Hour)>,
    hours: Vec<(Hour, Hour)>,
    rows: Vec<(Hour, Hour)>,
}

impl Plan {
    /// The plan for a question, with the marks there are.
    fn of(question: &SumsQuestion, pending: &[(String, DateTime<Utc>)]) -> Self {
        let stale_hours: BTreeSet<Hour> = pending
            .iter()
            .filter(|(span, _)| span == HOUR)
            .map(|(_, start)| Hour::at(*start))
            .collect();
        let mut stale_days: BTreeSet<Day> = stale_hours.iter().map(|hour| hour.day()).collect();
        stale_days.extend(
            pending
                .iter()
                .filter(|(span, _)| span == DAY)
                .map(|(_, start)| Hour::at(*start).day()),
        );
        let (mut days, mut hours, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        let mut hour = question.from;
        while hour < question.to {
            let day = hour.day();
            let whole = day.first_hour() == hour && day.next().first_hour() <= question.to;
            if whole && !question.by_hour && !stale_days.contains(&day) {
                days.extend((0..24).map(|n| hour.plus(n)));
                hour = day.next().first_hour();
                continue;
            }
            if stale_hours.contains(&hour) {
                &mut rows
            } else {
                &mut hours
            }
            .push(hour);
            hour = hour.plus(1);
        }
        Self {
            days: together(days),
            hours: together(hours),
            rows: together(rows),
        }
    }
}

async fn purged_before(db: &impl ConnectionTrait) -> Result<Hour, StoreError> {
    let fact = gateway_meta::Entity::find_by_id(PURGED_BEFORE).one(db).await?;
    let hour = fact.and_then(|fact| fact.value.parse().ok());
    Ok(Hour(hour.unwrap_or(i64::MIN)))
}

/// The same fact about the rows of an organization.
fn purged_before_of(organization: OrganizationId) -> String {
    format!("{PURGED_BEFORE}:{organization}")
}

/// Notes that rows before an hour are gone, everybody's or those of an organization, in the transaction that removes them.
pub(super) async fn set_purged_before(
    transaction: &DatabaseTransaction,
    organization: Option<OrganizationId>,
    hour: Hour,
) -> Result<(), StoreError> {
    use gateway_meta::Column;
    let fact = gateway_meta::ActiveModel {
        name: Set(organization.map_or_else(|| PURGED_BEFORE.to_owned(), purged_before_of)),
        value: Set(hour.0.to_string()),
    };
    let replace = OnConflict::column(Column::Name).update_column(Column::Value).to_owned();
    gateway_meta::Entity::insert(fact)
        .on_conflict(replace)
        .exec_without_returning(transaction)
        .await
        .map(drop)
}

/// Whether the sums of hours before one are not up to date.
pub(super) async fn is_pending(db: &impl ConnectionTrait, (from, to): (Hour, Hour)) -> Result<bool, StoreError> {
    let pending = pending_between(db, from, to).await?;
    Ok(pending.iter().any(|(span, _)| span == HOUR))
}

/// The marks on spans that begin in some hours. A day's is found by any of its hours.
async fn pending_between(
    db: &impl ConnectionTrait,
    from: Hour,
    to: Hour,
) -> Result<Vec<(String, DateTime<Utc>)>, StoreError> {
    use usage_pending::Column;
    usage_pending::Entity::find()
        .select_only()
        .columns([Column::Span, Column::StartsAt])
        .distinct()
        .filter(Column::StartsAt.gte(from.day().start()))
        .filter(Column::StartsAt.lt(to.start()))
        .order_by_asc(Column::StartsAt)
        .into_tuple()
        .all(db)
        .await
}

async fn marks_of(db: &impl ConnectionTrait, span: &str, starts_at: DateTime<Utc>) -> Result<Marks, StoreError> {
    use usage_pending::Column;
    let marks = usage_pending::Entity::find()
        .select_only()
        .columns([Column::ReplicaId, Column::Token])
        .filter(Column::Span.eq(span))
        .filter(Column::StartsAt.eq(starts_at))
        .order_by_asc(Column::ReplicaId)
        .into_tuple()
        .all(db)
        .await?;
    Ok(Marks(marks))
}

/// Takes marks away. Says whether all of them were still the same.
async fn take_marks(
    transaction: &DatabaseTransaction,
    span: &str,
    starts_at: DateTime<Utc>,
    marks: &Marks,
) -> Result<bool, StoreError> {
    use usage_pending::Column;
    let mut taken = 0;
    for (replica, token) in &marks.0 {
        let result = usage_pending::Entity::delete_many()
            .filter(Column::Span.eq(span))
            .filter(Column::StartsAt.eq(starts_at))
            .filter(Column::ReplicaId.eq(*replica))
            .filter(Column::Token.eq(*token))
            .exec(transaction)
            .await?;
        taken += result.rows_affected;
    }
    Ok(taken == marks.0.len() as u64 && taken > 0)
}

/// One row of the ledger, as far as sums need it.
#[derive(FromQueryResult, Debug)]
struct SumRow {
    id: Uuid,
    organization_id: Uuid,
    team_id: Option<Uuid>,
    key_id: Uuid,
    model: Option<String>,
    provider: Option<String>,
    error_class: Option<String>,
    input_tokens: i64,
    cached_tokens: i64,
    cache_write_tokens: i64,
    output_tokens: i64,
    reasoning_tokens: i64,
    cost_nanousd: Option<i64>,
    metering: String,
    latency_us: i64,
    first_token_us: Option<i64>,
    attempts: i32,
    cache: String,
    saved_nanousd: Option<i64>,
}

impl SumRow {
    /// Its finest cell, and what it adds there.
    fn counted(self) -> (Cell, Counted) {
        let cell = Cell {
            organization: self.organization_id,
            cut: Cut::Everything,
            key: self.key_id,
            team: self.team_id.unwrap_or_default(),
            provider: self.provider.unwrap_or_default(),
            model: self.model.unwrap_or_default(),
        };
        let counted = Counted {
            error_class: self.error_class,
            cache_hit: self.cache == CacheStatus::Hit.as_str(),
            attempts: self.attempts.into(),
            estimated: self.metering == Metering::Estimated.as_str(),
            unpriced: self.cost_nanousd.is_none(),
            input_tokens: self.input_tokens,
            cached_tokens: self.cached_tokens,
            cache_write_tokens: self.cache_write_tokens,
            output_tokens: self.output_tokens,
            reasoning_tokens: self.reasoning_tokens,
            cost_nanousd: self.cost_nanousd.unwrap_or(0),
            saved_nanousd: self.saved_nanousd.unwrap_or(0),
            latency_us: self.latency_us,
            first_token_us: self.first_token_us,
        };
        (cell, counted)
    }
}

fn ids_between(from: Uuid, to: Uuid) -> Condition {
    use gateway_requests::Column;
    Condition::all().add(Column::Id.gte(from)).add(Column::Id.lt(to))
}

/// The rows a question is about, whenever they came.
fn rows_filter(question: &SumsQuestion, backend: DatabaseBackend) -> Condition {
    use gateway_requests::Column;
    let UsageFilter {
        keys,
        team,
        provider,
        model,
    } = &question.filter;
    Condition::all()
        .add_option(
            question
                .organization
                .map(|organization| Column::OrganizationId.eq(organization.0)),
        )
        .add_option(
            keys.as_ref()
                .map(|keys| one_of(backend, Expr::col(Column::KeyId), keys.iter().copied())),
        )
        .add_option(team.map(|team| Column::TeamId.eq(team)))
        .add_option(provider.as_ref().map(|provider| Column::Provider.eq(provider.as_str())))
        .add_option(model.as_ref().map(|model| Column::Model.eq(model.as_str())))
}

/// Gives the rows with ids in a range to `each`, part by part.
async fn rows_between(
    moment: &DatabaseTransaction,
    (mut from, to): (Uuid, Uuid),
    filter: &Condition,
    mut each: impl FnMut(SumRow),
) -> Result<(), StoreError> {
    use gateway_requests::Column;
    loop {
        let rows = gateway_requests::Entity::find()
            .select_only()
            .columns([
                Column::Id,
                Column::OrganizationId,
                Column::TeamId,
                Column::KeyId,
                Column::Model,
                Column::Provider,
                Column::ErrorClass,
                Column::InputTokens,
                Column::CachedTokens,
                Column::CacheWriteTokens,
                Column::OutputTokens,
                Column::ReasoningTokens,
                Column::CostNanousd,
                Column::Metering,
                Column::LatencyUs,
                Column::FirstTokenUs,
                Column::Attempts,
                Column::Cache,
                Column::SavedNanousd,
            ])
            .filter(ids_between(from, to))
            .filter(filter.clone())
            .order_by_asc(Column::Id)
            .limit(ROWS_AT_ONCE)
            .into_model::<SumRow>()
            .all(moment)
            .await?;
        let read = rows.len() as u64;
        if let Some(last) = rows.last() {
            from = Uuid::from_u128(last.id.as_u128().saturating_add(1));
        }
        rows.into_iter().for_each(&mut each);
        if read < ROWS_AT_ONCE {
            return Ok(());
        }
    }
}

/// The statement that reads sums of spans: those a question is about, or all.
fn sums_query(
    backend: DatabaseBackend,
    table: &'static str,
    question: Option<&SumsQuestion>,
    spans: &[(Hour, Hour)],
) -> SelectStatement {
    use hourly::Column;
    let mut query = Query::select()
        .columns(Column::iter())
        .from(Alias::new(table))
        .cond_where(spans.iter().fold(Condition::any(), |any, (from, to)| {
            let within = Expr::col(Column::StartsAt).gte(from.start());
            any.add(within.and(Expr::col(Column::StartsAt).lt(to.start())))
        }))
        .to_owned();
    let Some(question) = question else {
        return query;
    };
    query.and_where(Expr::col(Column::Cut).eq(question.cut.as_str()));
    if let Some(organization) = question.organization {
        query.and_where(Expr::col(Column::OrganizationId).eq(organization.0));
    }
    let UsageFilter {
        keys,
        team,
        provider,
        model,
    } = &question.filter;
    if let Some(keys) = keys {
        query.and_where(one_of(backend, Expr::col(Column::KeyId), keys.iter().copied()));
    }
    if let Some(team) = team {
        query.and_where(Expr::col(Column::TeamId).eq(*team));
    }
    if let Some(provider) = provider {
        query.and_where(Expr::col(Column::Provider).eq(provider.as_str()));
    }
    if let Some(model) = model {
        query.and_where(Expr::col(Column::Model).eq(model.as_str()));
    }
    query
}

/// Gives the sums of spans to `each` as they come.
async fn fold_sums(
    moment: &DatabaseTransaction,
    table: &'static str,
    question: Option<&SumsQuestion>,
    spans: &[(Hour, Hour)],
    mut each: impl FnMut(DateTime<Utc>, Cell, Figures),
) -> Result<(), StoreError> {
    if spans.is_empty() {
        return Ok(());
    }
    let backend = moment.get_database_backend();
    let statement = backend.build(&sums_query(backend, table, question, spans));
    let mut rows = hourly::Model::find_by_statement(statement).stream(moment).await?;
    while let Some(row) = rows.try_next().await? {
        let starts_at = row.starts_at;
        let (cell, figures) = read_sums(row, question.is_none_or(|question| question.percentiles))?;
        each(starts_at, cell, figures);
    }
    Ok(())
}

fn read_sums(row: hourly::Model, percentiles: bool) -> Result<(Cell, Figures), StoreError> {
    let unreadable = |what: &str| StoreError::Custom(format!("{what} of the sums of {} cannot be read", row.starts_at));
    let sketch = |bytes: &[u8]| Sketch::from_bytes(if percentiles { bytes } else { &[] });
    let cell = Cell {
        organization: row.organization_id,
        cut: Cut::parse(&row.cut).ok_or_else(|| unreadable("the cut"))?,
        key: row.key_id,
        team: row.team_id,
        provider: row.provider,
        model: row.model,
    };
    let figures = Figures {
        requests: row.requests,
        errors: serde_json::from_str(&row.errors).map_err(|_| unreadable("the errors"))?,
        cache_hits: row.cache_hits,
        attempts: row.attempts,
        estimated: row.estimated,
        unpriced: row.unpriced,
        input_tokens: row.input_tokens,
        cached_tokens: row.cached_tokens,
        cache_write_tokens: row.cache_write_tokens,
        output_tokens: row.output_tokens,
        reasoning_tokens: row.reasoning_tokens,
        cost_nanousd: row.cost_nanousd,
        saved_nanousd: row.saved_nanousd,
        latency: sketch(&row.latency).ok_or_else(|| unreadable("the latencies"))?,
        first_token: sketch(&row.first_token).ok_or_else(|| unreadable("the first tokens"))?,
    };
    Ok((cell, figures))
}

macro_rules! row {
    ($name:ident, $table:ident) => {
        fn $name(cell: &Cell, starts_at: DateTime<Utc>, figures: &Figures) -> $table::ActiveModel {
            $table::ActiveModel {
                organization_id: Set(cell.organization),
                cut: Set(cell.cut.as_str().into()),
                starts_at: Set(starts_at),
                key_id: Set(cell.key),
                team_id: Set(cell.team),
                provider: Set(cell.provider.clone()),
                model: Set(cell.model.clone()),
                requests: Set(figures.requests),
                errors: Set(serde_json::json!(figures.errors).to_string()),
                cache_hits: Set(figures.cache_hits),
                attempts: Set(figures.attempts),
                estimated: Set(figures.estimated),
                unpriced: Set(figures.unpriced),
                input_tokens: Set(figures.input_tokens),
                cached_tokens: Set(figures.cached_tokens),
                cache_write_tokens: Set(figures.cache_write_tokens),
                output_tokens: Set(figures.output_tokens),
                reasoning_tokens: Set(figures.reasoning_tokens),
                cost_nanousd: Set(figures.cost_nanousd),
                saved_nanousd: Set(figures.saved_nanousd),
                latency: Set(figures.latency.to_bytes()),
                first_token: Set(figures.first_token.to_bytes()),
            }
        }
    };
}

row!(hourly_row, hourly);
row!(daily_row, daily);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn question(from: i64, to: i64, by_hour: bool) -> SumsQuestion {
        SumsQuestion {
            organization: None,
            from: Hour(from),
            to: Hour(to),
            cut: Cut::Nothing,
            filter: UsageFilter::default(),
            by_hour,
            percentiles: true,
        }
    }

    fn hours(spans: &[(Hour, Hour)]) -> Vec<i64> {
        spans.iter().flat_map(|(from, to)| from.0..to.0).collect()
    }

    proptest! {
        #[test]
        fn every_hour_is_answered_from_exactly_one_place(
            from in 0..60_i64, length in 0..100_i64, by_hour in any::<bool>(),
            stale in prop::collection::btree_set(0..160_i64, 0..30), days in prop::collection::btree_set(0..7_i64, 0..4),
        ) {
            let mut pending: Vec<(String, DateTime<Utc>)> =
                stale.iter().map(|hour| (HOUR.to_owned(), Hour(*hour).start())).collect();
            pending.extend(days.iter().map(|day| (DAY.to_owned(), Day(*day).start())));
            let question = question(from, from + length, by_hour);
            let plan = Plan::of(&question, &pending);
            let mut all = [hours(&plan.days), hours(&plan.hours), hours(&plan.rows)].concat();
            all.sort_unstable();
            prop_assert_eq!(all, (from..from + length).collect::<Vec<_>>());
            for hour in hours(&plan.rows) {
                prop_assert!(stale.contains(&hour));
            }
            for hour in hours(&plan.hours) {
                prop_assert!(!stale.contains(&hour));
            }
            for hour in hours(&plan.days) {
                let day = Hour(hour).day();
                prop_assert!(!by_hour && !days.contains(&day.0));
                prop_assert!((0..24).all(|n| !stale.contains(&day.first_hour().plus(n).0)));
            }
        }
    }

    #[test]
    fn hours_that_follow_each_other_are_one_span() {
        let spans = together([1, 2, 3, 7, 9, 10].map(Hour));
        assert_eq!(spans, [(Hour(1), Hour(4)), (Hour(7), Hour(8)), (Hour(9), Hour(11))]);
    }
}
