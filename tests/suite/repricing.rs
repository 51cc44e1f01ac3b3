//! Past calls at other prices: exactly, once, and with everything that follows from what they cost.

use std::time::Duration;

use bonito::analytics::rollup::tend;
use bonito::domain::audit::Author;
use bonito::domain::budget::calendar::Period;
use bonito::domain::budget::{BudgetId, BudgetScope, BudgetTerms, DEFAULT_THRESHOLDS, Enforcement, Unpriced};
use bonito::domain::ids::KeyId;
use bonito::domain::job::{Claim, JobId};
use bonito::domain::money::NanoUsd;
use bonito::domain::pricing::{Price, Rates};
use bonito::domain::report::hour::Hour;
use bonito::domain::repricing::{PriceBook, RepricingTerms};
use bonito::domain::role::Role;
use bonito::domain::service::Surcharges;
use bonito::domain::usage::TokenUsage;
use bonito::jobs::reprice::Reprice;
use bonito::queue::{Job as _, Outcome, Run};
use bonito::store::repricing::Advance;
use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::audit::rows;
use crate::support::gateway::{Reply, TEST_HAND};
use crate::support::{ScriptedProvider, TestGateway};
use crate::usage_sums::{Like, everything, record, sums};

const REPRICE: &str = "/api/gateway/prices/reprice";
const PRICES: &str = "/api/gateway/prices";

async fn ask(gateway: &TestGateway, method: &str, path: &str, body: Option<Value>) -> Reply {
    gateway
        .manage(method, path, &gateway.token(Role::Admin), body.as_ref())
        .await
}

/// A re-pricing of everything, when its job is done.
async fn repriced(gateway: &TestGateway, dry_run: bool, provider: Option<&str>) -> Value {
    let terms = json!({"from": "2026-01-01T00:00:00Z", "dry_run": dry_run, "provider": provider});
    let begun = ask(gateway, "POST", REPRICE, Some(terms)).await;
    assert_eq!(begun.status, 202, "{}", begun.text);
    let path = begun.header("location").to_owned();
    for _ in 0..1_000 {
        let seen = ask(gateway, "GET", &path, None).await.json();
        if seen["state"] == "done" {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!(
        "the re-pricing does not end: {}",
        ask(gateway, "GET", &path, None).await.text
    );
}

async fn budget(gateway: &TestGateway, scope: BudgetScope) -> BudgetId {
    let terms = BudgetTerms {
        amount: NanoUsd(1_000_000_000_000),
        period: Period::Total,
        zone: chrono_tz::UTC,
        enforcement: Enforcement::Soft,
        unpriced: Unpriced::Allow,
        default_output_tokens: None,
        thresholds: DEFAULT_THRESHOLDS.to_vec().into(),
        enabled: true,
    };
    let by = Author::system(TEST_HAND);
    let set = gateway
        .store
        .set_budget(gateway.organization, &scope, &terms, &by)
        .await;
    set.unwrap().unwrap()
}

async fn spent(gateway: &TestGateway, budget: BudgetId) -> i64 {
    let budgets = gateway.store.budgets_of(gateway.organization).await.unwrap();
    let found = budgets.into_iter().find(|other| other.id == budget).unwrap();
    let start = found.terms.period.span(found.terms.zone, Utc::now()).start;
    gateway.store.spent_of(budget, start).await.unwrap().spent.0
}

/// What everything says was spent: the ledger, budgets, the key's own page, and the figures.
async fn everything_agrees(gateway: &TestGateway, budgets: &[(BudgetId, &str)], key: (KeyId, &str)) -> i64 {
    let ledger = |condition: &str| {
        format!(
            "SELECT CAST(COALESCE(SUM(a.cost_nanousd), 0) AS bigint) AS n FROM gateway_attempts a \
             JOIN gateway_requests r ON r.id = a.request_id WHERE {condition}"
        )
    };
    for (budget, condition) in budgets {
        assert_eq!(
            spent(gateway, *budget).await,
            gateway.number(&ledger(condition)).await,
            "spent = sum of the ledger where {condition}"
        );
    }
    let requests =
        "SELECT CAST(COALESCE(SUM(cost_nanousd), 0) AS bigint) AS n FROM gateway_requests WHERE metering <> 'unpriced'";
    let all = gateway.number(&ledger("r.metering <> 'unpriced'")).await;
    assert_eq!(
        gateway.number(requests).await,
        all,
        "requests are the sums of their attempts"
    );
    assert_eq!(
        gateway.store.spent_by(key.0, &[]).await.unwrap().0,
        gateway.number(&ledger("1 = 1")).await
    );
    let day = Utc::now() + TimeDelta::days(1);
    let usage = format!(
        "/api/gateway/usage?from={}&to={}",
        (day - TimeDelta::days(3)).format("%Y-%m-%dT00:00:00Z"),
        day.format("%Y-%m-%dT00:00:00Z")
    );
    let figures = ask(gateway, "GET", &usage, None).await.json();
    assert_eq!(figures["totals"]["cost_nanousd"], json!(all), "{figures}");
    all
}

#[tokio::test]
async fn a_repricing_that_takes_long_gives_its_place_back_and_goes_on_where_it_was() {
    let gateway = TestGateway::builder().set("jobs.in_serve", false).start().await;
    let (key, _) = gateway.new_key(&[], &[], None).await;
    let like = Like {
        organization: gateway.organization,
        team: None,
        key,
        provider: "alpha",
        model: "m",
        error: None,
        cost: 1_000,
        latency_us: 20_000,
    };
    let records: Vec<_> = (0..450)
        .map(|_| record(Utc::now() - TimeDelta::hours(1), &like))
        .collect();
    assert!(gateway.store.write_records(&records).await.unwrap().is_empty());
    let terms = json!({"from": "2026-01-01T00:00:00Z", "dry_run": true});
    let begun = ask(&gateway, "POST", REPRICE, Some(terms)).await;
    assert_eq!(begun.status, 202, "{}", begun.text);
    let path = begun.header("location").to_owned();
    let job = Reprice {
        store: gateway.store.clone(),
    };
    let run = Run {
        claim: Claim {
            job: JobId(Uuid::now_v7()),
            number: 1,
        },
        organization: Some(gateway.organization),
        payload: json!({"repricing": begun.json()["id"]}),
        attempt: 1,
        last: false,
        stopping: Default::default(),
        turn_ends: tokio::time::Instant::now(),
    };
    // Each turn is over before it begins, and does one part all the same.
    for looked_at in [200, 400] {
        assert_eq!(job.run(&run).await.unwrap(), Outcome::Again(Duration::ZERO));
        let seen = ask(&gateway, "GET", &path, None).await.json();
        assert_eq!(
            (&seen["state"], &seen["requests"]),
            (&json!("running"), &json!(looked_at)),
            "{seen}"
        );
    }
    assert_eq!(job.run(&run).await.unwrap(), Outcome::Done);
    let seen = ask(&gateway, "GET", &path, None).await.json();
    assert_eq!(
        (&seen["state"], &seen["requests"]),
        (&json!("done"), &json!(450)),
        "{seen}"
    );
    gateway.finish().await;
}

#[tokio::test]
async fn past_calls_follow_the_prices_of_now_and_so_does_everything_that_was_spent() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .provider("alpha", &provider.base_url(), &["mock-chat"])
        .file("[[providers.alpha.deployments]]\nmodel = \"free\"")
        .start()
        .await;
    let (key, secret) = gateway.new_key(&[], &[], None).await;
    let budgets = [
        (budget(&gateway, BudgetScope::Organization).await, "1 = 1"),
        (budget(&gateway, BudgetScope::Key(key)).await, "1 = 1"),
        (
            budget(&gateway, BudgetScope::Model("mock-chat".into())).await,
            "a.model = 'mock-chat'",
        ),
        (
            budget(&gateway, BudgetScope::Model("free".into())).await,
            "a.model = 'free'",
        ),
        (
            budget(&gateway, BudgetScope::Provider("echo".into())).await,
            "a.provider = 'echo'",
        ),
    ];
    let send = async |model: &str| {
        let body = crate::support::gateway::chat(model, "words:7", false).to_string();
        let reply = gateway.send("/v1/chat/completions", &secret, body).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        gateway.row(&reply).await
    };
    let (listed, unpriced) = (send("mock-chat").await, send("free").await);
    send("mock-chat").await;
    send("echo").await;
    assert_eq!((unpriced.cost_nanousd, unpriced.metering.as_str()), (None, "unpriced"));
    let before = everything_agrees(&gateway, &budgets, (key, &secret)).await;
    let cost_before = listed.cost_nanousd.unwrap();

    // At the prices of now nothing changes but that nothing has a price that had none.
    let nothing = repriced(&gateway, false, None).await;
    assert_eq!(
        (&nothing["changed"], &nothing["without_price"], &nothing["requests"]),
        (&json!(0), &json!(1), &json!(4)),
        "{nothing}"
    );

    let own = json!({"prices": [
        {"deployment": "alpha/mock-chat", "input_usd": "5", "output_usd": "20"},
        {"deployment": "alpha/free", "input_usd": "1", "output_usd": "3"}
    ]});
    assert_eq!(ask(&gateway, "PUT", PRICES, Some(own)).await.status, 200);
    let newly = unpriced.input_tokens * 1_000 + unpriced.output_tokens * 3_000;
    let dry = repriced(&gateway, true, None).await;
    assert_eq!(
        (
            &dry["changed"],
            &dry["newly_priced"],
            &dry["without_price"],
            &dry["difference_nanousd"]
        ),
        (&json!(3), &json!(1), &json!(0), &json!(2 * cost_before + newly)),
        "{dry}"
    );
    assert_eq!(
        dry["models"],
        json!({
            "alpha/mock-chat": {
                "changed": 2, "newly_priced": 0, "before_nanousd": 2 * cost_before, "after_nanousd": 4 * cost_before,
                "difference_nanousd": 2 * cost_before
            },
            "alpha/free": {
                "changed": 1, "newly_priced": 1, "before_nanousd": 0, "after_nanousd": newly, "difference_nanousd": newly
            }
        })
    );
    assert_eq!(
        everything_agrees(&gateway, &budgets, (key, &secret)).await,
        before,
        "a dry run changes nothing"
    );

    let done = repriced(&gateway, false, None).await;
    assert_eq!(done["difference_nanousd"], dry["difference_nanousd"]);
    let dearer = everything_agrees(&gateway, &budgets, (key, &secret)).await;
    assert_eq!(dearer, before + 2 * cost_before + newly);
    let row = gateway.row_of(bonito::domain::ids::RequestId(unpriced.id)).await;
    assert_eq!((row.cost_nanousd, row.metering.as_str()), (Some(newly), "reported"));
    assert!(row.price_version.unwrap().starts_with("organization/alpha/free#"));
    assert_eq!(
        repriced(&gateway, false, None).await["changed"],
        json!(0),
        "done twice is done once"
    );

    // Sums that were made before are made anew, and back it goes.
    let cheaper = json!({"prices": [
        {"deployment": "alpha/mock-chat", "input_usd": "0.5", "output_usd": "2"},
        {"deployment": "alpha/free", "input_usd": "1", "output_usd": "3"}
    ]});
    assert_eq!(ask(&gateway, "PUT", PRICES, Some(cheaper)).await.status, 200);
    assert_eq!(
        repriced(&gateway, false, Some("echo")).await["changed"],
        json!(0),
        "only what was asked for"
    );
    let back = repriced(&gateway, false, Some("alpha")).await;
    let difference = back["difference_nanousd"].as_i64().unwrap();
    assert!(difference < 0, "{back}");
    assert_eq!(
        everything_agrees(&gateway, &budgets, (key, &secret)).await,
        dearer + difference
    );
    let recorded = format!("{:?}", rows(&gateway, gateway.organization).await);
    assert!(recorded.contains("prices.reprice\"") && recorded.contains("prices.repriced"));
    gateway.finish().await;
}

#[tokio::test]
async fn the_figures_of_every_price_that_was_charged_are_kept() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .provider("alpha", &provider.base_url(), &["mock-chat"])
        .start()
        .await;
    let send = async || {
        let reply = gateway.chat("mock-chat", "words:7").await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        gateway.row(&reply).await
    };
    // It is written just after the first row that names it.
    let kept = async |version: &str| -> Price {
        let began = std::time::Instant::now();
        loop {
            if let Some(price) = gateway.store.kept_prices(&[version]).await.unwrap().pop() {
                return price;
            }
            assert!(began.elapsed() < Duration::from_secs(5), "{version} is not kept");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let own = |input: &str| json!({"prices": [{"deployment": "alpha/mock-chat", "input_usd": input, "output_usd": "20", "cache_read_usd": "1"}]});
    let mut rows = vec![send().await];
    for input in ["5", "7"] {
        assert_eq!(ask(&gateway, "PUT", PRICES, Some(own(input))).await.status, 200);
        rows.push(send().await);
    }
    let mut versions = Vec::new();
    for row in &rows {
        let version = row.price_version.clone().unwrap();
        let price = kept(&version).await;
        let count = |tokens: i64| u64::try_from(tokens).unwrap();
        let usage = TokenUsage {
            input: count(row.input_tokens),
            cached_input: count(row.cached_tokens),
            output: count(row.output_tokens),
            ..TokenUsage::default()
        };
        assert_eq!(price.cost(&usage).unwrap().0, row.cost_nanousd.unwrap(), "{version}");
        versions.push(version);
    }
    versions.sort();
    versions.dedup();
    assert_eq!(versions.len(), 3, "the earlier ones are still there: {versions:?}");
    // A price that only a re-pricing has charged by is kept with the rows that it changed.
    assert_eq!(ask(&gateway, "PUT", PRICES, Some(own("9"))).await.status, 200);
    let done = repriced(&gateway, false, None).await;
    assert_eq!(done["changed"], json!(3), "{done}");
    let row = gateway
        .store
        .request(gateway.organization, bonito::domain::ids::RequestId(rows[0].id))
        .await
        .unwrap()
        .unwrap();
    let version = row.price_version.unwrap();
    assert!(!versions.contains(&version));
    assert_eq!(kept(&version).await.rates.input, NanoUsd(9_000_000_000));
    gateway.finish().await;
}

#[tokio::test]
async fn what_cannot_be_repriced_is_refused_and_two_at_a_time_are_not() {
    let gateway = TestGateway::builder().set("jobs.in_serve", false).start().await;
    let post = async |body: Value| ask(&gateway, "POST", REPRICE, Some(body)).await;
    let backwards = post(json!({"from": "2026-02-01T00:00:00Z", "to": "2026-01-01T00:00:00Z", "dry_run": true})).await;
    assert_eq!(
        (backwards.status, &backwards.json()["errors"][0]["pointer"]),
        (422, &json!("/to"))
    );
    let nobody = post(json!({"from": "2026-02-01T00:00:00Z", "provider": "nobody", "dry_run": true})).await;
    assert_eq!(
        (nobody.status, &nobody.json()["errors"][0]["pointer"]),
        (422, &json!("/provider"))
    );
    assert!(matches!(
        post(json!({"from": "2026-02-01T00:00:00Z"})).await.status,
        400 | 422
    ));
    let fine = json!({"from": "2026-02-01T00:00:00Z", "dry_run": true});
    let begun = post(fine.clone()).await;
    assert_eq!(begun.status, 202, "{}", begun.text);
    assert_eq!(post(fine.clone()).await.status, 409);
    let path = format!("{REPRICE}/{}", begun.json()["id"].as_str().unwrap());
    assert_eq!(
        ask(&gateway, "GET", &path, None).await.json()["state"],
        json!("running")
    );
    let other = gateway.store.create_organization("other", "Other").await.unwrap();
    let theirs = gateway
        .manage("GET", &path, &gateway.token_for(Role::Admin, other), None)
        .await;
    assert_eq!(theirs.status, 404);
    // One whose job is over for good is in nobody's way.
    gateway
        .sql("UPDATE gateway_jobs SET state = 'dead' WHERE kind = 'reprice'")
        .await;
    let next = post(fine).await;
    assert_eq!(next.status, 202, "{}", next.text);
    let given_up = Uuid::parse_str(begun.json()["id"].as_str().unwrap()).unwrap();
    assert_eq!(
        gateway.store.advance_repricing(given_up, 10).await.unwrap(),
        Advance::Gone
    );
    gateway.finish().await;
}

/// The prices of one model, dollars for a million tokens, the same for both kinds.
fn book_of(provider: &str, model: &str, usd: i64) -> PriceBook {
    let mut book = PriceBook::default();
    let price = Price {
        version: format!("test#{usd}").as_str().into(),
        rates: Rates {
            input: NanoUsd(usd * 1_000_000_000),
            output: NanoUsd(usd * 1_000_000_000),
            ..Rates::default()
        },
        long_prompt: None,
        batch: None,
        surcharges: Surcharges::default(),
    };
    book.add(provider, model, [(None, &price)]);
    book
}

/// Figures of hours whose sums were made are not those of before, at no moment, and are made anew.
#[tokio::test]
async fn sums_of_hours_that_are_long_over_follow() {
    let gateway = TestGateway::builder().set("jobs.in_serve", false).start().await;
    let store = &gateway.store;
    let now = Utc::now();
    let like = Like {
        organization: gateway.organization,
        team: None,
        key: KeyId(Uuid::now_v7()),
        provider: "alpha",
        model: "m",
        error: None,
        cost: 1_000,
        latency_us: 50_000,
    };
    let records: Vec<_> = (0..20)
        .map(|n| record(now - TimeDelta::days(3) + TimeDelta::minutes(11 * n), &like))
        .collect();
    assert!(store.write_records(&records).await.unwrap().is_empty());
    while tend(store, now).await.unwrap().more {}
    let pending = "SELECT count(*) AS n FROM usage_pending WHERE span = 'hour'";
    let question = everything(gateway.organization, Hour::at(now).plus(-96), Hour::at(now).plus(1));
    assert_eq!(sums(store, &question).await.cost_nanousd, 20_000);
    let summed = gateway.number(pending).await;

    let terms = RepricingTerms {
        from: now - TimeDelta::days(4),
        to: now,
        provider: None,
        model: Some("m".into()),
        dry_run: false,
    };
    let (book, by) = (book_of("alpha", "m", 3), Author::system("test"));
    let begun = store.begin_repricing(gateway.organization, &terms, &book, &by).await;
    let id = begun.unwrap().unwrap().id;
    let rows = "SELECT CAST(SUM(cost_nanousd) AS bigint) AS n FROM gateway_requests";
    while store.advance_repricing(id, 3).await.unwrap() == Advance::More {
        let (rows, figures) = (gateway.number(rows).await, sums(store, &question).await);
        assert_eq!(
            figures.cost_nanousd, rows,
            "figures are those of the rows in the middle of it, too"
        );
    }
    assert!(gateway.number(pending).await > summed, "the sums are known to be old");
    // 15 tokens at three dollars a million.
    assert_eq!(sums(store, &question).await.cost_nanousd, 20 * 45_000);
    while tend(store, Utc::now()).await.unwrap().more {}
    assert_eq!(gateway.number(pending).await, summed);
    assert_eq!(sums(store, &question).await.cost_nanousd, 20 * 45_000);
    assert_eq!(sums(store, &question).await.requests, 20);
    gateway.finish().await;
}

/// A worker that is killed leaves what it committed, and whoever comes next goes on from there; a worker that was taken for
/// dead and comes back does no harm. However the work was cut up, what comes out is the same.
#[tokio::test]
async fn a_repricing_that_was_broken_off_anywhere_ends_as_one_that_was_not() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .provider("alpha", &provider.base_url(), &["mock-chat"])
        .set("jobs.in_serve", false)
        .start()
        .await;
    let (key, secret) = gateway.new_key(&[], &[], None).await;
    let budgets = [
        (budget(&gateway, BudgetScope::Organization).await, "1 = 1"),
        (budget(&gateway, BudgetScope::Key(key)).await, "1 = 1"),
    ];
    for words in 1..=12 {
        let body = crate::support::gateway::chat("mock-chat", &format!("words:{words}"), false).to_string();
        gateway.send("/v1/chat/completions", &secret, body).await;
    }
    gateway.totals_of(12).await;
    let terms = RepricingTerms {
        from: Utc::now() - TimeDelta::days(1),
        to: Utc::now() + TimeDelta::days(1),
        provider: None,
        model: None,
        dry_run: false,
    };
    let book = |usd: i64| book_of("alpha", "mock-chat", usd);
    let by = Author::system("test");
    let begin = async |usd: i64| {
        let begun = gateway
            .store
            .begin_repricing(gateway.organization, &terms, &book(usd), &by)
            .await;
        begun.unwrap().unwrap().id
    };
    let costs = async || {
        gateway
            .number("SELECT CAST(SUM(cost_nanousd) AS bigint) AS n FROM gateway_requests")
            .await
    };
    let sums_of = async |id| {
        gateway
            .store
            .repricing(gateway.organization, id)
            .await
            .unwrap()
            .unwrap()
            .sums
    };

    // In one go.
    let whole = begin(7).await;
    assert_eq!(
        gateway.store.advance_repricing(whole, 1_000).await.unwrap(),
        Advance::Done
    );
    let (expected, sums_of_whole) = (costs().await, sums_of(whole).await);
    everything_agrees(&gateway, &budgets, (key, &secret)).await;
    let back = begin(1).await;
    while gateway.store.advance_repricing(back, 5).await.unwrap() == Advance::More {}
    everything_agrees(&gateway, &budgets, (key, &secret)).await;
    let before = sums_of(back).await.after_nanousd;

    // In pieces, with workers that are killed in the middle of one, and others that run at the same time.
    let pieces = begin(7).await;
    for _ in 0..3 {
        let store = gateway.store.clone();
        let killed = tokio::spawn(async move { store.advance_repricing(pieces, 2).await });
        tokio::time::sleep(Duration::from_micros(400)).await;
        killed.abort();
        let _ = killed.await;
        // Whatever was committed, the sums belong to it.
        everything_agrees(&gateway, &budgets, (key, &secret)).await;
    }
    let twice = async || {
        let (one, other) = (gateway.store.clone(), gateway.store.clone());
        tokio::join!(one.advance_repricing(pieces, 2), other.advance_repricing(pieces, 2))
    };
    loop {
        let (one, other) = twice().await;
        everything_agrees(&gateway, &budgets, (key, &secret)).await;
        if one.unwrap() == Advance::Done && other.unwrap() == Advance::Done {
            break;
        }
    }
    assert_eq!(costs().await, expected);
    let sums_of_pieces = sums_of(pieces).await;
    assert_eq!(sums_of_pieces.after_nanousd, sums_of_whole.after_nanousd);
    assert_eq!((sums_of_pieces.changed, sums_of_pieces.before_nanousd), (12, before));
    assert_eq!(gateway.store.advance_repricing(pieces, 2).await.unwrap(), Advance::Done);
    gateway.finish().await;
}
