//! Budgets: what may be spent is, and no more, however calls end and whatever dies.
//!
//! The model `m` of these tests costs a tenth of a cent for each token it writes, and nothing for what it reads. So the
//! worst case of a call is its `max_tokens`, and its cost is the number of words it is told to say.
//!
//! `p7_…` and `p8_…` are the promises of the same numbers. With `BONITO_PROMISES=full` they run at full size.

use std::time::{Duration, Instant};

use bonito::actors::ledger::LedgerMsg;
use bonito::domain::audit::Author;
use bonito::domain::budget::calendar::Period;
use bonito::domain::budget::{BudgetId, BudgetScope, BudgetTerms, DEFAULT_THRESHOLDS, Enforcement, Unpriced};
use bonito::domain::ids::KeyId;
use bonito::domain::job::{JobKind, JobState, NewJob};
use bonito::domain::managed_key::KeyReach;
use bonito::domain::managed_limit::Outcome;
use bonito::domain::money::NanoUsd;
use bonito::domain::scope::Scope;
use chrono_tz::Tz;
use serde_json::{Value, json};

use crate::audit::rows;
use crate::promises::{full, size};
use crate::support::database::on_postgres;
use crate::support::gateway::{Builder, Reply, TEST_HAND};
use crate::support::{Script, ScriptedProvider, TestGateway};

/// What one token of an answer costs.
const TOKEN: i64 = 1_000_000;

/// A gateway with the model `m` at these providers.
fn with(providers: &[(&str, &ScriptedProvider)]) -> Builder {
    let mut builder = TestGateway::builder().set("overload.lag_ms", 0);
    for (id, provider) in providers {
        let variable = format!("TEST_{}_KEY", id.to_uppercase());
        builder = builder.env(&variable, "sk-secret").file(&format!(
            "[providers.{id}]\nbase_url = {:?}\napi_key_env = {variable:?}\n[[providers.{id}.deployments]]\n\
             model = \"m\"\nname = \"mock-chat\"\ninput_usd = \"0\"\noutput_usd = \"1000\"\n",
            provider.base_url()
        ));
    }
    builder
}

fn terms(tokens: i64) -> BudgetTerms {
    BudgetTerms {
        amount: NanoUsd(tokens * TOKEN),
        period: Period::Monthly,
        zone: Tz::UTC,
        enforcement: Enforcement::Hard,
        unpriced: Unpriced::Refuse,
        default_output_tokens: None,
        thresholds: DEFAULT_THRESHOLDS.into_iter().collect(),
        enabled: true,
    }
}

async fn set(gateway: &TestGateway, scope: BudgetScope, terms: &BudgetTerms) -> BudgetId {
    let by = Author::system(TEST_HAND);
    let set = gateway.store.set_budget(gateway.organization, &scope, terms, &by).await;
    set.unwrap().expect("there is such a thing")
}

/// A key with a budget of so many tokens.
async fn key_with(gateway: &TestGateway, tokens: i64) -> (KeyId, String, BudgetId) {
    let (id, secret) = gateway.new_key(&[], &[], None).await;
    let budget = set(gateway, BudgetScope::Key(id), &terms(tokens)).await;
    (id, secret, budget)
}

fn body(words: u32, max_tokens: u32, more: &str) -> Value {
    let content = format!("words:{words} {more}");
    json!({"model": "m", "max_tokens": max_tokens, "messages": [{"role": "user", "content": content}]})
}

/// A call that says so many words and may say so many tokens.
async fn call(gateway: &TestGateway, key: &str, words: u32, max_tokens: u32) -> Reply {
    let body = body(words, max_tokens, "").to_string();
    gateway.send("/v1/chat/completions", key, body).await
}

/// What the budget of a key is like, as its holder sees it.
async fn seen(gateway: &TestGateway, key: &str) -> Value {
    gateway.get("/v1/key", key).await.json()["budgets"][0].clone()
}

fn tokens(amount: &Value) -> i64 {
    NanoUsd::parse_usd(amount.as_str().unwrap_or_else(|| panic!("{amount} is no amount")))
        .unwrap()
        .0
        / TOKEN
}

/// Waits until a budget is at rest: nothing reserved or set aside, and what was spent is the sum of the ledger.
async fn at_rest(gateway: &TestGateway, budget: BudgetId, key: KeyId) -> i64 {
    let start = Period::Monthly.span(Tz::UTC, chrono::Utc::now()).start;
    let rest = async {
        loop {
            let spent = gateway.store.spent_of(budget, start).await.unwrap();
            let ledger = gateway.store.spent_by(key, &[]).await.unwrap();
            if spent.set_aside == NanoUsd::ZERO && spent.spent == ledger {
                return spent.spent.0 / TOKEN;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let rest = tokio::time::timeout(Duration::from_secs(60), rest).await;
    rest.unwrap_or_else(|_| panic!("the budget does not come to rest"))
}

#[tokio::test]
async fn a_budget_is_spent_to_its_end_and_then_says_so_in_both_dialects() {
    let provider = ScriptedProvider::start().await;
    let gateway = with(&[("alpha", &provider)]).start().await;
    let (_, key, _) = key_with(&gateway, 50).await;
    for _ in 0..2 {
        let reply = call(&gateway, &key, 25, 25).await;
        assert_eq!(
            (reply.status, reply.header("x-bonito-cost-usd")),
            (200, "0.025"),
            "{}",
            reply.text
        );
    }
    let refused = call(&gateway, &key, 5, 5).await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "insufficient_quota"));
    assert_eq!(
        (refused.header("x-should-retry"), refused.header("retry-after")),
        ("false", "")
    );
    let error = refused.json()["error"].clone();
    assert_eq!(error["type"], "insufficient_quota");
    let message = error["message"].as_str().unwrap();
    let next = Period::Monthly
        .span(Tz::UTC, chrono::Utc::now())
        .end
        .unwrap()
        .format("%F");
    let expected = format!("budget for key \"test key\" is used up (0.05 of 0.05 USD this month); it resets on {next}");
    assert_eq!(message, expected);

    let anthropic = json!({"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "words:5"}]});
    let refused = gateway.send("/v1/messages", &key, anthropic.to_string()).await;
    assert_eq!((refused.status, refused.header("x-should-retry")), (429, "false"));
    let error = refused.json()["error"].clone();
    assert_eq!(
        (error["type"].as_str(), error["message"].as_str()),
        (Some("rate_limit_error"), Some(&*expected))
    );
    assert_eq!(error["details"]["error_code"], "insufficient_quota");

    // A stream is refused with a status, too, and the record says why.
    let mut stream = body(5, 5, "");
    stream["stream"] = json!(true);
    let refused = gateway.send("/v1/chat/completions", &key, stream.to_string()).await;
    let row = gateway.row(&refused).await;
    assert_eq!(
        (refused.status, row.status, row.error_class.as_deref()),
        (429, 429, Some("budget"))
    );
    assert_eq!((row.attempts, row.cost_nanousd), (0, Some(0)));
    assert_eq!(provider.requests().len(), 2, "nothing else reached the provider");
    assert_eq!(call(&gateway, &gateway.key, 5, 5).await.status, 200, "other keys go on");
    gateway.finish().await;
}

#[tokio::test]
async fn a_call_that_cannot_fit_is_refused_with_the_limit_that_would() {
    let provider = ScriptedProvider::start().await;
    let gateway = with(&[("alpha", &provider)]).start().await;
    let (_, key, _) = key_with(&gateway, 100).await;
    let refused = call(&gateway, &key, 5, 101).await;
    let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    assert_eq!(
        message,
        "this call may cost 0.101 USD, more than the whole budget for key \"test key\" (0.10 USD this month); with \
         max_tokens of at most 100 it would fit"
    );
    assert_eq!(call(&gateway, &key, 90, 100).await.status, 200);
    let refused = call(&gateway, &key, 5, 11).await;
    assert!(
        refused.text.contains("(0.09 of 0.10 USD this month)")
            && refused.text.contains("with max_tokens of at most 10 it would fit"),
        "{}",
        refused.text
    );
    assert_eq!(call(&gateway, &key, 10, 10).await.status, 200);
    // Several answers cost several times as much.
    let (_, key, _) = key_with(&gateway, 100).await;
    let mut three = body(5, 34, "");
    three["n"] = json!(3);
    assert_eq!(
        gateway
            .send("/v1/chat/completions", &key, three.to_string())
            .await
            .status,
        429
    );
    three["max_tokens"] = json!(33);
    assert_eq!(
        gateway
            .send("/v1/chat/completions", &key, three.to_string())
            .await
            .status,
        200
    );
    gateway.finish().await;
}

#[tokio::test]
async fn twenty_calls_at_once_that_may_cost_twice_what_they_do_all_pass() {
    let provider = ScriptedProvider::start().await;
    let gateway = with(&[("alpha", &provider)]).start().await;
    let (id, key, budget) = key_with(&gateway, 250).await;
    let calls = (0..20).map(|_| {
        let body = body(10, 20, "pause_ms:30").to_string();
        gateway.send("/v1/chat/completions", &key, body)
    });
    for reply in futures_util::future::join_all(calls).await {
        assert_eq!(reply.status, 200, "{}", reply.text);
    }
    assert_eq!(at_rest(&gateway, budget, id).await, 200);
    assert!(
        gateway.metric("bonito_budget_waits_total").await >= 1.0,
        "some had to wait"
    );
    gateway.finish().await;
}

/// One wave of calls at once, each of which costs what it may at the most. Gives how many were served.
async fn wave(gateways: &[&TestGateway], key: &str, calls: usize, words: u32) -> usize {
    let calls = (0..calls).map(async |number| {
        let gateway = gateways[number % gateways.len()];
        let body = body(words, words, "pause_ms:20").to_string();
        let reply = gateway.send("/v1/chat/completions", key, body).await;
        match reply.status {
            200 => true,
            429 => {
                let said = (reply.code(), reply.header("x-should-retry").to_owned());
                // Used up, or held by calls under way that did not end in time.
                let allowed = [("insufficient_quota", "false"), ("budget_reserved", "true")];
                assert!(allowed.contains(&(&*said.0, &*said.1)), "{said:?}");
                false
            }
            other => panic!("{other}: {}", reply.text),
        }
    });
    let served = futures_util::future::join_all(calls).await;
    served.into_iter().filter(|&served| served).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_a_hard_budget_is_never_exceeded_however_many_calls_come_at_once() {
    let (calls, waves) = if full() { (1_000, 50) } else { (200, 2) };
    let provider = ScriptedProvider::start().await;
    let first = with(&[("alpha", &provider)]).start().await;
    // SQLite is for one process.
    let second = match on_postgres() {
        true => Some(with(&[("alpha", &provider)]).on_the_database_of(&first).start().await),
        false => None,
    };
    let gateways: Vec<&TestGateway> = std::iter::once(&first).chain(&second).collect();
    let (mut overspent, mut unspent) = (0, 0);
    for _ in 0..waves {
        let (id, key, budget) = key_with(&first, 200).await;
        let served = wave(&gateways, &key, calls, 10).await;
        let spent = at_rest(&first, budget, id).await;
        assert_eq!(usize::try_from(spent).unwrap(), served * 10);
        overspent = overspent.max(spent - 200);
        unspent = unspent.max(200 - spent);
    }
    println!(
        "PROMISE P7: {waves} × {calls} calls at once on {} replicas against a budget of 20 calls: overspent by at most \
         {overspent} tokens, left over at most {unspent}",
        gateways.len()
    );
    assert_eq!(overspent, 0);
    assert_eq!(unspent, 0, "no call is refused while there is enough for it");
    first.finish().await;
    if let Some(second) = second {
        second.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_nothing_stays_reserved_however_calls_end() {
    let calls = size("BONITO_PROMISES_CALLS", 300, 20_000).cast_signed();
    let kills = if full() { 3 } else { 1 };
    let provider = ScriptedProvider::start().await;
    let patient = |builder: Builder| {
        builder
            .set("budgets.lease_ms", 1_000)
            .set("budgets.grace_ms", 500)
            .set("health.failures_in_a_row", 1_000_000)
    };
    let mut gateway = patient(with(&[("alpha", &provider)])).start().await;
    let (id, key, budget) = key_with(&gateway, 2 * 20 * calls).await;
    let mut refused: Vec<String> = Vec::new();
    for round in 0..=kills {
        let share = calls / (kills + 1);
        let one = async |number: i64| {
            if full() {
                // A key may make 10,000 calls a minute, and it is not the limits that are looked at here.
                tokio::time::sleep(Duration::from_millis(220)).await;
            }
            one_of(&gateway, &key, number).await
        };
        provider.always(Script::faithful().unless(|received| {
            let said = received.json()["messages"][0]["content"].as_str()?.to_owned();
            match said.as_str() {
                "fail" => Some(Script::server_error()),
                said if said.ends_with("cut") => Some(Script::cut_after_events(5)),
                _ => None,
            }
        }));
        let statuses = futures_util::StreamExt::buffer_unordered(
            futures_util::StreamExt::map(futures_util::stream::iter(0..share), one),
            32,
        );
        let statuses: Vec<(u16, String)> = futures_util::StreamExt::collect(statuses).await;
        let refusals = statuses.into_iter().filter(|(status, _)| [429, 503].contains(status));
        refused.extend(refusals.map(|(status, said)| format!("{status}: {said}")));
        if round < kills {
            // It dies with calls under way.
            let mut streams = Vec::new();
            for _ in 0..8 {
                let mut body = body(40, 20, "pause_ms:50");
                body["stream"] = json!(true);
                let request = gateway.client.post(format!("{}/v1/chat/completions", gateway.api));
                let mut stream = request.bearer_auth(&key).json(&body).send().await.unwrap();
                assert_eq!(stream.status(), 200);
                let _ = stream.chunk().await;
                streams.push(stream);
            }
            let next = patient(with(&[("alpha", &provider)]))
                .on_the_database_of(&gateway)
                .start()
                .await;
            std::mem::replace(&mut gateway, next).crash().await;
        }
    }
    assert!(
        refused.is_empty(),
        "there was always enough: {} {:?}",
        refused.len(),
        refused.first()
    );
    let begun = Instant::now();
    let start = Period::Monthly.span(Tz::UTC, chrono::Utc::now()).start;
    while gateway.store.spent_of(budget, start).await.unwrap().set_aside != NanoUsd::ZERO {
        assert!(begun.elapsed() < Duration::from_secs(60), "something stays reserved");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!(
        "PROMISE P8: {calls} calls, a tenth left by their callers, a tenth failed, {kills} crashes with calls under way: 0 refused, \
         nothing reserved after {} ms",
        begun.elapsed().as_millis()
    );
    // What is in the ledger counts, and nothing else.
    assert_eq!(
        gateway.store.spent_of(budget, start).await.unwrap().spent,
        gateway.store.spent_by(id, &[]).await.unwrap()
    );
    assert_eq!(tokens(&seen(&gateway, &key).await["reserved_usd"]), 0);
    gateway.finish().await;
}

/// The call of that number in P8, and what it was answered: of twenty, two callers leave, one provider fails at once and one
/// in the middle.
async fn one_of(gateway: &TestGateway, key: &str, number: i64) -> (u16, String) {
    let reply = match number % 20 {
        3 | 13 => {
            let mut body = body(400, 20, "pause_ms:5");
            body["stream"] = json!(true);
            let request = gateway.client.post(format!("{}/v1/chat/completions", gateway.api));
            let mut response = request.bearer_auth(key).json(&body).send().await.unwrap();
            let said = response.chunk().await;
            let said = String::from_utf8_lossy(&said.ok().flatten().unwrap_or_default()).into_owned();
            return (response.status().as_u16(), said);
        }
        7 => {
            let body = json!({"model": "m", "max_tokens": 20, "messages": [{"role": "user", "content": "fail"}]});
            gateway.send("/v1/chat/completions", key, body.to_string()).await
        }
        9 => {
            let mut body = body(20, 20, "cut");
            body["stream"] = json!(true);
            gateway.send("/v1/chat/completions", key, body.to_string()).await
        }
        _ => call(gateway, key, 10, 20).await,
    };
    (reply.status, reply.text)
}

#[tokio::test]
async fn what_a_dead_replica_held_comes_back_and_what_it_had_written_stays_spent() {
    let provider = ScriptedProvider::start().await;
    let quick = |builder: Builder| builder.set("budgets.lease_ms", 600).set("budgets.grace_ms", 400);
    let dying = quick(with(&[("alpha", &provider)])).start().await;
    let (id, key, budget) = key_with(&dying, 100).await;
    assert_eq!(call(&dying, &key, 10, 10).await.status, 200);
    dying.totals_of(1).await;
    // It has a part of the budget, and a call under way that holds nearly all that is left.
    provider.script(Script::stalled_before_headers());
    let held = body(10, 85, "").to_string();
    let request = dying
        .client
        .post(format!("{}/v1/chat/completions", dying.api))
        .bearer_auth(&key);
    let hanging = tokio::spawn(request.header("content-type", "application/json").body(held).send());
    while provider.requests().len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let living = quick(with(&[("alpha", &provider)]))
        .on_the_database_of(&dying)
        .start()
        .await;
    dying.crash().await;
    hanging.abort();
    let begun = Instant::now();
    let reply = call(&living, &key, 90, 90).await;
    assert_eq!(reply.status, 200, "it waited until the part came back: {}", reply.text);
    assert!(begun.elapsed() > Duration::from_millis(300), "and not before");
    assert_eq!(at_rest(&living, budget, id).await, 100);
    living.finish().await;
}

#[tokio::test]
async fn what_was_spent_is_the_sum_of_the_ledger_also_after_a_restart_and_for_a_new_budget() {
    let provider = ScriptedProvider::start().await;
    let mut gateway = with(&[("alpha", &provider)]).start().await;
    let (id, key, budget) = key_with(&gateway, 1_000).await;
    for words in [10, 20, 30] {
        assert_eq!(call(&gateway, &key, words, 50).await.status, 200);
    }
    let before = seen(&gateway, &key).await;
    assert_eq!(
        (tokens(&before["spent_usd"]), tokens(&before["remaining_usd"])),
        (60, 940)
    );
    assert_eq!(
        (before["scope"].as_str(), before["period"].as_str()),
        (Some("key"), Some("monthly"))
    );
    assert!(before["resets_at"].as_str().unwrap().ends_with("-01T00:00:00.000000Z"));
    gateway.client = reqwest::Client::new();
    gateway.stop().await;

    let again = with(&[("alpha", &provider)]).on_the_database_of(&gateway).start().await;
    assert_eq!(tokens(&seen(&again, &key).await["spent_usd"]), 60);
    assert_eq!(at_rest(&again, budget, id).await, 60, "nothing was left set aside");
    assert_eq!(call(&again, &key, 5, 941).await.status, 429);
    assert_eq!(call(&again, &key, 5, 940).await.status, 200);
    let (reach, by) = (KeyReach::Organization, Author::system(TEST_HAND));
    // One that comes in the middle of its period counts what is there, whatever it is for.
    for scope in [
        BudgetScope::Organization,
        BudgetScope::Tag("purpose=test".into()),
        BudgetScope::Provider("alpha".into()),
        BudgetScope::Model("m".into()),
    ] {
        let spent = at_rest(&again, budget, id).await;
        let late = set(&again, scope.clone(), &terms(spent + 5)).await;
        let start = Period::Monthly.span(Tz::UTC, chrono::Utc::now()).start;
        assert_eq!(
            again.store.spent_of(late, start).await.unwrap().spent,
            NanoUsd(spent * TOKEN),
            "{scope:?}"
        );
        becomes(&again, &key, 6, 429).await;
        let removed = again.store.remove_budget(again.organization, reach, late, &by).await;
        assert_eq!(removed.unwrap(), Outcome::Done(()));
        becomes(&again, &key, 6, 200).await;
    }
    let nobodys = BudgetId(uuid::Uuid::nil());
    let removed = again.store.remove_budget(again.organization, reach, nobodys, &by).await;
    assert_eq!(removed.unwrap(), Outcome::NoSuch);
    again.finish().await;
}

/// Asks with so many tokens until the answer has a status, because changes take a moment to get around.
async fn becomes(gateway: &TestGateway, key: &str, max_tokens: u32, status: u16) {
    let ask = async {
        loop {
            if call(gateway, key, 1, max_tokens).await.status == status {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let asked = tokio::time::timeout(Duration::from_secs(10), ask).await;
    asked.unwrap_or_else(|_| panic!("it never became {status}"));
}

#[tokio::test]
async fn a_changed_budget_is_held_by_replicas_that_are_running() {
    let provider = ScriptedProvider::start().await;
    let gateway = with(&[("alpha", &provider)]).start().await;
    let (id, key, budget) = key_with(&gateway, 20).await;
    assert_eq!(call(&gateway, &key, 20, 20).await.status, 200);
    assert_eq!(call(&gateway, &key, 10, 10).await.status, 429);
    assert_eq!(
        set(&gateway, BudgetScope::Key(id), &terms(40)).await,
        budget,
        "it is the same budget"
    );
    becomes(&gateway, &key, 10, 200).await;
    let soft = BudgetTerms {
        enforcement: Enforcement::Soft,
        ..terms(1)
    };
    set(&gateway, BudgetScope::Key(id), &soft).await;
    becomes(&gateway, &key, 1_000, 200).await;
    set(&gateway, BudgetScope::Key(id), &terms(1)).await;
    becomes(&gateway, &key, 1, 429).await;
    let disabled = BudgetTerms {
        enabled: false,
        ..terms(1)
    };
    set(&gateway, BudgetScope::Key(id), &disabled).await;
    becomes(&gateway, &key, 1, 200).await;
    // Another zone has other periods, so what is in them is counted anew.
    gateway.totals_of(1).await;
    let elsewhere = BudgetTerms {
        zone: chrono_tz::Pacific::Kiritimati,
        ..terms(1)
    };
    assert_ne!(set(&gateway, BudgetScope::Key(id), &elsewhere).await, budget);
    becomes(&gateway, &key, 1, 429).await;
    let listed = gateway.store.budgets_of(gateway.organization).await.unwrap();
    assert_eq!((listed.len(), listed[0].label.as_str()), (1, "key \"test key\""));
    gateway.finish().await;
}

#[tokio::test]
async fn each_threshold_is_raised_once_in_a_period_by_whichever_replica() {
    let provider = ScriptedProvider::start().await;
    let first = with(&[("alpha", &provider)]).start().await;
    let second = with(&[("alpha", &provider)]).on_the_database_of(&first).start().await;
    let (id, key) = first.new_key(&[], &[], None).await;
    let soft = BudgetTerms {
        enforcement: Enforcement::Soft,
        ..terms(100)
    };
    let budget = set(&first, BudgetScope::Key(id), &soft).await;
    for number in 0..12 {
        let gateway = if number % 2 == 0 { &first } else { &second };
        assert_eq!(
            call(gateway, &key, 10, 10).await.status,
            200,
            "a soft budget refuses nothing"
        );
        first.totals_of(number + 1).await;
    }
    let raised = first.store.thresholds_of(first.organization).await.unwrap();
    assert_eq!(raised, [(budget, 50), (budget, 80), (budget, 100)]);
    let noticed = async {
        loop {
            let name = "bonito_budget_thresholds_total";
            let count = first.metric(name).await + second.metric(name).await;
            if count >= 3.0 {
                return count;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let noticed = tokio::time::timeout(Duration::from_secs(10), noticed).await;
    assert_eq!(noticed.expect("they are logged"), 3.0, "each by one replica");
    // A smaller amount reaches no threshold twice.
    let smaller = BudgetTerms {
        enforcement: Enforcement::Soft,
        ..terms(60)
    };
    set(&first, BudgetScope::Key(id), &smaller).await;
    call(&first, &key, 10, 10).await;
    first.totals_of(13).await;
    assert_eq!(first.store.thresholds_of(first.organization).await.unwrap().len(), 3);
    first.finish().await;
    second.finish().await;
}

#[tokio::test]
async fn of_several_budgets_the_tightest_decides_and_each_counts_its_own() {
    let (one, other) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let gateway = with(&[("alpha", &one), ("beta", &other)]).start().await;
    let (team, key) = gateway.new_team("search", Scope::default(), Scope::default()).await;
    set(&gateway, BudgetScope::Team(team), &terms(60)).await;
    set(&gateway, BudgetScope::Organization, &terms(1_000)).await;
    set(&gateway, BudgetScope::Provider("alpha".into()), &terms(20)).await;
    let by = async |key: &str, max_tokens| {
        let reply = call(&gateway, key, max_tokens, max_tokens).await;
        match reply.status {
            200 => reply.header("x-bonito-provider").to_owned(),
            _ => reply.json()["error"]["message"].as_str().unwrap().to_owned(),
        }
    };
    assert_eq!(by(&key, 20).await, "alpha");
    assert_eq!(
        by(&key, 20).await,
        "beta",
        "there is nothing left for the first provider"
    );
    assert_eq!(by(&key, 20).await, "beta");
    assert!(by(&key, 20).await.starts_with("budget for team \"search\" is used up"));
    assert_eq!(
        by(&gateway.key, 20).await,
        "beta",
        "somebody else of the organization has something left"
    );
    set(&gateway, BudgetScope::Provider("beta".into()), &terms(1)).await;
    let told = async {
        while !by(&gateway.key, 20)
            .await
            .starts_with("budget for provider \"alpha\" is used up")
        {}
    };
    tokio::time::timeout(Duration::from_secs(10), told)
        .await
        .expect("no provider is left, and the first one is named");
    // The organization's budget has counted both.
    gateway.totals_of(4).await;
    let listed = gateway.store.budgets_of(gateway.organization).await.unwrap();
    let organization = listed
        .iter()
        .find(|budget| budget.scope == BudgetScope::Organization)
        .unwrap();
    let start = Period::Monthly.span(Tz::UTC, chrono::Utc::now()).start;
    let counted = async {
        loop {
            let counted = gateway.store.spent_of(organization.id, start).await.unwrap().spent;
            if counted == NanoUsd(gateway.store.totals(gateway.organization).await.unwrap().cost_nanousd) {
                return counted.0 / TOKEN;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let counted = tokio::time::timeout(Duration::from_secs(10), counted).await;
    assert!(counted.expect("the sum of the ledger") >= 80);
    gateway.finish().await;
}

#[tokio::test]
async fn failed_attempts_that_are_charged_count_and_the_next_one_comes_on_top() {
    let (one, other) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let file = |id: &str, provider: &ScriptedProvider| {
        format!(
            "[providers.{id}]\nbase_url = {:?}\n[[providers.{id}.deployments]]\nmodel = \"m\"\nname = \"mock-chat\"\n\
             input_usd = \"1000\"\noutput_usd = \"1000\"\n",
            provider.base_url()
        )
    };
    let gateway = TestGateway::builder()
        .file(&file("alpha", &one))
        .file(&file("beta", &other))
        .file("[models.m]\nfirst_token_ms = 200\ntotal_ms = 300")
        .start()
        .await;
    let (id, key, budget) = key_with(&gateway, 3_000).await;
    // The first provider takes the request and does not answer: it will charge for the prompt.
    one.script(Script::stalled_before_headers());
    let reply = call(&gateway, &key, 10, 20).await;
    assert_eq!(
        (reply.status, reply.header("x-bonito-attempts")),
        (200, "2"),
        "{}",
        reply.text
    );
    let spent = at_rest(&gateway, budget, id).await;
    let row = gateway.row(&reply).await;
    assert_eq!(spent, row.input_tokens + row.output_tokens);
    assert!(row.input_tokens > 0);
    gateway.finish().await;
}

#[tokio::test]
async fn a_model_without_a_price_is_refused_under_a_hard_budget_unless_it_says_otherwise() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .file(&format!(
            "[providers.alpha]\nbase_url = {:?}\n[[providers.alpha.deployments]]\nmodel = \"m\"\nname = \"mock-chat\"\n",
            provider.base_url()
        ))
        .start()
        .await;
    let (id, key, _) = key_with(&gateway, 100).await;
    let refused = call(&gateway, &key, 5, 5).await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "model_not_priced"));
    assert!(
        refused.text.contains("there is no price for \\\"m\\\" at alpha"),
        "{}",
        refused.text
    );
    let allowing = BudgetTerms {
        unpriced: Unpriced::Allow,
        ..terms(100)
    };
    set(&gateway, BudgetScope::Key(id), &allowing).await;
    becomes(&gateway, &key, 5, 200).await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_limit_on_the_answer_is_written_into_calls_that_have_none() {
    let provider = ScriptedProvider::start().await;
    let gateway = with(&[("alpha", &provider)]).start().await;
    let (id, key) = gateway.new_key(&[], &[], None).await;
    let limited = BudgetTerms {
        default_output_tokens: Some(40),
        ..terms(100)
    };
    set(&gateway, BudgetScope::Key(id), &limited).await;
    let asked = async |key: &str, more: Value| {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "words:5"}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        gateway.send("/v1/chat/completions", key, body.to_string()).await
    };
    let key = key.as_str();
    assert_eq!(asked(key, json!({})).await.status, 200);
    assert_eq!(asked(key, json!({"stream": true})).await.status, 200);
    assert_eq!(asked(key, json!({"max_completion_tokens": 7})).await.status, 200);
    // Null is no limit either.
    assert_eq!(asked(key, json!({"max_tokens": null})).await.status, 200);
    assert_eq!(asked(&gateway.key, json!({})).await.status, 200);
    let sent: Vec<Value> = provider.requests().iter().map(|received| received.json()).collect();
    assert_eq!(
        (&sent[0]["max_tokens"], &sent[1]["max_tokens"]),
        (&json!(40), &json!(40))
    );
    assert_eq!(
        (&sent[2]["max_tokens"], &sent[2]["max_completion_tokens"]),
        (&Value::Null, &json!(7))
    );
    assert_eq!(sent[3]["max_tokens"], json!(40));
    assert_eq!(sent[4]["max_tokens"], Value::Null, "no budget, no limit");
    assert!(sent.iter().all(|body| body["model"] == "mock-chat"));
    gateway.finish().await;
}

#[tokio::test]
async fn while_the_database_is_away_calls_go_on_within_their_part_and_are_then_refused() {
    let provider = ScriptedProvider::start().await;
    let gateway = with(&[("alpha", &provider)]).set("budgets.wait_ms", 300).start().await;
    let (id, key, budget) = key_with(&gateway, 400).await;
    assert_eq!(call(&gateway, &key, 10, 10).await.status, 200);
    gateway.sql("ALTER TABLE gateway_budget_slices RENAME TO hidden").await;
    // A quarter was set aside.
    let mut served = 0;
    let refused = loop {
        let reply = call(&gateway, &key, 10, 10).await;
        match reply.status {
            200 => served += 1,
            _ => break reply,
        }
        assert!(served < 40);
    };
    assert!((5..=9).contains(&served), "{served}");
    assert_eq!((refused.status, refused.code().as_str()), (503, "overloaded"));
    assert_eq!(
        (refused.header("x-should-retry"), refused.header("retry-after")),
        ("true", "1")
    );
    assert!(
        refused.text.contains("cannot be found out right now"),
        "{}",
        refused.text
    );
    gateway.sql("ALTER TABLE hidden RENAME TO gateway_budget_slices").await;
    becomes(&gateway, &key, 10, 200).await;
    at_rest(&gateway, budget, id).await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_ledger_that_was_killed_and_started_again_forgets_nothing_of_what_is_set_aside() {
    let provider = ScriptedProvider::start().await;
    let gateway = with(&[("alpha", &provider)]).start().await;
    let (id, key, budget) = key_with(&gateway, 1_000).await;
    for _ in 0..5 {
        assert_eq!(call(&gateway, &key, 10, 20).await.status, 200);
        gateway.kill::<LedgerMsg>(1).await;
    }
    assert_eq!(at_rest(&gateway, budget, id).await, 50);
    gateway.finish().await;
}

#[tokio::test]
async fn a_budget_of_another_organization_is_nobodys_business() {
    let gateway = TestGateway::builder().start().await;
    let other = gateway.store.create_organization("other", "Other").await.unwrap();
    let (id, _) = gateway.new_key(&[], &[], None).await;
    let (reach, by) = (KeyReach::Organization, Author::system(TEST_HAND));
    let set = gateway
        .store
        .set_budget(other, &BudgetScope::Key(id), &terms(1), &by)
        .await
        .unwrap();
    assert_eq!(set, None, "the key is not theirs");
    let theirs = gateway
        .store
        .set_budget(other, &BudgetScope::Organization, &terms(1), &by)
        .await
        .unwrap()
        .unwrap();
    let removed = gateway
        .store
        .remove_budget(gateway.organization, reach, theirs, &by)
        .await;
    assert_eq!(removed.unwrap(), Outcome::NoSuch);
    assert!(gateway.store.budgets_of(gateway.organization).await.unwrap().is_empty());
    assert_eq!(gateway.get("/v1/key", &gateway.key).await.json()["budgets"], json!([]));
    gateway.finish().await;
}

#[tokio::test]
async fn where_a_budget_does_not_have_enough_a_cheaper_model_serves_if_one_is_named_for_that() {
    let provider = ScriptedProvider::start().await;
    let gateway = with(&[("alpha", &provider)])
        .file(
            "[[providers.alpha.deployments]]\nmodel = \"cheap\"\nname = \"mock-chat\"\ninput_usd = \"0\"\n\
             output_usd = \"100\"\n",
        )
        .start()
        .await;
    let (_, key, _) = key_with(&gateway, 10).await;
    let streamed = || {
        let mut body = body(5, 50, "streamed");
        body["stream"] = true.into();
        gateway.send("/v1/chat/completions", &key, body.to_string())
    };
    assert_eq!(call(&gateway, &key, 5, 50).await.code(), "insufficient_quota");

    let config = json!({"fallback_models": {"budget_exhausted": {"m": ["cheap"]}}});
    assert_eq!(gateway.configure(&config).await.status, 200);
    let reply = call(&gateway, &key, 5, 50).await;
    assert_eq!(
        (reply.status, reply.header("x-bonito-model")),
        (200, "cheap"),
        "{}",
        reply.text
    );
    let row = gateway.row(&reply).await;
    assert_eq!(row.cost_nanousd, Some(5 * TOKEN / 10));
    assert!(row.routing.unwrap().contains("budget_exhausted"));
    let reply = streamed().await;
    assert_eq!(
        (reply.status, reply.header("x-bonito-model")),
        (200, "cheap"),
        "{}",
        reply.text
    );
    // What fits is served by the model that was asked for, and what the cheaper one does not cover either is refused.
    let reply = call(&gateway, &key, 5, 5).await;
    assert_eq!(
        (reply.status, reply.header("x-bonito-model")),
        (200, "m"),
        "{}",
        reply.text
    );
    assert_eq!(call(&gateway, &key, 5, 5_000).await.code(), "insufficient_quota");
    gateway.finish().await;
}

/// What somebody has changed by hand is set right once, says so, and counts from then on. What is as it should be is left alone.
#[tokio::test]
async fn a_budget_whose_spend_is_not_the_ledgers_is_set_right_by_a_job() {
    let provider = ScriptedProvider::start().await;
    let gateway = with(&[("alpha", &provider)]).start().await;
    let (id, key, budget) = key_with(&gateway, 100).await;
    let whole = set(&gateway, BudgetScope::Organization, &terms(1_000)).await;
    assert_eq!(call(&gateway, &key, 20, 20).await.status, 200);
    for budget in [budget, whole] {
        assert_eq!(at_rest(&gateway, budget, id).await, 20);
    }
    let now = chrono::Utc::now();
    let nothing = gateway.store.reconcile_budgets(None, 100, now).await.unwrap();
    assert_eq!(nothing.corrections, []);
    // A backup of one table was restored: the key's budget seems to be used up.
    gateway.sql("UPDATE gateway_budget_spend SET spent_nanousd = 100000 * spent_nanousd WHERE budget_id IN (SELECT id FROM gateway_budgets WHERE scope_kind = 'key')").await;
    let start = Period::Monthly.span(Tz::UTC, now).start;
    let spent = async || gateway.store.spent_of(budget, start).await.unwrap().spent.0 / TOKEN;
    assert_eq!(spent().await, 2_000_000);
    let job = NewJob::new(JobKind::BudgetReconciliation, json!({}));
    let job = gateway.store.enqueue(&job).await.unwrap();
    let begun = Instant::now();
    while gateway.store.job(None, job).await.unwrap().unwrap().state != JobState::Done {
        assert!(begun.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(spent().await, 20);
    assert_eq!(gateway.metric("bonito_budget_corrections_total").await, 1.0);
    let mut deeds = rows(&gateway, gateway.organization).await;
    deeds.retain(|row| row.action == "budget.reconcile");
    let after: Vec<&Value> = deeds.iter().filter_map(|row| row.after.as_ref()).collect();
    assert_eq!(after.len(), 1);
    assert_eq!(after[0]["difference_nanousd"], 20 * TOKEN - 20 * TOKEN * 100_000);
    gateway.finish().await;
}
