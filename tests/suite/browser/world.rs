//! An organization with two months behind it: teams, keys, people, budgets, and requests as there are in real ones. Whatever
//! somebody can name is named so that a page that takes names for markup gives itself away.

use std::collections::HashMap;
use std::time::Duration;

use bonito::analytics::rollup::tend;
use bonito::app::run::End;
use bonito::domain::budget::calendar::Period;
use bonito::domain::call::{CacheStatus, Dialect, ErrorClass, Operation};
use bonito::domain::ids::{KeyId, RequestId, TeamId};
use bonito::domain::job::{JobKind, NewJob};
use bonito::domain::money::NanoUsd;
use bonito::domain::record::{AttemptRecord, Charge, Owner, UsageRecord};
use bonito::domain::role::Role;
use bonito::domain::usage::{TokenUsage, UsageSource};
use bonito::store::ledger::RequestRow;
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::rig::Browser;
use crate::support::database::on_postgres;
use crate::support::gateway::Builder;
use crate::support::numbers::Numbers;
use crate::support::{Script, ScriptedProvider, TestGateway};

/// What a name is that wants to be more than a name.
pub const EVIL: &str = "<img src=x onerror=alert(1)>\"'&amp;";
/// What everybody signs in with.
pub const PASSWORD: &str = "correct horse battery";
/// Requests of the last month, and of the one before.
const REQUESTS: u64 = 2_400;
const REQUESTS_BEFORE: u64 = 1_500;
const DAYS: i64 = 30;
/// The provider whose prices have changed since, and of whose requests nobody has written down why they went there.
const CHANGED: &str = "mistral";
/// How long an attempt takes that fails.
const FAILED_AFTER: Duration = Duration::from_millis(640);

/// A model that was used: its provider, its name, how often of a hundred times, and its prices in nano-dollars a token. Those
/// out of a prompt cache cost a tenth.
const MODELS: [(&str, &str, u64, i64, i64); 6] = [
    ("openai", "gpt-5-mini", 38, 250, 2_000),
    ("openai", "gpt-5", 17, 1_250, 10_000),
    ("anthropic", "claude-sonnet-5", 21, 3_000, 15_000),
    ("anthropic", "claude-haiku-5", 12, 1_000, 5_000),
    ("mistral", "mistral-large", 8, 2_000, 6_000),
    ("openai", "text-embedding-3-small", 4, 20, 0),
];

/// The gateway with all that.
pub struct World {
    /// The gateway.
    pub gateway: TestGateway,
    /// The provider behind every model.
    provider: ScriptedProvider,
    /// Its keys, the evil one first.
    pub keys: Vec<Uuid>,
    /// The team whose name is evil.
    pub team: Uuid,
}

/// What a world was when it had just been made.
struct Made {
    database: Vec<u8>,
    key: String,
    keys: Vec<Uuid>,
    team: Uuid,
}

impl World {
    /// An organization with two months behind it.
    pub async fn new() -> Self {
        Self::with(|builder| builder).await
    }

    /// The same in a gateway that is set up otherwise.
    ///
    /// Two months take a while to make: on SQLite they are made once, and each world gets a copy.
    pub async fn with(set_up: impl FnOnce(Builder) -> Builder) -> Self {
        static MADE: OnceCell<Made> = OnceCell::const_new();
        if on_postgres() {
            return Self::made(set_up).await;
        }
        let made = MADE
            .get_or_init(async || {
                let mut world = Self::made(|builder| builder).await;
                assert_eq!(world.gateway.stop().await, End::Clean);
                Made {
                    database: std::fs::read(world.gateway.database_file()).expect("the database can be read"),
                    key: world.gateway.key.clone(),
                    keys: world.keys.clone(),
                    team: world.team,
                }
            })
            .await;
        let (provider, builder) = Self::builder().await;
        let mut gateway = set_up(builder.on_a_copy(&made.database)).start().await;
        gateway.key.clone_from(&made.key);
        Self {
            gateway,
            provider,
            keys: made.keys.clone(),
            team: made.team,
        }
    }

    /// What it will run on: the provider, and a gateway that has its models.
    async fn builder() -> (ScriptedProvider, Builder) {
        let provider = ScriptedProvider::start().await;
        let mut builder = TestGateway::builder();
        for name in ["openai", "anthropic", "mistral"] {
            let models: Vec<_> = MODELS
                .iter()
                .filter(|(own, ..)| *own == name)
                .map(|(_, model, _, input, output)| (*model, [*input, *output, *input / 10].map(a_million)))
                .collect();
            let url = if name == "anthropic" {
                provider.origin()
            } else {
                provider.base_url()
            };
            builder = builder.priced(name, &url, &models);
        }
        (provider, builder)
    }

    async fn made(set_up: impl FnOnce(Builder) -> Builder) -> Self {
        let (provider, builder) = Self::builder().await;
        let gateway = set_up(builder).start().await;
        let token = gateway.token(Role::Owner);
        let created = async |path: &str, body: Value| -> Value {
            let reply = gateway.manage("POST", path, &token, Some(&body)).await;
            assert_eq!(reply.status, 201, "{path}: {}", reply.text);
            reply.json()
        };
        let id = |answer: &Value| -> Uuid {
            answer["id"]
                .as_str()
                .and_then(|id| id.parse().ok())
                .expect("it has an id")
        };
        let mut teams = Vec::new();
        for (slug, name) in [
            ("evil", EVIL),
            ("search", "Search"),
            ("support", "Support bot"),
            ("research", "Research"),
        ] {
            teams.push(id(&created("/api/teams", json!({"slug": slug, "name": name})).await));
        }
        let mut keys = Vec::new();
        // What is to be used up is counted for ever: at the beginning of a month nothing was spent in it yet.
        for (name, team, more) in [
            (
                EVIL,
                0,
                json!({"metadata": {"env": EVIL, "app": "x"}, "allowed_models": {"models": ["<b>gpt</b>-*"], "providers": []}}),
            ),
            (
                "search-production",
                1,
                json!({"metadata": {"env": "production", "app": "search"}, "rate_limit": 600,
                "budgets": [{"amount_usd": "6", "period": "total"}]}),
            ),
            (
                "support-bot",
                2,
                json!({"metadata": {"env": "production", "app": "support"}, "rate_limit": 300,
                "allowed_models": {"models": ["claude-*"], "providers": ["anthropic"]},
                "budgets": [{"amount_usd": "8", "period": "monthly"}, {"amount_usd": "2", "period": "daily"}]}),
            ),
            (
                "support-staging",
                2,
                json!({"metadata": {"env": "staging", "app": "support"}, "allowed_models": {"models": ["gpt-5-mini", "claude-haiku-5"], "providers": []}}),
            ),
            (
                "notebooks",
                3,
                json!({"metadata": {"env": "research"}, "limits": {"concurrency": 8, "requests_per_minute": 120},
                "budgets": [{"amount_usd": "2", "period": "total", "enforcement": "soft"}]}),
            ),
            (
                "batch-embeddings",
                1,
                json!({"metadata": {"env": "production", "app": "search"}, "allowed_models": {"models": ["text-embedding-3-small"], "providers": ["openai"]}}),
            ),
        ] {
            let mut body = json!({"name": name, "team_id": teams[team]});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            keys.push(id(&created("/api/gateway/keys", body).await["id"]
                .as_str()
                .map(|id| json!({"id": id}))
                .unwrap()));
        }
        created(
            "/api/gateway/budgets",
            json!({"scope": "organization", "amount_usd": "20", "period": "monthly"}),
        )
        .await;
        let mut world = Self {
            gateway,
            provider,
            team: teams[0],
            keys,
        };
        world.remember(&teams).await;
        world.hand_in_batches().await;
        world
    }

    /// Batches of every kind of progress, past the API: nobody works on them.
    async fn hand_in_batches(&self) {
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let at = |hours: i64| quoted(&(Utc::now() + TimeDelta::hours(hours)).to_rfc3339());
        let id = || {
            let id = Uuid::now_v7();
            if on_postgres() {
                format!("'{id}'")
            } else {
                format!("X'{}'", id.simple())
            }
        };
        for (key, status, total, completed, failed) in [
            ("notebooks", "validating", 0, 0, 0),
            ("search-production", "completed", 480, 480, 0),
            ("support-bot", "failed", 0, 0, 0),
            ("support-staging", "cancelled", 900, 310, 4),
            ("search-production", "in_progress", 2_000, 1_240, 12),
        ] {
            let over = !matches!(status, "in_progress" | "validating");
            let finished = if over { at(-1) } else { "NULL".to_owned() };
            let errors = if status == "failed" {
                quoted(r#"{"object": "list", "data": [{"line": 3, "message": "method must be POST"}]}"#)
            } else {
                "NULL".to_owned()
            };
            let said = quoted(&json!({"job": EVIL}).to_string());
            self.gateway
                .sql(&format!(
                    "INSERT INTO batches (id, organization_id, key_id, endpoint, completion_window, input_file_id, status, \
                     errors, metadata, total, completed, failed, created_at, expires_at, finished_at) \
                     SELECT {}, organization_id, id, '/v1/chat/completions', '24h', {}, '{status}', {errors}, {said}, {total}, \
                     {completed}, {failed}, {}, {}, {finished} FROM gateway_keys WHERE name = '{key}'",
                    id(),
                    id(),
                    at(-3),
                    at(21),
                ))
                .await;
        }
    }

    /// Asks each model that can be talked to once, so that something is measured of them. Answers begin after a while and come
    /// a word at a time, as those of real ones do.
    pub async fn ask_around(&self) {
        let slowly = Script::faithful().edited(|answer| {
            answer
                .after(Duration::from_millis(310))
                .paced(Duration::from_millis(16))
        });
        self.provider.always(slowly);
        let text = "Say in a few plain words what a gateway between applications and models is good for";
        let asked = MODELS.iter().filter(|model| !model.1.contains("embedding"));
        join_all(asked.map(async |(_, model, ..)| {
            let reply = self.gateway.stream(model, text).await;
            assert_eq!(reply.status, 200, "{model}: {}", reply.text);
            self.gateway.row(&reply).await;
        }))
        .await;
        self.provider.heal();
    }

    /// Jobs of every state, on which nobody works.
    pub async fn leave_jobs(&self) {
        let jobs = [
            (JobKind::WebhookDelivery, "waiting", 0, None),
            (
                JobKind::Batch,
                "waiting",
                1,
                Some("the provider answered 529; it is tried again"),
            ),
            (JobKind::UsageRollup, "done", 1, None),
            (JobKind::KeyExpiry, "done", 1, None),
            (
                JobKind::WebhookDelivery,
                "dead",
                8,
                Some("the endpoint answered 503 each time"),
            ),
        ];
        for (place, (kind, state, attempts, error)) in jobs.into_iter().enumerate() {
            let payload = json!({"number": place});
            let job = NewJob {
                organization: Some(self.gateway.organization),
                after: Duration::from_secs(86_400),
                ..NewJob::new(kind, payload)
            };
            let id = self.gateway.store.enqueue(&job).await.expect("it is enqueued");
            let id = id.to_string().parse::<Uuid>().expect("it is an id");
            let id = if on_postgres() {
                format!("'{id}'")
            } else {
                format!("X'{}'", id.simple())
            };
            let error = error.map_or_else(|| "NULL".to_owned(), |error| format!("'{error}'"));
            let over = match state {
                "waiting" => "NULL".to_owned(),
                _ => format!("'{}'", (Utc::now() - TimeDelta::minutes(4)).to_rfc3339()),
            };
            self.gateway
                .sql(&format!(
                    "UPDATE gateway_jobs SET state = '{state}', attempts = {attempts}, last_error = {error}, \
                     finished_at = {over} WHERE id = {id}"
                ))
                .await;
        }
    }

    /// A dry run over what was charged by prices that have changed since, which is over when this returns.
    pub async fn find_out_what_would_be_repriced(&self) {
        let token = self.gateway.token(Role::Owner);
        let path = "/api/gateway/prices/reprice";
        let from = (Utc::now() - TimeDelta::days(DAYS)).to_rfc3339();
        let terms = json!({"from": from, "provider": CHANGED, "dry_run": true});
        let reply = self.gateway.manage("POST", path, &token, Some(&terms)).await;
        assert!(reply.status < 300, "{}", reply.text);
        let done = async {
            while self.gateway.manage("GET", path, &token, None).await.json()["data"][0]["state"] != "done" {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let done = tokio::time::timeout(Duration::from_secs(20), done).await;
        done.expect("a dry run comes to its end");
    }

    /// The versions of what models cost now.
    async fn price_versions(&self) -> HashMap<String, String> {
        let path = "/api/gateway/prices?limit=500";
        let token = self.gateway.token(Role::Owner);
        let prices = self.gateway.manage("GET", path, &token, None).await.json();
        let of = |price: &Value| {
            let version = price["price"]["version"].as_str()?;
            Some((price["deployment"].as_str()?.to_owned(), version.to_owned()))
        };
        prices["data"].as_array().into_iter().flatten().filter_map(of).collect()
    }

    /// Writes the requests of two months into the ledger.
    async fn remember(&mut self, teams: &[Uuid]) {
        let now = Utc::now();
        let first = now - TimeDelta::days(DAYS);
        let store = &self.gateway.store;
        for month in [first - TimeDelta::days(DAYS), first] {
            store.make_partitions(month).await.expect("there are partitions");
        }
        let versions = self.price_versions().await;
        let mut numbers = Numbers(20_261_130);
        let month = Period::Monthly.span(Tz::UTC, now).start;
        let lately = u64::try_from((now - month).num_seconds().clamp(1, 14_000)).unwrap();
        let owners = [(1, 1, 42), (2, 2, 26), (4, 3, 14), (3, 2, 10), (0, 0, 8)];
        let mut records = Vec::new();
        for number in 0..REQUESTS + REQUESTS_BEFORE {
            // More by day than by night, and a little more each day.
            let left = (REQUESTS - 1).saturating_sub(number);
            let day = DAYS * i64::try_from((left * left + left * REQUESTS) / 2 / REQUESTS).unwrap();
            let day = DAYS - 1 - day / i64::try_from(REQUESTS).unwrap();
            let hour =
                [9, 10, 11, 11, 13, 14, 14, 15, 15, 16, 17, 20, 2, 7][usize::try_from(numbers.below(14)).unwrap()];
            let at = first + TimeDelta::days(day);
            let at = at.date_naive().and_hms_opt(hour, 0, 0).unwrap().and_utc()
                + TimeDelta::milliseconds(i64::try_from(numbers.below(3_600_000)).unwrap());
            // Some of today are still to come; those came in the last hours instead, and so did a few others: whatever the time
            // and the day, something was asked lately and in this month.
            let at = if at < now && at > first && number % 40 != 0 {
                at
            } else {
                now - TimeDelta::seconds(i64::try_from(numbers.below(lately)).unwrap())
            };
            // The month before was a quieter one.
            let at = if number < REQUESTS {
                at
            } else {
                let day = first - TimeDelta::days(1 + i64::try_from(numbers.below(29)).unwrap());
                let hour = [9, 11, 14, 16][usize::try_from(numbers.below(4)).unwrap()];
                day.date_naive().and_hms_opt(hour, 0, 0).unwrap().and_utc()
                    + TimeDelta::milliseconds(i64::try_from(numbers.below(3_600_000)).unwrap())
            };
            let (model, mut rest) = (0, numbers.below(100));
            let mut place = model;
            while rest >= MODELS[place].2 {
                rest -= MODELS[place].2;
                place += 1;
            }
            let (mut owner, mut rest) = (0, numbers.below(100));
            while rest >= owners[owner].2 {
                rest -= owners[owner].2;
                owner += 1;
            }
            let (key, team, _) = owners[owner];
            // Keys ask for what they may have.
            let (key, team, model) = match (key, MODELS[place]) {
                (_, model) if model.1.contains("embedding") => (5, 1, model),
                (2, model) if model.0 != "anthropic" => (2, team, MODELS[3]),
                (_, model) => (key, team, model),
            };
            records.push(self.record(at, &mut numbers, model, (self.keys[key], teams[team]), &versions));
        }
        for batch in records.chunks(400) {
            let refused = store.write_records(batch).await.expect("the database takes them");
            assert!(refused.is_empty());
        }
        while tend(store, now).await.expect("sums can be made").more {}
    }

    fn record(
        &self,
        at: DateTime<Utc>,
        numbers: &mut Numbers,
        model: (&'static str, &'static str, u64, i64, i64),
        (key, team): (Uuid, Uuid),
        versions: &HashMap<String, String>,
    ) -> UsageRecord {
        let (provider, name, _, input_price, output_price) = model;
        let embedding = name.contains("embedding");
        let (input, output) = (
            180 + numbers.below(3_200),
            if embedding { 0 } else { 40 + numbers.below(900) },
        );
        let tokens = |count: u64| i64::try_from(count).unwrap();
        let deployment = format!("{provider}/{name}");
        let cached = input / 5;
        let cost =
            tokens(input - cached) * input_price + tokens(cached) * (input_price / 10) + tokens(output) * output_price;
        // What was charged by earlier prices was a little less.
        let (cost, version) = match provider {
            CHANGED => (cost * 9 / 10, "list#1"),
            _ => (cost, versions[&deployment].as_str()),
        };
        let slow = if name == "gpt-5" { 3 } else { 1 };
        let first_token = Duration::from_millis((120 + numbers.below(380)) * slow);
        let latency =
            first_token + Duration::from_millis(output * 9 * slow) + Duration::from_millis(numbers.below(300));
        let error = match numbers.below(100) {
            0 => Some((ErrorClass::Timeout, 504)),
            1 => Some((ErrorClass::RateLimited, 429)),
            2 if numbers.below(2) == 0 => Some((ErrorClass::ServerError, 502)),
            _ => None,
        };
        let attempt = |started_after: Duration, error: Option<(ErrorClass, u16)>| AttemptRecord {
            deployment: deployment.as_str().into(),
            provider: provider.into(),
            model: name.into(),
            started_after,
            latency: match error {
                Some((ErrorClass::Timeout, _)) => Duration::from_secs(20),
                Some(_) => FAILED_AFTER,
                None => latency,
            },
            first_token: error.is_none().then_some(first_token),
            status: Some(error.map_or(200, |(_, status)| status)),
            error: error.map(|(class, _)| class),
            upstream_request_id: Some("req_7f3a".into()),
            charge: if error.is_some() {
                Charge::nothing()
            } else {
                Charge {
                    usage: TokenUsage {
                        input,
                        cached_input: cached,
                        output,
                        ..TokenUsage::default()
                    },
                    source: UsageSource::Reported,
                    cost: Some(NanoUsd(cost)),
                    price_version: Some(version.into()),
                }
            },
        };
        let again = error.is_none() && numbers.below(25) == 0;
        let admission = Duration::from_millis(1);
        let attempts = if again {
            vec![
                attempt(admission, Some((ErrorClass::Overloaded, 529))),
                attempt(admission + FAILED_AFTER + Duration::from_millis(80), None),
            ]
        } else {
            vec![attempt(admission, error)]
        };
        // The request begins before its first attempt and ends with its last one.
        let last = attempts.last().expect("there is one");
        let (ended, first_seen) = (
            last.started_after + last.latency,
            last.first_token.map(|first| last.started_after + first),
        );
        let routing = (provider != CHANGED).then(|| {
            let expected = first_token.as_secs_f64() * 1e3 + 4_000.0;
            let reasons = json!({
                "config_version": 0,
                "strategy": "failover",
                "attempts": [{"deployment": deployment, "stage": "primary", "score": 0.0, "cost_nanousd": cost,
                    "expected_ms": expected.round(), "in_flight": numbers.below(4)}],
            });
            reasons.to_string().into_boxed_str()
        });
        let ms = u64::try_from(at.timestamp_millis()).unwrap();
        let random = u128::from(numbers.below(u64::from(u32::MAX))) << 20 | u128::from(numbers.below(1 << 20));
        let id = (u128::from(ms) << 80) | (7 << 76) | (0b10 << 62) | random;
        UsageRecord {
            id: RequestId(Uuid::from_u128(id)),
            trace: None,
            owner: Owner {
                organization: self.gateway.organization,
                team: Some(TeamId(team)),
                key: KeyId(key),
            },
            admitted_at: at,
            operation: if embedding {
                Operation::Embedding
            } else {
                Operation::Chat
            },
            dialect: Dialect::OpenAi,
            requested_model: name.to_owned(),
            stream: !embedding && numbers.below(3) > 0,
            status: error.map_or(200, |(_, status)| status),
            error: error.map(|(class, _)| class),
            client_cancelled: false,
            latency: ended,
            first_token: first_seen,
            overhead: Duration::from_micros(180 + numbers.below(240)),
            cache: CacheStatus::Miss,
            cached_from: None,
            attempts,
            routing,
        }
    }

    /// The newest request that two attempts were made for, and of which everything is known.
    pub async fn tried_twice(&self) -> RequestId {
        self.newest(|row| row.attempts == 2 && row.routing.is_some()).await
    }

    /// The newest request of which little is known by now.
    pub async fn little_known(&self) -> RequestId {
        self.newest(|row| row.error_class.is_none() && row.routing.is_none())
            .await
    }

    async fn newest(&self, is_meant: impl Fn(&RequestRow) -> bool) -> RequestId {
        let rows = self.gateway.store.all_requests(self.gateway.organization).await;
        let rows = rows.expect("the database answers");
        let found = rows.iter().rev().find(|row| is_meant(row));
        RequestId(found.expect("there are some").id)
    }

    /// See [`person`].
    pub async fn person(&self, role: &str, team: Option<Uuid>) -> String {
        person(&self.gateway, role, team).await
    }

    /// See [`browser_of`].
    pub async fn browser_of(&self, email: &str) -> Browser {
        browser_of(&self.gateway, email).await
    }

    /// Ends everything.
    pub async fn finish(self, browsers: impl IntoIterator<Item = Browser>) {
        for browser in browsers {
            browser.close().await;
        }
        self.gateway.finish().await;
    }
}

/// US dollars for a million tokens at a price in nano-dollars a token.
fn a_million(nano: i64) -> String {
    format!("{}.{:03}", nano / 1_000, nano % 1_000)
}

/// Creates somebody of a role, who can sign in with [`PASSWORD`]. Gives their address.
pub async fn person(gateway: &TestGateway, role: &str, team: Option<Uuid>) -> String {
    let email = format!("{role}@example.com");
    let first = "first password of theirs";
    // The owner is in the pictures, and has a name like anybody's; all others have one that wants to be more.
    let name = match role {
        "owner" => "Ada Ferreira".to_owned(),
        _ => format!("{role} {EVIL}"),
    };
    let body = json!({"email": email, "name": name, "role": role, "password": first, "team_id": team});
    let token = gateway.token(Role::PlatformAdmin);
    let reply = gateway.manage("POST", "/api/users", &token, Some(&body)).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    let login = json!({"email": email, "password": first});
    let reply = gateway.manage("POST", "/api/auth/login", "", Some(&login)).await;
    let token = reply.json()["access_token"].as_str().expect("they are in").to_owned();
    let change = json!({"current_password": first, "new_password": PASSWORD});
    let reply = gateway
        .manage("POST", "/api/auth/password", &token, Some(&change))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    email
}

/// A browser whose viewer has signed in.
pub async fn browser_of(gateway: &TestGateway, email: &str) -> Browser {
    let browser = Browser::open(&gateway.api).await;
    browser.open_page("/login").await;
    browser.fill("#email", email).await;
    browser.fill("#password", PASSWORD).await;
    browser.click("button[type=submit]").await;
    browser.until_at("/gateway").await;
    browser
}
