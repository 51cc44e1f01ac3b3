//! Usage, insights and the log over the management API: the figures are those of what was asked, and of what the caller may see.

use bonito::analytics::rollup::tend;
use bonito::domain::call::ErrorClass;
use bonito::domain::ids::{KeyId, RequestId, UserId};
use bonito::domain::role::Role;
use bonito::domain::scope::Scope;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::database::on_postgres;
use crate::support::gateway::{Reply, chat};
use crate::support::{Script, ScriptedProvider, TestGateway};
use crate::usage_sums::{Like, record};

async fn ask(gateway: &TestGateway, path: &str, token: &str) -> Value {
    let reply = gateway
        .manage("GET", &format!("/api/gateway/{path}"), token, None)
        .await;
    assert_eq!(reply.status, 200, "{path}: {}", reply.text);
    reply.json()
}

fn text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[tokio::test]
async fn usage_is_what_was_asked_summed_up_or_not() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder().openai(&provider, &["mock-chat"]).start().await;
    let token = gateway.token(Role::Viewer);
    let mut cost = 0;
    let mut last: Option<Reply> = None;
    for n in 0..6 {
        if n == 5 {
            provider.script(Script::server_error());
        }
        let body = chat("mock-chat", "hello words:12", n % 2 == 0);
        let reply = gateway.post("/v1/chat/completions", &body).await;
        cost += gateway.row(&reply).await.cost_nanousd.unwrap();
        last = Some(reply);
    }
    let failure = gateway.row(&last.unwrap()).await.error_class.unwrap();
    let figures = ask(&gateway, "usage?group_by=model", &token).await;
    let totals = &figures["totals"];
    assert_eq!(
        (
            &totals["requests"],
            &totals["failed"],
            &totals["cost_nanousd"],
            &totals["errors"]
        ),
        (&json!(6), &json!(1), &json!(cost), &json!({failure: 1})),
        "{figures}"
    );
    assert_eq!(totals["success_rate"], json!(0.833_333));
    assert!(totals["latency_ms"]["p50"].as_f64().unwrap() > 0.0, "{totals}");
    assert_eq!(figures["series"].as_array().unwrap().len(), 1);
    assert_eq!(figures["granularity"], "day");
    let group = &figures["groups"][0];
    assert_eq!(
        (&group["name"], &group["figures"]["requests"]),
        (&json!("mock-chat"), &json!(6))
    );
    assert_eq!(group["series"][0]["cost_nanousd"], json!(cost));
    assert!(
        figures["trend"].get("requests").is_none(),
        "there was nothing before: {}",
        figures["trend"]
    );

    // A day later everything is in the sums; the answer is the same.
    tend(&gateway.store, Utc::now() + TimeDelta::days(2)).await.unwrap();
    assert!(gateway.number("SELECT count(*) AS n FROM usage_daily").await > 0);
    assert_eq!(gateway.number("SELECT count(*) AS n FROM usage_pending").await, 0);
    let rolled = ask(&gateway, "usage?group_by=model", &token).await;
    assert_eq!(rolled["totals"], figures["totals"]);
    assert_eq!(rolled["groups"], figures["groups"]);
    assert_eq!(rolled["series"], figures["series"]);

    let table = gateway
        .manage("GET", "/api/gateway/usage/export.csv?group_by=model", &token, None)
        .await;
    assert_eq!(
        (
            table.status,
            table.header("content-type"),
            table.header("content-disposition")
        ),
        (
            200,
            "text/csv; charset=utf-8",
            "attachment; filename=\"bonito-usage.csv\""
        )
    );
    let lines: Vec<&str> = table.text.lines().collect();
    assert!(
        lines.len() == 2 && lines[1].contains(",mock-chat,6,1,0.833333,"),
        "{}",
        table.text
    );
    // The groups over the whole time, and the one that failed by its class.
    let export = async |query: &str| {
        let path = format!("/api/gateway/usage/export.csv?{query}");
        let table = gateway.manage("GET", &path, &token, None).await;
        assert_eq!(table.status, 200, "{}", table.text);
        table.text
    };
    let groups = export("group_by=model&lines=groups").await;
    let figures_of = |line: &str| line.split_once(',').map(|(_, figures)| figures.to_owned());
    let in_all: Vec<_> = groups.lines().map(figures_of).collect();
    assert_eq!(in_all, lines.iter().map(|line| figures_of(line)).collect::<Vec<_>>());
    let classes = figures["totals"]["errors"].as_object().unwrap();
    let failed = export("lines=errors").await;
    let failed: Vec<&str> = failed.lines().collect();
    assert_eq!(
        (failed.len(), failed[0]),
        (1 + classes.len(), "starts_at,error_class,requests")
    );
    for (line, (class, count)) in failed[1..].iter().zip(classes) {
        assert!(line.ends_with(&format!(",{class},{count}")), "{line}");
    }
    assert_eq!(
        gateway
            .manage("GET", "/api/gateway/usage/export.csv?lines=none", &token, None)
            .await
            .status,
        400
    );
    gateway.finish().await;
}

/// Writes requests past the gateway, as if it had served them.
async fn serve(gateway: &TestGateway, requests: &[(DateTime<Utc>, Like)]) -> Vec<RequestId> {
    let records: Vec<_> = requests.iter().map(|(at, like)| record(*at, like)).collect();
    assert!(gateway.store.write_records(&records).await.unwrap().is_empty());
    records.iter().map(|record| record.id).collect()
}

fn like(gateway: &TestGateway, key: KeyId) -> Like {
    Like {
        organization: gateway.organization,
        team: None,
        key,
        provider: "alpha",
        model: "m",
        error: None,
        cost: 1_000,
        latency_us: 20_000,
    }
}

#[tokio::test]
async fn usage_is_grouped_filtered_and_compared_with_the_time_before() {
    let gateway = TestGateway::builder().start().await;
    let token = gateway.token(Role::Admin);
    let (key, _) = gateway.new_key(&[], &[], None).await;
    let (other, _) = gateway.new_key(&[], &[], None).await;
    gateway
        .sql("UPDATE gateway_keys SET metadata = '{\"app\":\"search\",\"tier\":2}' WHERE name = 'test key'")
        .await;
    let now = Utc::now();
    let (before, then) = (now - TimeDelta::hours(30), now - TimeDelta::hours(3));
    let base = like(&gateway, key);
    let foreign = Like {
        organization: gateway.store.create_organization("other", "Other").await.unwrap(),
        ..base.clone()
    };
    serve(
        &gateway,
        &[
            (before, base.clone()),
            (then, base.clone()),
            (
                then,
                Like {
                    provider: "beta",
                    cost: 5_000,
                    ..base.clone()
                },
            ),
            (
                then,
                Like {
                    model: "n",
                    key: other,
                    error: Some(ErrorClass::Timeout),
                    cost: 0,
                    ..base.clone()
                },
            ),
            (then, foreign),
        ],
    )
    .await;
    for rolled in [false, true] {
        if rolled {
            tend(&gateway.store, now + TimeDelta::days(2)).await.unwrap();
        }
        let range = format!("from={}&to={}", text(now - TimeDelta::hours(23)), text(now));
        let of = async |query: &str| ask(&gateway, &format!("usage?{range}&{query}"), &token).await;
        let names = |answer: &Value| -> Vec<(Value, Value)> {
            let groups = answer["groups"].as_array().unwrap().iter();
            groups
                .map(|group| {
                    (
                        group.get("name").cloned().unwrap_or_default(),
                        group["figures"]["requests"].clone(),
                    )
                })
                .collect()
        };
        let by_provider = of("group_by=provider").await;
        assert_eq!(
            names(&by_provider),
            [(json!("beta"), json!(1)), (json!("alpha"), json!(2))]
        );
        assert_eq!(by_provider["trend"]["requests"], json!(2.0), "three after one");
        assert_eq!(by_provider["trend"]["cost"], json!(5.0));
        assert_eq!(by_provider["trend"]["previous"]["requests"], json!(1));
        let by_tag = of("group_by=tag").await;
        assert_eq!(
            names(&by_tag),
            [(json!("app=search"), json!(3)), (json!("tier=2"), json!(3))]
        );
        let by_key = of("group_by=key&groups_limit=1").await;
        assert_eq!(by_key["groups"][0]["id"], json!(key.0));
        assert_eq!(by_key["others"]["requests"], json!(1));
        assert_eq!(
            names(&of("group_by=organization").await),
            [(json!("default"), json!(3))]
        );
        let everybody = gateway.token(Role::PlatformAdmin);
        let all = ask(&gateway, &format!("usage?{range}&group_by=organization"), &everybody).await;
        assert_eq!(names(&all), [(json!("default"), json!(3)), (json!("other"), json!(1))]);
        for (query, requests) in [
            ("model=n".to_owned(), 1),
            ("model=m&provider=alpha".to_owned(), 1),
            (format!("key_id={}", other.0), 1),
            ("tag=app%3Dsearch".to_owned(), 3),
            ("tag=app&model=m".to_owned(), 2),
            ("tag=nothing".to_owned(), 0),
            ("granularity=hour&group_by=model".to_owned(), 3),
        ] {
            assert_eq!(
                of(&query).await["totals"]["requests"],
                json!(requests),
                "{query}, {rolled}"
            );
        }
    }
    for wrong in [
        "granularity=hour",
        "granularity=week",
        "group_by=nothing",
        "groups_limit=0",
        "from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z",
        "from=yesterday",
        "key_id=1",
    ] {
        let query = if wrong == "granularity=hour" {
            "granularity=hour&from=2026-01-01T00:00:00Z"
        } else {
            wrong
        };
        let reply = gateway
            .manage("GET", &format!("/api/gateway/usage?{query}"), &token, None)
            .await;
        let name = wrong.split('=').next().unwrap();
        assert!(
            reply.status == 400 && reply.json()["detail"].as_str().unwrap().contains(name),
            "{wrong}: {}",
            reply.text
        );
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_teams_admin_sees_the_teams_requests_and_a_member_only_their_own() {
    let gateway = TestGateway::builder().start().await;
    let (team, key) = gateway.new_team("search", Scope::default(), Scope::default()).await;
    let (elsewhere, _) = gateway.new_team("ads", Scope::default(), Scope::default()).await;
    let theirs = gateway
        .send("/v1/chat/completions", &key, chat("echo", "hello", false).to_string())
        .await;
    let others = gateway.chat("echo", "hello").await;
    gateway.row(&theirs).await;
    gateway.row(&others).await;
    let user = UserId(Uuid::now_v7());
    gateway.new_user(user).await;
    let (_, own) = gateway.new_key_in(Some(team), Some(user)).await;
    let mine = gateway
        .send("/v1/chat/completions", &own, chat("echo", "hello", false).to_string())
        .await;
    gateway.row(&mine).await;
    let token = |role, team, user| gateway.token_of(role, gateway.organization, team, user);
    let admin = token(Role::TeamAdmin, Some(team), None);
    let seen = async |token: &str, query: &str| {
        let usage = ask(&gateway, &format!("usage?{query}"), token).await["totals"]["requests"].clone();
        let logs = ask(&gateway, &format!("logs?{query}"), token).await["data"]
            .as_array()
            .unwrap()
            .len();
        let table = gateway
            .manage("GET", &format!("/api/gateway/logs/export.csv?{query}"), token, None)
            .await;
        assert_eq!((json!(logs), table.text.lines().count() - 1), (usage, logs), "{query}");
        logs
    };
    assert_eq!(seen(&gateway.token(Role::Viewer), "").await, 3);
    assert_eq!(seen(&admin, "").await, 2);
    assert_eq!(seen(&token(Role::Member, Some(team), Some(user)), "").await, 1);
    let somebody = Some(UserId(Uuid::now_v7()));
    assert_eq!(seen(&token(Role::Member, Some(team), somebody), "").await, 0);
    assert_eq!(seen(&admin, &format!("team_id={}", elsewhere.0)).await, 0);
    let (first, of_first) = (
        gateway.row(&others).await.key_id,
        format!("logs/{}", others.header("x-request-id")),
    );
    assert_eq!(seen(&admin, &format!("key_id={first}")).await, 0);
    let reply = gateway
        .manage("GET", &format!("/api/gateway/{of_first}"), &admin, None)
        .await;
    let missing = format!("/api/gateway/logs/{}", RequestId(Uuid::now_v7()).header());
    let missing = gateway.manage("GET", &missing, &admin, None).await;
    assert_eq!(
        (reply.status, reply.text),
        (404, missing.text),
        "another team's is like a missing one"
    );
    ask(&gateway, &format!("logs/{}", theirs.header("x-request-id")), &admin).await;
    // Without a team, or without a key of their own, there is nothing to see.
    assert_eq!(seen(&gateway.token(Role::TeamAdmin), "").await, 0);
    assert_eq!(seen(&gateway.token(Role::Member), "").await, 0);
    gateway.finish().await;
}

#[tokio::test]
async fn the_log_is_read_page_by_page_and_by_what_matters() {
    let gateway = TestGateway::builder().start().await;
    let token = gateway.token(Role::Viewer);
    let (key, _) = gateway.new_key(&[], &[], None).await;
    let (other, _) = gateway.new_key(&[], &[], None).await;
    let now = Utc::now();
    let base = like(&gateway, key);
    let mut requests: Vec<(DateTime<Utc>, Like)> =
        (0..7).map(|n| (now - TimeDelta::minutes(n), base.clone())).collect();
    requests[1].1.error = Some(ErrorClass::Timeout);
    requests[2].1.key = other;
    requests[3].1 = Like {
        provider: "beta",
        model: "n",
        cost: 9_000,
        ..base.clone()
    };
    requests[4].1.latency_us = 3_000_000;
    let ids = serve(&gateway, &requests).await;
    let shown =
        |ids: &[usize], of: &[RequestId]| -> Vec<Value> { ids.iter().map(|n| json!(of[*n].header())).collect() };
    let page = async |query: &str| -> (Vec<Value>, Option<String>) {
        let page = ask(&gateway, &format!("logs?{query}"), &token).await;
        let data = page["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["id"].clone())
            .collect();
        (
            data,
            page.get("next_cursor")
                .map(|cursor| cursor.as_str().unwrap().to_owned()),
        )
    };
    // Newest first, each once, whatever comes in between.
    let (mut all, mut next) = page("limit=3").await;
    serve(&gateway, &[(now + TimeDelta::seconds(1), base.clone())]).await;
    while let Some(cursor) = next {
        let (data, further) = page(&format!("limit=3&cursor={cursor}")).await;
        all.extend(data);
        next = further;
    }
    assert_eq!(all, shown(&[0, 1, 2, 3, 4, 5, 6], &ids));
    for (query, expected) in [
        ("error_class=timeout".to_owned(), vec![1]),
        ("outcome=error".to_owned(), vec![1]),
        ("status=502".to_owned(), vec![1]),
        (format!("key_id={}", other.0), vec![2]),
        ("provider=beta".to_owned(), vec![3]),
        ("model=n&outcome=success".to_owned(), vec![3]),
        ("min_cost_nanousd=2000".to_owned(), vec![3]),
        ("min_latency_ms=3000".to_owned(), vec![4]),
        (format!("to={}", text(now - TimeDelta::minutes(5))), vec![6]),
        (
            format!(
                "from={}&to={}",
                text(now - TimeDelta::minutes(3)),
                text(now - TimeDelta::minutes(1))
            ),
            vec![2, 3],
        ),
        (format!("request_id={}", ids[5].header()), vec![5]),
        (format!("request_id={}", ids[5].0), vec![5]),
        ("requested_model=n".to_owned(), vec![3]),
        ("attempted_provider=beta".to_owned(), vec![3]),
        ("attempted_provider=beta&model=m".to_owned(), vec![]),
        ("stream=true".to_owned(), vec![]),
        ("tag=nothing=at-all".to_owned(), vec![]),
    ] {
        assert_eq!(page(&query).await.0, shown(&expected, &ids), "{query}");
    }
    for wrong in [
        "limit=0",
        "limit=201",
        "cursor=x",
        "request_id=x",
        "error_class=bad",
        "status=9",
        "outcome=maybe",
    ] {
        let reply = gateway
            .manage("GET", &format!("/api/gateway/logs?{wrong}"), &token, None)
            .await;
        let name = wrong.split('=').next().unwrap();
        assert!(
            reply.status == 400 && reply.json()["detail"].as_str().unwrap().contains(name),
            "{wrong}: {}",
            reply.text
        );
    }
    gateway.finish().await;
}

#[tokio::test]
async fn requests_are_found_by_what_they_asked_for_and_whom_they_tried() {
    let (first, second) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    first.always(Script::server_error());
    let gateway = TestGateway::builder()
        .provider("alpha", &first.base_url(), &["mock-chat"])
        .provider("beta", &second.base_url(), &["mock-chat"])
        .start()
        .await;
    gateway
        .configure(&json!({"strategy": "failover", "order": ["alpha", "beta"]}))
        .await;
    // One that was tried twice, and one that nobody was ever asked for.
    let served = gateway.chat("mock-chat", "hi").await;
    assert_eq!((served.status, served.header("x-bonito-provider")), (200, "beta"));
    let unknown = gateway.chat("nobody-has-this", "hi").await;
    assert_eq!(unknown.status, 404);
    for reply in [&served, &unknown] {
        gateway.row(reply).await;
    }
    let token = gateway.token(Role::Viewer);
    let found = async |query: &str| -> Vec<String> {
        let page = ask(&gateway, &format!("logs?{query}"), &token).await;
        let rows = page["data"].as_array().unwrap().iter();
        rows.map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    let (served, unknown) = (served.request_id().header(), unknown.request_id().header());
    for (query, expected) in [
        ("attempted_provider=alpha", vec![&served]),
        ("attempted_provider=beta", vec![&served]),
        ("provider=alpha", vec![]),
        ("requested_model=nobody-has-this", vec![&unknown]),
        ("model=nobody-has-this", vec![]),
        ("attempted_provider=alpha&outcome=error", vec![]),
    ] {
        let found = found(query).await;
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{query}");
        let table = gateway
            .manage("GET", &format!("/api/gateway/logs/export.csv?{query}"), &token, None)
            .await;
        assert_eq!(
            table.text.lines().count(),
            1 + expected.len(),
            "{query}: {}",
            table.text
        );
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_request_is_shown_with_its_attempts_and_why_it_went_there() {
    let at = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .provider("alpha", &at.base_url(), &["m"])
        .provider("beta", &at.base_url(), &["m"])
        .start()
        .await;
    at.script(Script::server_error());
    let reply = gateway.chat("m", "hello").await;
    assert_eq!((reply.status, reply.header("x-bonito-provider")), (200, "beta"));
    gateway.row(&reply).await;
    let token = gateway.token(Role::Viewer);
    let shown = ask(&gateway, &format!("logs/{}", reply.header("x-request-id")), &token).await;
    assert_eq!(
        (&shown["request"]["provider"], &shown["request"]["attempts"]),
        (&json!("beta"), &json!(2))
    );
    let attempts = shown["attempts"].as_array().unwrap();
    assert_eq!(
        (&attempts[0]["provider"], &attempts[0]["error_class"]),
        (&json!("alpha"), &json!("server_error"))
    );
    assert_eq!(
        (&attempts[1]["provider"], attempts[1].get("error_class")),
        (&json!("beta"), None)
    );
    assert_eq!(shown["routing"]["strategy"], "failover", "{}", shown["routing"]);
    // Another organization's is like a missing one.
    let foreign = gateway.token_for(
        Role::Owner,
        gateway.store.create_organization("other", "Other").await.unwrap(),
    );
    for path in [format!("logs/{}", reply.header("x-request-id")), "logs/x".to_owned()] {
        let reply = gateway
            .manage("GET", &format!("/api/gateway/{path}"), &foreign, None)
            .await;
        assert_eq!(reply.status, 404);
    }
    gateway.finish().await;
}

#[tokio::test]
async fn no_cell_of_an_export_is_a_formula() {
    let gateway = TestGateway::builder().start().await;
    let refused = gateway.chat("=HYPERLINK(\"http://evil\",\"x\")", "hello").await;
    assert_eq!(refused.status, 404);
    gateway.row(&refused).await;
    let token = gateway.token(Role::Viewer);
    let table = gateway
        .manage("GET", "/api/gateway/logs/export.csv", &token, None)
        .await;
    assert_eq!(
        (table.status, table.header("content-type")),
        (200, "text/csv; charset=utf-8")
    );
    let mut lines = table.text.split("\r\n");
    let (names, line) = (lines.next().unwrap(), lines.next().unwrap());
    assert!(names.starts_with("id,created_at,key_id,"), "{names}");
    assert!(
        line.contains(",\"'=HYPERLINK(\"\"http://evil\"\",\"\"x\"\")\","),
        "{line}"
    );
    assert!(line.starts_with(refused.header("x-request-id")), "{line}");
    gateway.finish().await;
}

#[tokio::test]
async fn an_export_has_every_request_however_many_there_are() {
    let gateway = TestGateway::builder().start().await;
    let (key, _) = gateway.new_key(&[], &[], None).await;
    let now = Utc::now();
    let requests: Vec<(DateTime<Utc>, Like)> = (0..2_500)
        .map(|n| (now - TimeDelta::milliseconds(n), like(&gateway, key)))
        .collect();
    serve(&gateway, &requests).await;
    let token = gateway.token(Role::Viewer);
    let table = gateway
        .manage("GET", "/api/gateway/logs/export.csv", &token, None)
        .await;
    assert!(table.complete);
    let mut ids: Vec<&str> = table
        .text
        .lines()
        .skip(1)
        .filter_map(|line| line.split(',').next())
        .collect();
    assert_eq!(ids.len(), 2_500);
    assert!(ids.is_sorted_by(|one, next| one > next));
    ids.dedup();
    assert_eq!(ids.len(), 2_500);
    gateway.finish().await;
}

#[tokio::test]
async fn insights_name_what_could_cost_less() {
    let at = ScriptedProvider::start().await;
    let lines = [("alpha", "10"), ("beta", "1")].map(|(id, usd)| {
        format!(
            "[providers.{id}]\nbase_url = {:?}\napi_key_env = \"TEST_KEY\"\n[[providers.{id}.deployments]]\n\
             model = \"m\"\nname = \"m\"\ninput_usd = {usd:?}\noutput_usd = {usd:?}\ncache_read_usd = \"0.5\"\n",
            at.base_url()
        )
    });
    let gateway = TestGateway::builder()
        .env("TEST_KEY", "sk")
        .file(&lines[0])
        .file(&lines[1])
        .start()
        .await;
    let (key, _) = gateway.new_key(&[], &[], None).await;
    let month_ago = text(Utc::now() - TimeDelta::days(40));
    gateway
        .sql(&format!("UPDATE gateway_keys SET created_at = '{month_ago}'"))
        .await;
    // 10 tokens read, 4 of them cached, and 5 written: 6 × 10,000 + 4 × 500 + 5 × 10,000 nano-dollars.
    let one = Like {
        cost: 112_000,
        ..like(&gateway, key)
    };
    serve(
        &gateway,
        &[(Utc::now() - TimeDelta::days(2), one.clone()), (Utc::now(), one)],
    )
    .await;
    let token = gateway.token(Role::Viewer);
    let found = ask(&gateway, "insights", &token).await;
    assert_eq!(
        found["cheaper_deployments"],
        json!([{
            "deployment": "alpha/m", "requests": 2, "cost_nanousd": 224_000,
            "alternative": "beta/m", "alternative_cost_nanousd": 26_000, "saving_nanousd": 198_000
        }])
    );
    let caching = &found["caching"];
    assert_eq!(
        (&caching["prompt_tokens"], &caching["prompt_cached_tokens"]),
        (&json!(20), &json!(8))
    );
    assert_eq!(
        (&caching["prompt_saved_nanousd"], &caching["prompt_possible_nanousd"]),
        (&json!(76_000), &json!(114_000))
    );
    let idle: Vec<&Value> = found["idle_keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| &key["name"])
        .collect();
    assert_eq!(idle, ["first key", "test key"]);
    assert_eq!(found["budgets_at_risk"], json!([]));
    // Of two budgets that both count it, the one that is used up is named.
    let admin = gateway.token(Role::Admin);
    for (scope, amount) in [("organization", "0.0001"), ("provider", "5")] {
        let mut budget = json!({"scope": scope, "amount_usd": amount, "period": "monthly", "enforcement": "soft"});
        if scope == "provider" {
            budget["reference"] = json!("alpha");
        }
        let made = gateway
            .manage("POST", "/api/gateway/budgets", &admin, Some(&budget))
            .await;
        assert_eq!(made.status, 201, "{}", made.text);
    }
    let at_risk = ask(&gateway, "insights", &token).await["budgets_at_risk"].clone();
    assert_eq!(at_risk.as_array().unwrap().len(), 1, "{at_risk}");
    assert_eq!(
        (&at_risk[0]["scope"], &at_risk[0]["amount_nanousd"]),
        (&json!("organization"), &json!(100_000))
    );
    assert!(at_risk[0]["spent_nanousd"].as_i64().unwrap() >= 112_000, "{at_risk}");
    gateway.finish().await;
}

#[tokio::test]
async fn insights_name_nothing_that_requests_may_not_go_to() {
    let at = ScriptedProvider::start().await;
    let lines = [("alpha", "10"), ("beta", "1"), ("gamma", "2")].map(|(id, usd)| {
        format!(
            "[providers.{id}]\nbase_url = {:?}\napi_key_env = \"TEST_KEY\"\n[[providers.{id}.deployments]]\n\
             model = \"m\"\nname = \"m\"\ninput_usd = {usd:?}\noutput_usd = {usd:?}\n",
            at.base_url()
        )
    });
    let mut builder = TestGateway::builder().env("TEST_KEY", "sk");
    for line in &lines {
        builder = builder.file(line);
    }
    let gateway = builder.start().await;
    let (key, _) = gateway.new_key(&[], &[], None).await;
    let one = Like {
        cost: 150_000,
        ..like(&gateway, key)
    };
    serve(&gateway, &[(Utc::now(), one)]).await;
    let token = gateway.token(Role::Viewer);
    let named = async || {
        let found = ask(&gateway, "insights", &token).await;
        let named = found["cheaper_deployments"].as_array().unwrap().first().cloned();
        named.map(|cheaper| {
            (
                cheaper["alternative"].clone(),
                cheaper["alternative_cost_nanousd"].clone(),
            )
        })
    };
    assert_eq!(named().await, Some((json!("beta/m"), json!(15_000))));
    gateway
        .configure(&json!({"providers": {"beta": {"enabled": false}}}))
        .await;
    assert_eq!(named().await, Some((json!("gamma/m"), json!(30_000))));
    let price = json!([{"deployment": "gamma/m", "input_usd": "3", "output_usd": "3"}]);
    gateway
        .configure(&json!({"providers": {"beta": {"enabled": false}}, "prices": price}))
        .await;
    assert_eq!(named().await, Some((json!("gamma/m"), json!(45_000))));
    let eu = json!({"allowed": ["eu"], "places": {"alpha": "eu", "beta": "eu", "gamma": "us"}, "unknown": "refuse"});
    gateway.configure(&json!({"residency": eu})).await;
    assert_eq!(named().await, Some((json!("beta/m"), json!(15_000))));
    gateway
        .configure(&json!({"residency": {"allowed": ["us"], "places": {"gamma": "us"}, "unknown": "refuse"}}))
        .await;
    assert_eq!(named().await, Some((json!("gamma/m"), json!(30_000))));
    gateway.configure(&json!({})).await;
    let owner = gateway.token(Role::PlatformAdmin);
    let path = format!("/api/organizations/{}", gateway.organization);
    for (change, left) in [
        (
            json!({"allowed_models": {"models": [], "providers": ["alpha", "gamma"]}}),
            Some((json!("gamma/m"), json!(30_000))),
        ),
        (json!({"shared_credentials": false}), None),
    ] {
        let changed = gateway.manage("PATCH", &path, &owner, Some(&change)).await;
        assert_eq!(changed.status, 200, "{}", changed.text);
        assert_eq!(named().await, left, "{change}");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_table_of_groups_adds_up_however_few_are_told_apart() {
    let gateway = TestGateway::builder().start().await;
    let (key, _) = gateway.new_key(&[], &[], None).await;
    let now = Utc::now();
    let mut requests = Vec::new();
    for (model, cost) in [("a", 4_000), ("b", 300), ("c", 20), ("d", 1)] {
        for days in [0, 3] {
            let one = Like {
                model,
                cost,
                ..like(&gateway, key)
            };
            requests.push((now - TimeDelta::days(days), one));
        }
    }
    serve(&gateway, &requests).await;
    let token = gateway.token(Role::Viewer);
    for (limit, names) in [
        (1, vec!["a", "(others)"]),
        (3, vec!["a", "b", "c", "(others)"]),
        (4, vec!["a", "b", "c", "d"]),
    ] {
        let path = format!("/api/gateway/usage/export.csv?group_by=model&groups_limit={limit}&granularity=day");
        let table = gateway.manage("GET", &path, &token, None).await;
        assert_eq!(table.status, 200, "{}", table.text);
        let mut lines = table.text.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let head = lines.next().unwrap();
        let at = |name: &str| head.iter().position(|column| *column == name).unwrap();
        let (name, cost, count) = (at("group_name"), at("cost_nanousd"), at("requests"));
        let lines: Vec<_> = lines.collect();
        let mut told: Vec<&str> = lines.iter().map(|line| line[name]).collect();
        told.dedup();
        assert_eq!(told, names, "{}", table.text);
        let sum = |column: usize| {
            lines
                .iter()
                .map(|line| line[column].parse::<i64>().unwrap())
                .sum::<i64>()
        };
        assert_eq!(
            (sum(cost), sum(count), lines.len()),
            (8_642, 8, 2 * names.len()),
            "{}",
            table.text
        );
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_tag_may_have_more_keys_than_a_statement_has_values() {
    let gateway = TestGateway::builder().start().await;
    let tagged = json!({"name": "one of many", "metadata": {"env": "prod"}});
    let admin = gateway.token(Role::Admin);
    let made = gateway
        .manage("POST", "/api/gateway/keys", &admin, Some(&tagged))
        .await
        .json();
    let key = KeyId(made["id"].as_str().unwrap().parse().unwrap());
    let one = Like {
        cost: 1_234,
        ..like(&gateway, key)
    };
    let (now, key) = (Utc::now(), gateway.new_key(&[], &[], None).await.0);
    serve(&gateway, &[(now, one), (now, like(&gateway, key))]).await;
    let (many, id, hash) = match on_postgres() {
        true => (66_000, "gen_random_uuid()", "md5(n::text)"),
        false => (33_000, "randomblob(16)", "hex(randomblob(16))"),
    };
    gateway
        .sql(&format!(
            "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {many}) \
             INSERT INTO gateway_keys (id, organization_id, name, prefix, hash, rate_limit, metadata, disabled, \
             created_at, updated_at, revision) SELECT {id}, organization_id, name, prefix, {hash}, rate_limit, \
             metadata, disabled, created_at, updated_at, revision FROM gateway_keys, numbers \
             WHERE name = 'one of many'"
        ))
        .await;
    let token = gateway.token(Role::Viewer);
    for tag in ["env", "env%3Dprod"] {
        let figures = ask(&gateway, &format!("usage?tag={tag}"), &token).await;
        assert_eq!(
            (&figures["totals"]["requests"], &figures["totals"]["cost_nanousd"]),
            (&json!(1), &json!(1_234))
        );
        let log = ask(&gateway, &format!("logs?tag={tag}"), &token).await;
        assert_eq!(log["data"].as_array().map(Vec::len), Some(1), "{log}");
    }
    // Summed up, it is the same.
    tend(&gateway.store, Utc::now() + TimeDelta::hours(3)).await.unwrap();
    let figures = ask(&gateway, "usage?tag=env", &token).await;
    assert_eq!(figures["totals"]["cost_nanousd"], json!(1_234));
    let budget = json!({"scope": "tag", "reference": "env=prod", "amount_usd": "10", "period": "monthly"});
    let made = gateway
        .manage("POST", "/api/gateway/budgets", &admin, Some(&budget))
        .await;
    assert_eq!(
        (made.status, made.json()["spent_usd"].clone()),
        (201, json!("0.000001234")),
        "{}",
        made.text
    );
    gateway.finish().await;
}
