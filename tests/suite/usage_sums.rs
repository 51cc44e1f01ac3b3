//! Sums over requests: right whatever was summed up when, and still there when the requests are gone.

use std::sync::Arc;
use std::time::Duration;

use bonito::analytics::rollup::{roll_day, roll_hour, tend};
use bonito::domain::audit::Author;
use bonito::domain::budget::calendar::Period;
use bonito::domain::budget::{BudgetScope, BudgetTerms, DEFAULT_THRESHOLDS, Enforcement, Unpriced};
use bonito::domain::call::{CacheStatus, Dialect, ErrorClass, Operation};
use bonito::domain::ids::{KeyId, OrganizationId, PriceVersion, RequestId, TeamId};
use bonito::domain::job::{JobKind, NewJob};
use bonito::domain::money::NanoUsd;
use bonito::domain::record::{AttemptRecord, Charge, Owner, UsageRecord};
use bonito::domain::report::cells::{Cells, Cut};
use bonito::domain::report::figures::Figures;
use bonito::domain::report::hour::{Hour, first_id, time_of};
use bonito::domain::report::usage::UsageFilter;
use bonito::domain::usage::{TokenUsage, UsageSource};
use bonito::store::retention::Purged;
use bonito::store::usage::SumsQuestion;
use bonito::store::{Store, StoreOptions};
use chrono::{DateTime, TimeDelta, Utc};
use migration::MigratorTrait as _;
use sea_orm::{ConnectionTrait as _, Statement};
use uuid::Uuid;

use crate::support::TestGateway;
use crate::support::database::{fresh, on_postgres};
use crate::support::gateway::TEST_HAND;
use crate::support::numbers::Numbers;

/// What a request was like.
#[derive(Clone, Debug)]
pub struct Like {
    pub organization: OrganizationId,
    pub team: Option<TeamId>,
    pub key: KeyId,
    pub provider: &'static str,
    pub model: &'static str,
    pub error: Option<ErrorClass>,
    pub cost: i64,
    pub latency_us: u64,
}

/// The record of a request that came at a time.
pub fn record(at: DateTime<Utc>, like: &Like) -> UsageRecord {
    // Behind the time and the version everything is as the gateway's own ids have it.
    let unique = Uuid::now_v7().as_u128() & ((1 << 76) - 1);
    let id = first_id(at).as_u128() | (7 << 76) | unique;
    let usage = TokenUsage {
        input: 10,
        cached_input: 4,
        output: 5,
        ..TokenUsage::default()
    };
    UsageRecord {
        id: RequestId(Uuid::from_u128(id)),
        owner: Owner {
            organization: like.organization,
            team: like.team,
            key: like.key,
        },
        admitted_at: at,
        operation: Operation::Chat,
        dialect: Dialect::OpenAi,
        requested_model: like.model.into(),
        stream: false,
        status: if like.error.is_some() { 502 } else { 200 },
        error: like.error,
        client_cancelled: false,
        latency: Duration::from_micros(like.latency_us),
        first_token: Some(Duration::from_micros(like.latency_us / 2)),
        overhead: Duration::from_micros(100),
        cache: CacheStatus::Miss,
        cached_from: None,
        attempts: vec![AttemptRecord {
            deployment: format!("{}/{}", like.provider, like.model).into(),
            provider: like.provider.into(),
            model: like.model.into(),
            started_after: Duration::ZERO,
            latency: Duration::from_micros(like.latency_us),
            first_token: None,
            status: Some(200),
            error: like.error,
            upstream_request_id: None,
            charge: Charge {
                usage,
                source: UsageSource::Reported,
                cost: Some(NanoUsd(like.cost)),
                price_version: Some(PriceVersion::from("test")),
            },
        }],
        routing: None,
        trace: None,
    }
}

fn like(gateway: &TestGateway) -> Like {
    Like {
        organization: gateway.organization,
        team: None,
        key: KeyId(Uuid::from_u128(1)),
        provider: "alpha",
        model: "m",
        error: None,
        cost: 1_000,
        latency_us: 50_000,
    }
}

/// A gateway that sums up nothing by itself.
async fn quiet() -> TestGateway {
    TestGateway::builder().set("jobs.in_serve", false).start().await
}

pub async fn sums(store: &Store, question: &SumsQuestion) -> Figures {
    let mut sum = Figures::default();
    store
        .fold_usage(question, |_, cell, figures| {
            assert_eq!(cell.cut, question.cut);
            sum.merge(&figures);
        })
        .await
        .unwrap();
    sum
}

pub fn everything(organization: OrganizationId, from: Hour, to: Hour) -> SumsQuestion {
    SumsQuestion {
        organization: Some(organization),
        from,
        to,
        cut: Cut::Nothing,
        filter: UsageFilter::default(),
        by_hour: false,
        percentiles: true,
    }
}

#[tokio::test]
async fn every_request_is_counted_once_whatever_was_summed_up_when() {
    let gateway = quiet().await;
    let store = &gateway.store;
    let mut numbers = Numbers(20_261_129);
    // In the middle of a day, so that the oldest ones are of days that are over.
    let now = Utc::now();
    let (first, end) = (Hour::at(now).plus(-70), Hour::at(now).plus(1));
    let mut truth: Vec<(Hour, Like)> = Vec::new();
    for round in 0..60 {
        match numbers.below(5) {
            0 | 1 => {
                let mut batch = Vec::new();
                for _ in 0..=numbers.below(12) {
                    let hour = first.plus(i64::try_from(numbers.below(70)).unwrap());
                    let at = hour.start() + TimeDelta::milliseconds(i64::try_from(numbers.below(3_600_000)).unwrap());
                    let key = KeyId(Uuid::from_u128(u128::from(numbers.below(4) + 1)));
                    let one = Like {
                        team: (key.0.as_u128() > 2).then_some(TeamId(Uuid::from_u128(9))),
                        key,
                        provider: ["alpha", "beta"][numbers.below(2) as usize],
                        model: ["m", "n", "o"][numbers.below(3) as usize],
                        error: [None, None, Some(ErrorClass::Timeout), Some(ErrorClass::Cut)]
                            [numbers.below(4) as usize],
                        cost: i64::try_from(numbers.below(1_000_000)).unwrap(),
                        latency_us: numbers.below(5_000_000),
                        ..like(&gateway)
                    };
                    batch.push(record(at, &one));
                    truth.push((hour, one));
                }
                assert!(store.write_records(&batch).await.unwrap().is_empty());
                // A commit that was not heard of is written again.
                assert!(store.write_records(&batch).await.unwrap().is_empty());
            }
            2 => drop(
                roll_hour(store, first.plus(i64::try_from(numbers.below(70)).unwrap()))
                    .await
                    .unwrap(),
            ),
            3 => drop(
                roll_day(store, first.plus(i64::try_from(numbers.below(70)).unwrap()).day())
                    .await
                    .unwrap(),
            ),
            _ => drop(tend(store, now).await.unwrap()),
        }
        let from = first.plus(i64::try_from(numbers.below(40)).unwrap());
        let to = from.plus(i64::try_from(numbers.below(40)).unwrap() + 1).min(end);
        let key = Uuid::from_u128(u128::from(numbers.below(4) + 1));
        let team = Uuid::from_u128(9);
        let (filter, cut) = [
            (UsageFilter::default(), Cut::Model),
            (
                UsageFilter {
                    keys: Some([key].into()),
                    ..UsageFilter::default()
                },
                Cut::Key,
            ),
            (
                UsageFilter {
                    team: Some(team),
                    provider: Some("beta".into()),
                    ..UsageFilter::default()
                },
                Cut::Everything,
            ),
            (UsageFilter::default(), Cut::Nothing),
        ][numbers.below(4) as usize]
            .clone();
        let meant = |(hour, one): &&(Hour, Like)| {
            *hour >= from
                && *hour < to
                && filter.keys.as_ref().is_none_or(|keys| keys.contains(&one.key.0))
                && filter.team.is_none_or(|team| one.team == Some(TeamId(team)))
                && filter.provider.as_ref().is_none_or(|provider| one.provider == provider)
        };
        let question = SumsQuestion {
            cut,
            filter: filter.clone(),
            by_hour: numbers.below(2) == 0,
            ..everything(gateway.organization, from, to)
        };
        let said = sums(store, &question).await;
        let meant: Vec<&Like> = truth.iter().filter(meant).map(|(_, one)| one).collect();
        let cost: i64 = meant.iter().map(|one| one.cost).sum();
        let failed = meant.iter().filter(|one| one.error.is_some()).count();
        let timeouts = meant
            .iter()
            .filter(|one| one.error == Some(ErrorClass::Timeout))
            .count();
        assert_eq!(
            (
                said.requests,
                said.cost_nanousd,
                said.failed(),
                said.input_tokens,
                said.cached_tokens
            ),
            (
                meant.len() as i64,
                cost,
                failed as i64,
                meant.len() as i64 * 10,
                meant.len() as i64 * 4
            ),
            "round {round}: {question:?}"
        );
        assert_eq!(said.errors.get("timeout").copied().unwrap_or(0), timeouts as i64);
        let mut latencies: Vec<u64> = meant.iter().map(|one| one.latency_us).collect();
        latencies.sort_unstable();
        if let Some(p95) = said.latency.quantile(0.95) {
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "few"
            )]
            let truth = latencies[(0.95 * (latencies.len() as f64 - 1.0)) as usize] as f64;
            assert!(
                (p95 - truth).abs() <= 0.02 * truth,
                "round {round}: {p95} is not {truth}"
            );
        }
        for key in 1..=4_u128 {
            let expected: i64 = truth
                .iter()
                .filter(|(_, one)| one.key.0.as_u128() == key)
                .map(|(_, one)| one.cost)
                .sum();
            let spent = store.spent_by(KeyId(Uuid::from_u128(key)), &[]).await.unwrap();
            assert_eq!(spent, NanoUsd(expected));
        }
    }
    gateway.finish().await;
}

#[tokio::test]
async fn sums_that_a_row_overtook_are_thrown_away() {
    let gateway = quiet().await;
    let store = &gateway.store;
    let at = Utc::now() - TimeDelta::hours(5);
    let hour = Hour::at(at);
    let one = like(&gateway);
    store.write_records(&[record(at, &one)]).await.unwrap();
    let mut cells = Cells::default();
    let read = store
        .read_hour(hour, |cell, counted| cells.count(cell, &counted))
        .await
        .unwrap();
    assert!(read.is_pending());
    store.write_records(&[record(at, &one)]).await.unwrap();
    assert!(!store.write_hour(read, cells.complete()).await.unwrap());
    let question = everything(gateway.organization, hour, hour.plus(1));
    assert_eq!(sums(store, &question).await.requests, 2);
    assert_eq!(store.pending_hours(hour.plus(1), 10).await.unwrap(), [hour]);
    // Of two who sum up the same, one does.
    let mut reads = Vec::new();
    for _ in 0..2 {
        let mut cells = Cells::default();
        let read = store
            .read_hour(hour, |cell, counted| cells.count(cell, &counted))
            .await
            .unwrap();
        reads.push((read, cells));
    }
    let mut written = Vec::new();
    for (read, cells) in reads {
        written.push(store.write_hour(read, cells.complete()).await.unwrap());
    }
    assert_eq!(written, [true, false]);
    assert_eq!(sums(store, &question).await.requests, 2);
    gateway.finish().await;
}

#[tokio::test]
async fn requests_go_when_their_time_is_over_and_their_sums_stay() {
    let gateway = quiet().await;
    let store = &gateway.store;
    let now = Utc::now();
    let old = now - TimeDelta::days(100);
    // As if the gateway had been running then.
    store.make_partitions(old).await.unwrap();
    let one = like(&gateway);
    let (then, today) = (record(old, &one), record(now - TimeDelta::hours(3), &one));
    store.write_records(&[then.clone(), today.clone()]).await.unwrap();
    let keep_from = Hour::at(now - TimeDelta::days(50));
    // Nothing goes before it is summed up.
    assert_eq!(store.purge(keep_from).await.unwrap(), Purged::Nothing);
    let done = tend(store, now).await.unwrap();
    assert_eq!(
        (done.hours, done.days),
        (
            2,
            1 + u64::from(Hour::at(now - TimeDelta::hours(3)).day() != Hour::at(now).day())
        )
    );
    let purged = store.purge(keep_from).await.unwrap();
    match purged {
        Purged::Rows(rows) => assert_eq!((rows, on_postgres()), (1, false)),
        // And the empty one after it.
        Purged::Partitions(partitions) => assert!(partitions >= 1 && on_postgres()),
        Purged::Nothing => panic!("its time is over"),
    }
    assert_eq!(store.purge(keep_from).await.unwrap(), Purged::Nothing);
    assert!(store.request(gateway.organization, then.id).await.unwrap().is_none());
    assert!(
        store
            .attempts_of(gateway.organization, then.id)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(store.request(gateway.organization, today.id).await.unwrap().is_some());
    let question = everything(gateway.organization, Hour::at(old), Hour::at(now).plus(1));
    assert_eq!(sums(store, &question).await.requests, 2);
    assert_eq!(store.spent_by(one.key, &[]).await.unwrap(), NanoUsd(2_000));

    // One that comes too late is added to what is left of its hour.
    let late = record(old, &one);
    store.write_records(std::slice::from_ref(&late)).await.unwrap();
    assert_eq!(
        sums(store, &question).await.requests,
        3,
        "it is counted besides what is left of its hour"
    );
    tend(store, now).await.unwrap();
    assert_eq!(sums(store, &question).await.requests, 3);
    assert_eq!(store.spent_by(one.key, &[]).await.unwrap(), NanoUsd(3_000));
    assert!(store.request(gateway.organization, late.id).await.unwrap().is_none());
    assert!(
        store
            .attempts_of(gateway.organization, late.id)
            .await
            .unwrap()
            .is_empty()
    );
    gateway.finish().await;
}

#[tokio::test]
async fn an_organization_keeps_its_requests_for_a_shorter_time_and_no_sum_changes() {
    let gateway = TestGateway::builder().start().await;
    let store = &gateway.store;
    let now = Utc::now();
    let old = now - TimeDelta::days(10);
    store.make_partitions(old).await.unwrap();
    let other = store.create_organization("patient", "Patient").await.unwrap();
    let (key, _) = gateway.new_key(&[], &[], None).await;
    let mine = Like { key, ..like(&gateway) };
    let theirs = Like {
        organization: other,
        key: KeyId(Uuid::from_u128(2)),
        ..like(&gateway)
    };
    let gone = [record(old, &mine), record(old, &mine)];
    let kept = [record(old, &theirs), record(now - TimeDelta::hours(3), &mine)];
    store.write_records(&gone).await.unwrap();
    store.write_records(&kept).await.unwrap();
    while tend(store, now).await.unwrap().more {}
    let span = (Hour::at(old), Hour::at(now).plus(1));
    let asked = async || {
        let of_one = async |organization| sums(store, &everything(organization, span.0, span.1)).await;
        let (mine, theirs) = (of_one(gateway.organization).await, of_one(other).await);
        let everybodys = SumsQuestion {
            organization: None,
            ..everything(other, span.0, span.1)
        };
        let by_hour = SumsQuestion {
            by_hour: true,
            ..everybodys.clone()
        };
        let all = sums(store, &everybodys).await;
        assert_eq!(all.cost_nanousd, sums(store, &by_hour).await.cost_nanousd);
        let spent = store.spent_by(key, &[]).await.unwrap();
        (mine.requests, theirs.requests, all.requests, spent.0)
    };
    assert_eq!(asked().await, (3, 1, 4, 3_000));

    gateway
        .configure(&serde_json::json!({"retention": {"requests_days": 7}}))
        .await;
    let purge = NewJob::new(JobKind::Retention, serde_json::json!({}));
    store.enqueue(&purge).await.unwrap();
    let began = std::time::Instant::now();
    while store.request(gateway.organization, gone[0].id).await.unwrap().is_some() {
        assert!(began.elapsed() < Duration::from_secs(20), "its time is over");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let is_there = async |organization, record: &UsageRecord| {
        let row = store.request(organization, record.id).await.unwrap().is_some();
        let attempts = store.attempts_of(organization, record.id).await.unwrap().len();
        assert_eq!(usize::from(row), attempts);
        row
    };
    assert!(!is_there(gateway.organization, &gone[1]).await);
    assert!(is_there(other, &kept[0]).await, "others keep theirs");
    assert!(is_there(gateway.organization, &kept[1]).await);
    assert_eq!(asked().await, (3, 1, 4, 3_000));

    // The hour is made again because of others' rows, and because of one's own; before and after, every request is there once.
    for (like, expected) in [(&theirs, (3, 2, 5, 3_000)), (&mine, (4, 2, 6, 4_000))] {
        let late = record(old, like);
        store.write_records(std::slice::from_ref(&late)).await.unwrap();
        assert_eq!(asked().await, expected);
        while tend(store, now).await.unwrap().more {}
        assert_eq!(asked().await, expected);
        let stays = like.organization == other;
        assert_eq!(is_there(like.organization, &late).await, stays);
    }
    gateway.finish().await;
}

#[tokio::test]
async fn rows_that_no_partition_is_there_for_are_kept_and_move_when_there_is_one() {
    if !on_postgres() {
        return;
    }
    let gateway = quiet().await;
    let store = &gateway.store;
    let old = Utc::now() - TimeDelta::days(100);
    let (past, present) = (record(old, &like(&gateway)), record(Utc::now(), &like(&gateway)));
    store.write_records(&[past.clone(), present]).await.unwrap();
    let default = "SELECT count(*) AS n FROM gateway_requests_default";
    assert_eq!(gateway.number(default).await, 1);
    store.make_partitions(old).await.unwrap();
    assert_eq!(gateway.number(default).await, 0);
    let month = old.format("%Y%m");
    for table in ["gateway_requests", "gateway_attempts"] {
        let there = gateway
            .number(&format!("SELECT count(*) AS n FROM {table}_{month}"))
            .await;
        assert_eq!(there, 1, "{table}");
    }
    // The ledger is what it was: the same record is the same row.
    store.write_records(std::slice::from_ref(&past)).await.unwrap();
    assert_eq!(gateway.number("SELECT count(*) AS n FROM gateway_requests").await, 2);
    assert!(store.request(gateway.organization, past.id).await.unwrap().is_some());
    store.make_partitions(old).await.unwrap();
    gateway.finish().await;
}

#[tokio::test]
async fn a_month_that_never_had_a_partition_gets_one_and_is_dropped_like_the_others() {
    if !on_postgres() {
        return;
    }
    let gateway = quiet().await;
    let store = &gateway.store;
    let now = Utc::now();
    let (older, old) = (now - TimeDelta::days(200), now - TimeDelta::days(100));
    let records = [older, old, now].map(|at| record(at, &like(&gateway)));
    store.write_records(&records).await.unwrap();
    let default = "SELECT count(*) AS n FROM gateway_requests_default";
    assert_eq!(gateway.number(default).await, 2);
    // A month at a time.
    for left in [1, 0, 0] {
        store.make_past_partition(now).await.unwrap();
        assert_eq!(gateway.number(default).await, left);
    }
    while tend(store, now + TimeDelta::days(2)).await.unwrap().more {}
    let keep_from = Hour::at(now - TimeDelta::days(60));
    while store.purge(keep_from).await.unwrap() != Purged::Nothing {}
    for table in ["gateway_requests", "gateway_attempts"] {
        assert_eq!(
            gateway.number(&format!("SELECT count(*) AS n FROM {table}")).await,
            1,
            "{table}"
        );
    }
    gateway.finish().await;
}

#[tokio::test]
async fn what_is_told_of_budgets_and_repricings_goes_with_the_requests_it_is_about() {
    let gateway = quiet().await;
    let store = &gateway.store;
    let now = Utc::now();
    let id = |n: u128| match on_postgres() {
        true => format!("'{}'", Uuid::from_u128(n)),
        false => format!("x'{}'", Uuid::from_u128(n).simple()),
    };
    let at = |days: i64| (now - TimeDelta::days(days)).to_rfc3339();
    let organization = id(gateway.organization.0.as_u128());
    let endless = BudgetTerms {
        amount: NanoUsd(1),
        period: Period::Total,
        zone: chrono_tz::UTC,
        enforcement: Enforcement::Soft,
        unpriced: Unpriced::Allow,
        default_output_tokens: None,
        thresholds: DEFAULT_THRESHOLDS.to_vec().into(),
        enabled: true,
    };
    let by = Author::system(TEST_HAND);
    let set = store.set_budget(gateway.organization, &BudgetScope::Organization, &endless, &by);
    let endless = id(set.await.unwrap().unwrap().0.as_u128());
    for (n, budget, days) in [(1, id(9), 500), (2, id(9), 10), (3, endless, 500)] {
        let at = at(days);
        gateway
            .sql(&format!(
                "INSERT INTO gateway_budget_events (id, organization_id, budget_id, period_start, threshold, spent_nanousd, \
                 amount_nanousd, created_at, noticed_at) VALUES ({}, {organization}, {budget}, '{at}', {n}, 1, 1, '{at}', \
                 '{at}')",
                id(n)
            ))
            .await;
    }
    for (n, state, days) in [
        (1, "done", 500),
        (2, "running", 500),
        (3, "done", 10),
        (4, "given_up", 500),
    ] {
        let at = at(days);
        gateway
            .sql(&format!(
                "INSERT INTO gateway_repricings (id, organization_id, job_id, dry_run, from_at, to_at, author, prices, state, \
                 sums, created_at) VALUES ({0}, {organization}, {0}, true, '{at}', '{at}', 'x', '', '{state}', '{{}}', '{at}')",
                id(n)
            ))
            .await;
    }
    let over = now - TimeDelta::days(400);
    assert_eq!(store.forget_budget_events(over, 100).await.unwrap(), 1);
    assert_eq!(store.forget_repricings(over, 1).await.unwrap(), 1);
    assert_eq!(store.forget_repricings(over, 100).await.unwrap(), 1);
    for (table, left) in [("gateway_budget_events", 2), ("gateway_repricings", 2)] {
        assert_eq!(
            gateway.number(&format!("SELECT count(*) AS n FROM {table}")).await,
            left,
            "{table}"
        );
    }
    gateway.finish().await;
}

#[tokio::test]
async fn what_was_in_the_ledger_before_is_there_after_the_migration() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let url = fresh(dir.path()).await;
    let db = sea_orm::Database::connect(&url).await.unwrap();
    let migrations = migration::Migrator::migrations();
    let ours = migrations
        .iter()
        .position(|step| step.name() == "m20261129_100041_requests_by_time")
        .unwrap();
    migration::Migrator::up(&db, Some(u32::try_from(ours).unwrap()))
        .await
        .unwrap();
    let at = Utc::now() - TimeDelta::hours(30);
    let ids = [at, at + TimeDelta::minutes(1), Utc::now()].map(first_id);
    let literal = |id: Uuid| {
        if on_postgres() {
            format!("'{id}'")
        } else {
            format!("x'{}'", id.simple())
        }
    };
    let organization = Uuid::from_u128(5);
    for id in ids {
        let time = time_of(id).to_rfc3339();
        let (id, organization) = (literal(id), literal(organization));
        for insert in [
            format!(
                "INSERT INTO gateway_requests (id, organization_id, key_id, created_at, operation, dialect, requested_model, \
                 stream, status, input_tokens, cached_tokens, cache_write_tokens, output_tokens, reasoning_tokens, \
                 cost_nanousd, metering, latency_us, overhead_us, attempts, client_cancelled) VALUES ({id}, {organization}, \
                 {organization}, '{time}', 'chat', 'openai', 'm', false, 200, 1, 0, 0, 1, 0, 7, 'reported', 1000, 10, 1, false)"
            ),
            format!(
                "INSERT INTO gateway_attempts (request_id, number, organization_id, created_at, provider, model, latency_us, \
                 input_tokens, cached_tokens, cache_write_tokens, output_tokens, reasoning_tokens, cost_nanousd, metering) \
                 VALUES ({id}, 1, {organization}, '{time}', 'p', 'm', 1000, 1, 0, 0, 1, 0, 7, 'reported')"
            ),
        ] {
            db.execute_unprepared(&insert).await.unwrap();
        }
    }
    db.close().await.unwrap();
    let options = StoreOptions {
        url,
        max_connections: 4,
        min_connections: 0,
        acquire_timeout: Duration::from_secs(5),
        lazy: false,
        statement_timeout: Some(Duration::from_secs(30)),
    };
    let store = Store::connect(&options).await.unwrap();
    store.migrate().await.unwrap();
    let organization = OrganizationId(organization);
    assert_eq!(store.all_requests(organization).await.unwrap().len(), 3);
    let question = everything(organization, Hour::at(at), Hour::at(Utc::now()).plus(1));
    let before = sums(&store, &question).await;
    assert_eq!((before.requests, before.cost_nanousd), (3, 21));
    tend(&store, Utc::now()).await.unwrap();
    assert_eq!(sums(&store, &question).await.sums(), before.sums());
    assert_eq!(
        store.attempts_of(organization, RequestId(ids[0])).await.unwrap().len(),
        1
    );
    // And back.
    let db = sea_orm::Database::connect(&options.url).await.unwrap();
    let steps = migration::Migrator::migrations().len() - ours;
    migration::Migrator::down(&db, Some(u32::try_from(steps).unwrap()))
        .await
        .unwrap();
    let left = format!(
        "SELECT COUNT(*) AS attempts FROM gateway_attempts WHERE request_id = {}",
        literal(ids[2])
    );
    let left = Statement::from_string(db.get_database_backend(), left);
    let left = db.query_one_raw(left).await.unwrap().unwrap();
    assert_eq!(left.try_get::<i64>("", "attempts").unwrap(), 1);
    db.close().await.unwrap();
    store.close().await;
}
