//! Files and batches: what is uploaded is sealed, what is asked is answered once, and a batch survives its workers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bonito::domain::limit::{LimitOwner, LimitValues};
use bonito::domain::role::Role;
use reqwest::multipart::{Form, Part};
use sea_orm::{ConnectionTrait as _, Database};
use serde_json::{Value, json};

use crate::support::gateway::{Builder, Reply, read};
use crate::support::process::Installation;
use crate::support::{Script, ScriptedProvider, TestGateway};

const PATIENCE: Duration = Duration::from_secs(30);
const CHAT: &str = "/v1/chat/completions";

/// One line of a batch.
fn line(id: &str, text: &str) -> String {
    let body = json!({"model": "mock-chat", "messages": [{"role": "user", "content": text}]});
    json!({"custom_id": id, "method": "POST", "url": CHAT, "body": body}).to_string()
}

fn lines(many: usize) -> String {
    (0..many)
        .map(|n| format!("{}\n", line(&format!("line-{n}"), &format!("hi {n}"))))
        .collect()
}

/// Whom requests go to, and with which key.
struct Caller<'c> {
    client: reqwest::Client,
    api: &'c str,
    key: &'c str,
}

impl<'c> Caller<'c> {
    fn of(gateway: &'c TestGateway, key: &'c str) -> Self {
        Self {
            client: gateway.client.clone(),
            api: &gateway.api,
            key,
        }
    }

    async fn upload(&self, content: impl Into<String>) -> Reply {
        let file = Part::text(content.into()).file_name("input.jsonl");
        self.form(Form::new().text("purpose", "batch").part("file", file)).await
    }

    async fn form(&self, form: Form) -> Reply {
        let request = self.client.post(format!("{}/v1/files", self.api)).bearer_auth(self.key);
        read(request.multipart(form).send().await.unwrap()).await
    }

    async fn get(&self, path: &str) -> Reply {
        let request = self.client.get(format!("{}{path}", self.api)).bearer_auth(self.key);
        read(request.send().await.unwrap()).await
    }

    async fn post(&self, path: &str, body: Value) -> Reply {
        let request = self.client.post(format!("{}{path}", self.api)).bearer_auth(self.key);
        let request = request
            .header("content-type", "application/json")
            .body(body.to_string());
        read(request.send().await.unwrap()).await
    }

    /// Uploads a file and makes a batch of it.
    async fn batch(&self, content: impl Into<String>) -> Value {
        let file = self.upload(content).await;
        assert_eq!(file.status, 200, "{}", file.text);
        let body = json!({
            "input_file_id": file.json()["id"], "endpoint": CHAT, "completion_window": "24h",
            "metadata": {"purpose": "test"},
        });
        let batch = self.post("/v1/batches", body).await;
        assert_eq!(batch.status, 200, "{}", batch.text);
        batch.json()
    }

    async fn until(&self, batch: &Value, holds: impl Fn(&Value) -> bool) -> Value {
        let (path, began) = (format!("/v1/batches/{}", batch["id"].as_str().unwrap()), Instant::now());
        loop {
            let now = self.get(&path).await;
            if now.status == 200 && holds(&now.json()) {
                return now.json();
            }
            assert!(began.elapsed() < PATIENCE, "{}", now.text);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The results in a file of a batch, by their names.
    async fn results(&self, file: &Value) -> BTreeMap<String, Value> {
        let content = self.get(&format!("/v1/files/{}/content", file.as_str().unwrap())).await;
        assert_eq!(content.status, 200, "{}", content.text);
        let lines: Vec<Value> = content
            .text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let many = lines.len();
        let by_name: BTreeMap<String, Value> = lines
            .into_iter()
            .map(|line| (line["custom_id"].as_str().unwrap().to_owned(), line))
            .collect();
        assert_eq!(by_name.len(), many, "no line is there twice");
        by_name
    }
}

fn with(provider: &ScriptedProvider) -> Builder {
    TestGateway::builder()
        .openai(provider, &["mock-chat"])
        .set("overload.lag_ms", 0)
}

fn is(status: &'static str) -> impl Fn(&Value) -> bool {
    move |batch| batch["status"] == status
}

#[tokio::test]
async fn a_batch_is_served_and_every_line_is_in_the_ledger() {
    let provider = ScriptedProvider::start().await;
    let gateway = with(&provider).start().await;
    let caller = Caller::of(&gateway, &gateway.key);
    let mut content = lines(30);
    content.push_str(&line("bad", "x").replace("mock-chat", "nobody-serves-this"));
    content.push_str("\n\n");
    let batch = caller.batch(content).await;
    assert_eq!(
        (&batch["object"], &batch["metadata"]),
        (&json!("batch"), &json!({"purpose": "test"}))
    );
    let done = caller.until(&batch, is("completed")).await;
    assert_eq!(
        done["request_counts"],
        json!({"total": 31, "completed": 30, "failed": 1})
    );
    assert!(done["completed_at"].is_i64() && done["errors"].is_null(), "{done}");
    let output = caller.results(&done["output_file_id"]).await;
    assert_eq!(output.len(), 30);
    let one = &output["line-7"];
    assert_eq!(
        (&one["response"]["status_code"], &one["error"]),
        (&json!(200), &Value::Null)
    );
    assert!(
        one["response"]["body"]["choices"][0]["message"]["content"].is_string(),
        "{one}"
    );
    let errors = caller.results(&done["error_file_id"]).await;
    assert_eq!(errors["bad"]["response"]["status_code"], 404, "{errors:?}");
    assert_eq!(errors["bad"]["response"]["body"]["error"]["code"], "model_not_found");
    // Each of them is a request like any other.
    let totals = gateway.totals_of(31).await;
    assert!(totals.requests == 31, "{totals:?}");
    let id = one["response"]["request_id"]
        .as_str()
        .unwrap()
        .strip_prefix("req_")
        .unwrap();
    let id = bonito::domain::ids::RequestId(id.parse().unwrap());
    assert!(gateway.store.request(gateway.organization, id).await.unwrap().is_some());

    // Another key sees nothing of it, of the same organization or not.
    let (_, other) = gateway.new_key(&[], &[], None).await;
    let other = Caller::of(&gateway, &other);
    let file = done["output_file_id"].as_str().unwrap();
    for path in [
        format!("/v1/batches/{}", batch["id"].as_str().unwrap()),
        format!("/v1/files/{file}"),
        format!("/v1/files/{file}/content"),
    ] {
        let answer = other.get(&path).await;
        assert_eq!((answer.status, answer.code()), (404, "not_found".into()), "{path}");
    }
    assert_eq!(other.get("/v1/files").await.json()["data"], json!([]));
    assert_eq!(other.get("/v1/batches").await.json()["data"], json!([]));
    let mine = caller.get("/v1/files?limit=2").await.json();
    assert_eq!(
        (mine["data"].as_array().unwrap().len(), &mine["has_more"]),
        (2, &json!(true))
    );
    let rest = caller
        .get(&format!("/v1/files?after={}", mine["last_id"].as_str().unwrap()))
        .await
        .json();
    assert_eq!(
        (rest["data"].as_array().unwrap().len(), &rest["has_more"]),
        (1, &json!(false))
    );
    let delete = gateway
        .client
        .delete(format!("{}/v1/files/{file}", gateway.api))
        .bearer_auth(&gateway.key);
    assert_eq!(read(delete.send().await.unwrap()).await.json()["deleted"], true);
    assert_eq!(caller.get(&format!("/v1/files/{file}")).await.status, 404);
    gateway.finish().await;
}

#[tokio::test]
async fn faults_of_a_file_are_told_with_their_lines_and_nothing_is_served() {
    let provider = ScriptedProvider::start().await;
    let gateway = with(&provider).set("batches.max_file_bytes", 50_000).start().await;
    let caller = Caller::of(&gateway, &gateway.key);
    let content = [
        line("a", "CANARY"),
        "{\"CANARY\"".into(),
        String::new(),
        line("a", "again"),
        line("b", "x").replace("POST", "GET"),
        line("c", "x").replace("\"model\"", "\"stream\":true,\"model\""),
    ]
    .join("\n");
    let failed = caller.until(&caller.batch(content).await, is("failed")).await;
    let faults: Vec<(u64, String)> = failed["errors"]["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| {
            (
                fault["line"].as_u64().unwrap(),
                fault["code"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    let expected = [
        (2, "invalid_json_line"),
        (4, "duplicate_custom_id"),
        (5, "invalid_method"),
        (6, "stream_not_supported"),
    ];
    assert_eq!(faults, expected.map(|(line, code)| (line, code.to_owned())));
    assert!(!failed.to_string().contains("CANARY"), "{failed}");
    assert!(provider.requests().is_empty());
    let empty = caller.until(&caller.batch("\n\n").await, is("failed")).await;
    assert_eq!(empty["errors"]["data"][0]["code"], "empty_file");

    // What is wrong with a request is said at once.
    let text = |name: &str| Part::text(name.to_owned()).file_name("x");
    for (form, status, words) in [
        (Form::new().part("file", text("x")), 400, "purpose"),
        (
            Form::new().part("file", text("x")).text("purpose", "assistants"),
            400,
            "purpose",
        ),
        (Form::new().text("purpose", "batch"), 400, "file"),
        (
            Form::new()
                .text("purpose", "batch")
                .part("file", text(&"x".repeat(50_001))),
            413,
            "50000",
        ),
    ] {
        let refused = caller.form(form).await;
        assert_eq!(refused.status, status, "{}", refused.text);
        assert!(refused.text.contains(words), "{}", refused.text);
    }
    assert_eq!(caller.post("/v1/files", json!({})).await.status, 400);
    let file = caller.upload("x").await.json()["id"].clone();
    let good = json!({"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"});
    for (field, value) in [
        ("input_file_id", json!("file-00000000000000000000000000000000")),
        ("input_file_id", json!("nothing")),
        ("endpoint", json!("/v1/messages")),
        ("completion_window", json!("1h")),
        ("metadata", json!({"a": "x".repeat(600)})),
    ] {
        let mut body = good.clone();
        body[field] = value;
        let refused = caller.post("/v1/batches", body).await;
        assert_eq!(
            (refused.status, &refused.json()["error"]["param"]),
            (400, &json!(field)),
            "{}",
            refused.text
        );
    }
    assert_eq!(caller.get("/v1/batches?limit=0").await.status, 400);
    gateway.finish().await;
}

#[tokio::test]
async fn a_batch_waits_for_the_keys_limits_rather_than_fail() {
    let provider = ScriptedProvider::start().await;
    let gateway = with(&provider).start().await;
    let (id, key) = gateway.new_key(&[], &[], None).await;
    let one_at_a_time = LimitValues {
        concurrency: Some(1),
        ..LimitValues::default()
    };
    gateway.new_limit(LimitOwner::Key(id), None, one_at_a_time).await;
    let caller = Caller::of(&gateway, &key);
    let batch = caller.batch(lines(6)).await;
    let done = caller.until(&batch, is("completed")).await;
    assert_eq!(done["request_counts"], json!({"total": 6, "completed": 6, "failed": 0}));
    // Some of them had to wait, and were none the worse for it.
    let rows = gateway.store.all_requests(gateway.organization).await.unwrap();
    assert!(rows.iter().any(|row| row.status == 429), "{rows:?}");

    // Its files and batches are its own as long as it is one.
    gateway.revoke(id).await;
    let began = Instant::now();
    while caller.get("/v1/batches").await.status != 401 {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    gateway.finish().await;
}

#[tokio::test]
async fn batches_that_wait_for_a_keys_limit_leave_their_places_to_other_keys() {
    let provider = ScriptedProvider::start().await;
    let gateway = with(&provider).start().await;
    let (id, slow) = gateway.new_key(&[], &[], None).await;
    let one_a_minute = LimitValues {
        requests: Some(1),
        ..LimitValues::default()
    };
    gateway.new_limit(LimitOwner::Key(id), None, one_a_minute).await;
    let (slow, quick) = (Caller::of(&gateway, &slow), Caller::of(&gateway, &gateway.key));
    // As many as the organization has places.
    let held = [slow.batch(lines(50)).await, slow.batch(lines(50)).await];
    for batch in &held {
        slow.until(batch, is("in_progress")).await;
    }
    let began = Instant::now();
    let done = quick.until(&quick.batch(lines(5)).await, is("completed")).await;
    assert_eq!(done["request_counts"]["completed"], 5);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    // One that waits hears at once that it is cancelled, and one that goes on serves as much as the limit lets through.
    let path = format!("/v1/batches/{}/cancel", held[0]["id"].as_str().unwrap());
    let began = Instant::now();
    assert_eq!(slow.post(&path, json!({})).await.status, 200);
    slow.until(&held[0], is("cancelled")).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let going = slow.until(&held[1], is("in_progress")).await;
    assert!(going["request_counts"]["completed"].as_u64() <= Some(1), "{going}");
    gateway.finish().await;
}

#[tokio::test]
async fn a_batch_that_never_began_expires_with_its_files_and_one_without_a_job_fails() {
    let provider = ScriptedProvider::start().await;
    let gateway = with(&provider).set("jobs.in_serve", false).start().await;
    let caller = Caller::of(&gateway, &gateway.key);
    let (waits, lost) = (caller.batch(lines(4)).await, caller.batch(lines(4)).await);
    let database = Database::connect(gateway.database_url()).await.unwrap();
    let now = bonito::store::storable(chrono::Utc::now());
    let expired = (now - chrono::TimeDelta::hours(3)).to_rfc3339();
    let lost_id: uuid::Uuid = lost["id"]
        .as_str()
        .unwrap()
        .strip_prefix("batch_")
        .unwrap()
        .parse()
        .unwrap();
    for statement in [
        format!("UPDATE batches SET expires_at = '{expired}'"),
        format!("UPDATE gateway_jobs SET state = 'dead', dedup_key = NULL WHERE dedup_key = '{lost_id}'"),
    ] {
        database.execute_unprepared(&statement).await.unwrap();
    }
    database.close().await.unwrap();
    gateway
        .store
        .fail_lost_batches(now - chrono::TimeDelta::hours(2), 100)
        .await
        .unwrap();
    let failed = caller.until(&lost, is("failed")).await;
    assert_eq!(failed["errors"]["data"][0]["code"], "server_error");
    caller.until(&waits, is("validating")).await;

    // Somebody has room for it at last.
    let twin = with(&provider).on_the_database_of(&gateway).start().await;
    let expired = caller.until(&waits, is("expired")).await;
    let errors = caller.results(&expired["error_file_id"]).await;
    assert_eq!(errors.len(), 4);
    assert!(
        errors.values().all(|line| line["error"]["code"] == "batch_expired"),
        "{errors:?}"
    );
    assert!(provider.requests().is_empty());
    twin.finish().await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_batch_can_be_cancelled_and_what_was_served_stays() {
    let provider = ScriptedProvider::start().await;
    provider.always(Script::slow_to_begin(Duration::from_millis(150)));
    let gateway = with(&provider).set("batches.concurrency", 2).start().await;
    let caller = Caller::of(&gateway, &gateway.key);
    let batch = caller.batch(lines(200)).await;
    caller
        .until(&batch, |batch| batch["request_counts"]["completed"].as_u64() > Some(2))
        .await;
    let path = format!("/v1/batches/{}/cancel", batch["id"].as_str().unwrap());
    assert_eq!(caller.post(&path, json!({})).await.json()["status"], "cancelling");
    let cancelled = caller.until(&batch, is("cancelled")).await;
    let completed = cancelled["request_counts"]["completed"].as_u64().unwrap();
    assert!((3..100).contains(&completed), "{cancelled}");
    assert!(cancelled["cancelled_at"].is_i64());
    let output = caller.results(&cancelled["output_file_id"]).await;
    assert_eq!(output.len() as u64, completed);
    assert_eq!(caller.post(&path, json!({})).await.status, 200);
    gateway.finish().await;
}

#[tokio::test]
async fn a_batch_whose_time_is_over_says_which_lines_were_not_served() {
    let provider = ScriptedProvider::start().await;
    provider.always(Script::slow_to_begin(Duration::from_millis(200)));
    let gateway = with(&provider).set("batches.concurrency", 1).start().await;
    let caller = Caller::of(&gateway, &gateway.key);
    let batch = caller.batch(lines(40)).await;
    caller
        .until(&batch, |batch| batch["request_counts"]["completed"].as_u64() > Some(1))
        .await;
    let database = Database::connect(gateway.database_url()).await.unwrap();
    let now = bonito::store::storable(chrono::Utc::now());
    // Its time is brought forward. The worker that has it does not hear of that; it stops, and another one goes on.
    let statement = format!("UPDATE batches SET expires_at = '{}'", now.to_rfc3339());
    database.execute_unprepared(&statement).await.unwrap();
    database.close().await.unwrap();
    let twin = with(&provider)
        .set("batches.concurrency", 1)
        .on_the_database_of(&gateway);
    let key = gateway.key.clone();
    gateway.finish().await;
    let twin = twin.start().await;
    let caller = Caller::of(&twin, &key);
    let expired = caller.until(&batch, is("expired")).await;
    let completed = expired["request_counts"]["completed"].as_u64().unwrap();
    assert!(completed < 40, "{expired}");
    let errors = caller.results(&expired["error_file_id"]).await;
    assert_eq!(errors.len() as u64 + completed, 40);
    assert!(
        errors.values().all(|line| line["error"]["code"] == "batch_expired"),
        "{errors:?}"
    );
    twin.finish().await;
}

#[tokio::test]
async fn a_batch_goes_on_after_its_process_was_killed_and_serves_no_kept_line_again() {
    let provider = ScriptedProvider::start().await;
    provider.always(Script::slow_to_begin(Duration::from_millis(60)));
    let mut installation = Installation::new(&provider).await;
    installation.set("BONITO_JOBS_LEASE_MS", 1_000);
    installation.set("BONITO_BATCHES_CONCURRENCY", 2);
    let process = installation.start().await;
    let key = installation.key.clone();
    let client = reqwest::Client::new();
    let api = process.api.clone();
    let caller = Caller {
        client: client.clone(),
        api: &api,
        key: &key,
    };
    let batch = caller.batch(lines(60)).await;
    let before = caller
        .until(&batch, |batch| batch["request_counts"]["completed"].as_u64() > Some(9))
        .await;
    process.kill().await;
    let kept = before["request_counts"]["completed"].as_u64().unwrap() as usize;
    let asked = provider.requests().len();
    let process = installation.start().await;
    assert_eq!(process.api, api);
    let done = caller.until(&batch, is("completed")).await;
    assert_eq!(
        done["request_counts"],
        json!({"total": 60, "completed": 60, "failed": 0})
    );
    let output = caller.results(&done["output_file_id"]).await;
    let names: BTreeSet<String> = (0..60).map(|n| format!("line-{n}")).collect();
    assert_eq!(output.into_keys().collect::<BTreeSet<_>>(), names);
    // At most those that were under way are asked again.
    let all = provider.requests().len();
    assert!(
        all <= 60 + (asked - kept).min(2 + 2),
        "{all} requests, {asked} before, {kept} kept"
    );
    assert_eq!(process.terminate().await, 0);
}

#[tokio::test]
async fn a_database_that_fails_for_a_moment_has_no_line_served_twice() {
    let provider = ScriptedProvider::start().await;
    provider.always(Script::slow_to_begin(Duration::from_millis(400)));
    let gateway = with(&provider).set("batches.concurrency", 4).start().await;
    let caller = Caller::of(&gateway, &gateway.key);
    let batch = caller.batch(lines(4)).await;
    let began = Instant::now();
    while provider.requests().len() < 4 {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Their results cannot be kept when they come; the ledger knows that they were served.
    let database = Database::connect(gateway.database_url()).await.unwrap();
    let rename = async |from: &str, to: &str| {
        let statement = format!("ALTER TABLE {from} RENAME TO {to}");
        database.execute_unprepared(&statement).await.unwrap();
    };
    rename("batch_results", "batch_results_away").await;
    gateway.totals_of(4).await;
    rename("batch_results_away", "batch_results").await;
    let done = caller.until(&batch, is("completed")).await;
    assert_eq!(done["request_counts"], json!({"total": 4, "completed": 4, "failed": 0}));
    assert_eq!(provider.requests().len(), 4, "each is asked and paid for once");
    assert_eq!(caller.results(&done["output_file_id"]).await.len(), 4);
    database.close().await.unwrap();
    gateway.finish().await;
}

#[tokio::test]
async fn what_is_uploaded_and_answered_is_sealed() {
    let provider = ScriptedProvider::start().await;
    let gateway = with(&provider).set("jobs.in_serve", false).start().await;
    let caller = Caller::of(&gateway, &gateway.key);
    caller.batch(line("a", "CANARY-IN-A-PROMPT")).await;
    let database = Database::connect(gateway.database_url()).await.unwrap();
    let statement = "SELECT sealed FROM file_chunks";
    let backend = database.get_database_backend();
    let rows = database
        .query_all_raw(sea_orm::Statement::from_string(backend, statement))
        .await
        .unwrap();
    assert_eq!(rows.len(), 1);
    for row in rows {
        let sealed: Vec<u8> = row.try_get("", "sealed").unwrap();
        assert!(!sealed.windows(6).any(|part| part == b"CANARY"));
    }
    database.close().await.unwrap();
    gateway.finish().await;
}

#[tokio::test]
async fn whoever_manages_an_organization_sees_how_far_its_batches_are_and_nobody_elses() {
    let provider = ScriptedProvider::start().await;
    let gateway = with(&provider).start().await;
    let (other_key, other_secret) = gateway.new_key_in(None, None).await;
    let first = Caller::of(&gateway, &gateway.key);
    let second = Caller::of(&gateway, &other_secret);
    let done = first.batch(lines(3)).await;
    first.until(&done, is("completed")).await;
    let wrong = second.batch("{\"custom_id\": \"x\"}\n").await;
    second.until(&wrong, is("failed")).await;
    let list = async |query: &str, role: Role| {
        let path = format!("/api/gateway/batches{query}");
        gateway.manage("GET", &path, &gateway.token(role), None).await
    };

    // Newest first, with their progress, and nothing of what is in them.
    let all = list("", Role::Viewer).await;
    assert_eq!(all.status, 200, "{}", all.text);
    let found = all.json()["data"].as_array().unwrap().clone();
    assert_eq!(found.len(), 2);
    assert_eq!((&found[0]["id"], &found[1]["id"]), (&wrong["id"], &done["id"]));
    assert_eq!(
        (&found[0]["status"], &found[0]["key_id"]),
        (&json!("failed"), &json!(other_key.to_string()))
    );
    assert!(
        found[0]["failure"].as_str().unwrap().starts_with("line 1: "),
        "{}",
        found[0]
    );
    assert_eq!(
        (
            &found[1]["status"],
            &found[1]["total"],
            &found[1]["completed"],
            &found[1]["failed"]
        ),
        (&json!("completed"), &json!(3), &json!(3), &json!(0))
    );
    assert_eq!(found[1]["metadata"], json!({"purpose": "test"}));
    assert!(
        !all.text.contains("hi 1") && !all.text.contains("custom_id\\"),
        "{}",
        all.text
    );

    // Narrowed, and a page at a time.
    for (query, expected) in [
        ("?status=completed".to_owned(), &done),
        (format!("?key_id={other_key}"), &wrong),
    ] {
        let narrowed = list(&query, Role::Admin).await.json();
        assert_eq!(
            narrowed["data"].as_array().map(Vec::len),
            Some(1),
            "{query}: {narrowed}"
        );
        assert_eq!(narrowed["data"][0]["id"], expected["id"]);
    }
    let page = list("?limit=1", Role::Owner).await.json();
    assert_eq!(page["data"][0]["id"], wrong["id"]);
    let next = page["next_cursor"].as_str().expect("there is more").to_owned();
    let page = list(&format!("?limit=1&cursor={next}"), Role::Owner).await.json();
    assert_eq!(
        (&page["data"][0]["id"], &page["next_cursor"]),
        (&done["id"], &Value::Null)
    );
    assert_eq!(list("?status=nearly", Role::Owner).await.status, 400);

    // Another organization has none, whichever key it asks for; a member may not ask.
    let elsewhere = gateway
        .store
        .create_organization("elsewhere", "Elsewhere")
        .await
        .unwrap();
    let elsewhere = gateway.token_for(Role::Owner, elsewhere);
    for query in [String::new(), format!("?key_id={other_key}"), format!("?cursor={next}")] {
        let path = format!("/api/gateway/batches{query}");
        let seen = gateway.manage("GET", &path, &elsewhere, None).await;
        assert_eq!((seen.status, seen.json()["data"].clone()), (200, json!([])), "{query}");
    }
    assert_eq!(list("", Role::Member).await.status, 403);
    gateway.finish().await;
}
