//! `TestGateway`: the whole gateway in this process, on free ports, with a database of its own.
//!
//! Every test ends it with [`TestGateway::finish`], which stops it as a signal would and checks that nothing is left over:
//! no slot in the journal, no request under way, no permit to probe, no task that still holds the pipeline, no record that is not in the
//! database.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bonito::app::builder::Gateway;
use bonito::app::first_start::{self, MasterKeyInput, Opened};
use bonito::app::notices::StoredNotices;
use bonito::app::run::{End, Running};
use bonito::cli::known_dialects;
use bonito::cluster::Limiter;
use bonito::config::{self, Sources};
use bonito::domain::api_key::ApiKey;
use bonito::domain::audit::{Author, Via};
use bonito::domain::budget::calendar::Period;
use bonito::domain::budget::{BudgetScope, BudgetTerms, DEFAULT_THRESHOLDS, Enforcement, Unpriced};
use bonito::domain::ids::{KeyId, OrganizationId, RequestId, TeamId, UserId};
use bonito::domain::key::{KeyHash, NewKey, NewTeam};
use bonito::domain::limit::{LimitOwner, LimitRule, LimitScope, LimitValues, WhenApart};
use bonito::domain::managed_key::{KeyChange, KeyOutcome, KeyReach};
use bonito::domain::managed_limit::Outcome;
use bonito::domain::money::NanoUsd;
use bonito::domain::role::Role;
use bonito::domain::scope::Scope;
use bonito::domain::tenancy::{OrganizationChange, OrganizationChanged};
use bonito::domain::user::{Email, NewUser, UserCreated};
use bonito::gates::health_board::ProviderGate;
use bonito::pipeline::Pipeline;
use bonito::secrets::management_token::{Bearer, ManagementTokens, Session};
use bonito::secrets::master_key::{MasterKey, MasterKeySources, new_api_key};
use bonito::store::Store;
use bonito::store::ledger::{AttemptRow, RequestRow, Totals};
use bonito::store::organizations::FIRST_SLUG;
use chrono::{DateTime, Utc};
use ractor::ActorStatus;
use sea_orm::ConnectionTrait as _;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use uuid::Uuid;

use super::database;
use super::provider::ScriptedProvider;

/// The master key of every test, base64 of 32 bytes; what it protects lives as long as the test.
pub const MASTER_KEY: &str = "dGVzdHMtb25seS1tYXN0ZXIta2V5LTMyLWJ5dGVzISE=";

/// The same, to work with it past a gateway.
pub fn master_key() -> MasterKey {
    let sources = MasterKeySources {
        value: Some(MASTER_KEY),
        ..MasterKeySources::default()
    };
    MasterKey::find(&sources).expect("it is a master key")
}

/// A key of an organization about which nothing is said.
pub fn plain_key(organization: OrganizationId, key: &ApiKey, master_key: &MasterKey) -> NewKey {
    NewKey {
        id: KeyId(Uuid::now_v7()),
        organization,
        team: None,
        owner: None,
        name: "test key".into(),
        prefix: key.display_prefix().to_owned(),
        hash: KeyHash(master_key.key_hasher().hash(key)),
        scope: Scope::default(),
        rate_limit: RATE_LIMIT,
        parameter_policy: None,
        cache_ttl: None,
        max_output_tokens: None,
        metadata: json!({}),
        allowed_ips: Vec::new(),
        expires_at: None,
    }
}
/// Who sets up what a test is not about, in the audit log.
pub const TEST_HAND: &str = "the test's own hand";
/// Requests per minute of the keys of tests that are about something else.
pub const RATE_LIMIT: u32 = 10_000;
/// How long a background write may take to be seen.
const PATIENCE: Duration = Duration::from_secs(10);

/// A gateway to be.
#[derive(Default)]
pub struct Builder {
    file: String,
    env: Vec<(String, String)>,
    settings: Vec<(String, String)>,
    dir: Option<Arc<tempfile::TempDir>>,
    database: Option<String>,
}

impl Builder {
    /// A provider of OpenAI's own kind at the scripted one, serving these models under their own names.
    pub fn openai(self, provider: &ScriptedProvider, models: &[&str]) -> Self {
        self.provider("openai", &provider.base_url(), models)
    }

    /// The same under any id: every other id is a compatible endpoint.
    pub fn provider(self, id: &str, base_url: &str, models: &[&str]) -> Self {
        let prices = ["2.5", "10", "1.25"].map(str::to_owned);
        let priced: Vec<_> = models.iter().map(|model| (*model, prices.clone())).collect();
        self.priced(id, base_url, &priced)
    }

    /// The same with what each model costs: US dollars for a million tokens of input, of output, and of input out of a prompt
    /// cache.
    pub fn priced(mut self, id: &str, base_url: &str, models: &[(&str, [String; 3])]) -> Self {
        let variable = format!("TEST_{}_KEY", id.to_uppercase());
        let _ = write!(
            self.file,
            "\n[providers.{id}]\nbase_url = {base_url:?}\napi_key_env = {variable:?}\n"
        );
        self.env.push((variable, format!("sk-secret-of-{id}")));
        for (model, [input, output, cached]) in models {
            let _ = write!(
                self.file,
                "[[providers.{id}.deployments]]\nmodel = {model:?}\nname = {model:?}\ninput_usd = {input:?}\n\
                 output_usd = {output:?}\ncache_read_usd = {cached:?}\n"
            );
        }
        self
    }

    /// Any lines of a configuration file.
    pub fn file(mut self, lines: &str) -> Self {
        let _ = write!(self.file, "\n{lines}\n");
        self
    }

    /// A variable of the environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// One setting.
    pub fn set(mut self, key: &str, value: impl ToString) -> Self {
        self.settings.push((key.into(), value.to_string()));
        self
    }

    /// The database of a gateway that was there before, or still is.
    pub fn on_the_database_of(mut self, other: &TestGateway) -> Self {
        self.dir = Some(other.dir.clone());
        self.database = Some(other.database.clone());
        self
    }

    /// A copy of an SQLite database, of a gateway that is no more.
    pub fn on_a_copy(mut self, database: &[u8]) -> Self {
        let dir = tempfile::tempdir().expect("a directory can be made");
        std::fs::write(dir.path().join(database::FILE), database).expect("a file can be written");
        self.dir = Some(Arc::new(dir));
        self
    }

    /// Starts it.
    pub async fn start(self) -> TestGateway {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = self
            .dir
            .unwrap_or_else(|| Arc::new(tempfile::tempdir().expect("a directory can be made")));
        let database = match self.database {
            Some(database) => database,
            None => database::fresh(dir.path()).await,
        };
        let journal = dir.path().join(format!("journal-{}", Uuid::now_v7().simple()));
        let mut overrides: Vec<(String, String)> = [
            ("server.listen", "127.0.0.1:0".to_owned()),
            ("operations.listen", "127.0.0.2:0".to_owned()),
            ("data.dir", dir.path().display().to_string()),
            ("database.url", database.clone()),
            ("database.max_connections", "4".to_owned()),
            ("ledger.flush_ms", "10".to_owned()),
            ("keys.poll_ms", "50".to_owned()),
            // Always in the same order, unless a test is about the order.
            ("routing.default_strategy", "failover".to_owned()),
            // Of its own: several gateways may share a data directory here, and no two a journal.
            ("journal.dir", journal.display().to_string()),
            ("journal.max_bytes", "33554432".to_owned()),
            // What a test scripts for one attempt is then what its caller hears of.
            ("failover.same_deployment", "false".to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        overrides.extend(self.settings);
        // A test may name another one.
        let named = overrides.iter().rev().find(|(key, _)| key == "database.url");
        let database = named.map_or(database, |(_, url)| url.clone());
        let sources = Sources {
            file: Some((PathBuf::from("test.toml"), self.file)),
            env: self.env,
            overrides,
        };
        let loaded = config::load(&sources, &known_dialects()).unwrap_or_else(|faults| panic!("{faults}"));
        let settings = Arc::new(loaded.settings);
        let input = MasterKeyInput {
            value: Some(MASTER_KEY.into()),
            file: None,
        };
        let Opened {
            store,
            master_key,
            first_key,
            first_owner,
            snapshot,
        } = first_start::open(&settings, &input).await.expect("the gateway opens");
        if first_key.is_some() {
            // It is made with the default, which a test that is about something else may exceed.
            let organization = store
                .organization_by_slug(FIRST_SLUG)
                .await
                .expect("the database answers");
            let organization = organization.expect("the first start made an organization");
            let first = store
                .keys_of(organization)
                .await
                .expect("the database answers")
                .remove(0);
            assert_eq!(first.rate_limit, 60);
            database::run(&database, &format!("UPDATE gateway_keys SET rate_limit = {RATE_LIMIT}")).await;
        }
        let opened = Opened {
            store,
            master_key,
            first_key: None,
            first_owner: None,
            snapshot,
        };
        let gateway = Gateway::start(settings.clone(), &opened)
            .await
            .expect("the gateway starts");
        let running = Running::start(gateway, &settings).await.expect("the gateway listens");
        let organization = opened
            .store
            .organization_by_slug(FIRST_SLUG)
            .await
            .expect("the database answers");
        TestGateway {
            api: format!("http://{}", running.api),
            operations: format!("http://{}", running.operations),
            key: first_key.map_or_else(String::new, |key| key.expose().to_owned()),
            organization: organization.expect("the first start made an organization"),
            owner: first_owner.map(|owner| (owner.email.to_string(), owner.password.expose_secret().to_owned())),
            store: opened.store.clone(),
            master_key: opened.master_key.clone(),
            running: Some(running),
            client: reqwest::Client::builder()
                .pool_max_idle_per_host(64)
                .build()
                .expect("a client can be made"),
            dir,
            database,
        }
    }
}

/// A running gateway.
pub struct TestGateway {
    /// Where the API is.
    pub api: String,
    /// Where operations are.
    pub operations: String,
    /// The first key's secret.
    pub key: String,
    /// The address and the password of the first user.
    pub owner: Option<(String, String)>,
    /// The first organization.
    pub organization: OrganizationId,
    /// Its database.
    pub store: Store,
    /// The HTTP client of [`Self::post`] and friends.
    pub client: reqwest::Client,
    master_key: MasterKey,
    running: Option<Running>,
    dir: Arc<tempfile::TempDir>,
    database: String,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: reqwest::header::HeaderMap,
    /// Its body.
    pub text: String,
    /// Whether the body was complete.
    pub complete: bool,
}

impl Reply {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {:?}", self.text))
    }

    /// A header as text; empty where it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// `error.code` of an error body.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The data of each event of a stream.
    pub fn events(&self) -> Vec<String> {
        let records = self.text.split("\n\n").filter(|record| !record.trim().is_empty());
        records
            .filter_map(|record| record.strip_prefix("data: ").map(ToOwned::to_owned))
            .collect()
    }

    /// The text of a streamed chat, joined.
    pub fn streamed_text(&self) -> String {
        let chunks = self
            .events()
            .into_iter()
            .filter_map(|data| serde_json::from_str::<Value>(&data).ok());
        chunks
            .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(ToOwned::to_owned))
            .collect()
    }

    /// The ledger's id of the request.
    pub fn request_id(&self) -> RequestId {
        let header = self.header("x-request-id");
        let digits = header
            .strip_prefix("req_")
            .unwrap_or_else(|| panic!("{header:?} is not a request id"));
        RequestId(digits.parse::<Uuid>().expect("32 hexadecimal digits"))
    }
}

impl TestGateway {
    /// A gateway with the echo model and nothing else, unless more is asked for.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A request with any body and key.
    pub async fn send(&self, path: &str, key: &str, body: impl Into<reqwest::Body>) -> Reply {
        let request = self.client.post(format!("{}{path}", self.api)).bearer_auth(key);
        let response = request
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await;
        read(response.expect("the gateway answers")).await
    }

    /// A request with the first key.
    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(path, &self.key, body.to_string()).await
    }

    /// A chat with one user message.
    pub async fn chat(&self, model: &str, text: &str) -> Reply {
        self.post("/v1/chat/completions", &chat(model, text, false)).await
    }

    /// The same as a stream.
    pub async fn stream(&self, model: &str, text: &str) -> Reply {
        self.post("/v1/chat/completions", &chat(model, text, true)).await
    }

    /// A GET with a key.
    pub async fn get(&self, path: &str, key: &str) -> Reply {
        let request = self.client.get(format!("{}{path}", self.api)).bearer_auth(key);
        read(request.send().await.expect("the gateway answers")).await
    }

    /// What tells organizations how providers are doing.
    pub fn notices(&self) -> Arc<StoredNotices> {
        self.running
            .as_ref()
            .expect("the gateway runs")
            .gateway()
            .notices
            .clone()
    }

    /// How requests are counted against limits.
    pub fn limiter(&self) -> Arc<Limiter> {
        self.running
            .as_ref()
            .expect("the gateway runs")
            .gateway()
            .limiter
            .clone()
    }

    /// Places in its journal that are taken: by requests under way, and by records until they are in the database.
    pub fn journal_places(&self) -> usize {
        let running = self.running.as_ref().expect("the gateway runs");
        running.gateway().journal.used()
    }

    /// A GET at the operations listener.
    pub async fn operation(&self, path: &str) -> Reply {
        read(
            self.client
                .get(format!("{}{path}", self.operations))
                .send()
                .await
                .expect("operations answer"),
        )
        .await
    }

    /// The value of a metric, summed over its labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.operation("/metrics").await.text;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let values = lines.filter(|line| line.split(['{', ' ']).next() == Some(name));
        values
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Creates a key with a scope and an end.
    pub async fn new_key(
        &self,
        models: &[&str],
        providers: &[&str],
        expires_at: Option<DateTime<Utc>>,
    ) -> (KeyId, String) {
        let key = new_api_key();
        let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let id = self
            .insert(&key, None, Scope::new(list(models), list(providers)), expires_at)
            .await;
        (id, key.expose().to_owned())
    }

    /// Creates a user of the organization with an id.
    pub async fn new_user(&self, id: UserId) {
        let user = NewUser {
            id,
            organization: self.organization,
            team: None,
            email: Email::parse(&format!("{id}@example.com")).expect("it is an address"),
            name: "test user".into(),
            role: Role::Viewer,
            password_hash: None,
            must_change_password: false,
        };
        let created = self.store.create_user(user, &Author::system("a test")).await;
        assert!(matches!(created, Ok(UserCreated::Created(_))), "{created:?}");
    }

    /// Creates a key of a team and a user.
    pub async fn new_key_in(&self, team: Option<TeamId>, owner: Option<UserId>) -> (KeyId, String) {
        let key = new_api_key();
        let row = NewKey {
            team,
            owner,
            ..plain_key(self.organization, &key, &self.master_key)
        };
        let id = row.id;
        self.store.create_key(row).await.expect("a key can be created");
        (id, key.expose().to_owned())
    }

    /// Creates a key with so many requests per minute.
    pub async fn new_limited_key(&self, requests: u32) -> (KeyId, String) {
        let (id, key) = self.new_key(&[], &[], None).await;
        let different = KeyChange {
            rate_limit: Some(requests),
            ..KeyChange::default()
        };
        self.change_key(id, different).await;
        (id, key)
    }

    /// Changes a key straight in the database, as another process would.
    pub async fn change_key(&self, id: KeyId, different: KeyChange) {
        let (reach, by) = (KeyReach::Organization, Author::system("a test"));
        let changed = self
            .store
            .change_key(self.organization, reach, id, different, &by)
            .await;
        assert!(matches!(changed, Ok(KeyOutcome::Done(_))), "{changed:?}");
    }

    /// Revokes a key straight in the database, as another process would.
    pub async fn revoke(&self, id: KeyId) {
        let (reach, by) = (KeyReach::Organization, Author::system("a test"));
        let revoked = self.store.revoke_managed_key(self.organization, reach, id, &by).await;
        assert!(matches!(revoked, Ok(KeyOutcome::Done(_))), "{revoked:?}");
    }

    /// Lets an organization use the shared credentials.
    pub async fn grant_shared(&self, organization: OrganizationId) {
        let granted = OrganizationChange {
            shared_credentials: Some(true),
            ..OrganizationChange::default()
        };
        let by = Author::system(TEST_HAND);
        let changed = self.store.change_tenant(organization, &granted, &by).await;
        assert!(matches!(
            changed.expect("the database answers"),
            OrganizationChanged::Done(_)
        ));
    }

    /// Creates a limit. Whoever used a key of its scope before has to wait until it is in force.
    pub async fn new_limit(&self, owner: LimitOwner, model: Option<&str>, values: LimitValues) -> Uuid {
        self.new_limit_apart(owner, model, values, WhenApart::Local).await
    }

    /// The same with what becomes of requests while Redis is away.
    pub async fn new_limit_apart(
        &self,
        owner: LimitOwner,
        model: Option<&str>,
        values: LimitValues,
        when_apart: WhenApart,
    ) -> Uuid {
        let rule = LimitRule {
            id: Uuid::now_v7(),
            scope: LimitScope {
                owner,
                model: model.map(Into::into),
            },
            values,
            when_apart,
            enabled: true,
        };
        let (reach, by) = (KeyReach::Organization, Author::system(TEST_HAND));
        let created = self.store.add_limit(self.organization, reach, &rule, &by).await;
        assert!(matches!(created.expect("the database answers"), Outcome::Done(_)));
        rule.id
    }

    /// Creates a budget of five dollars a month for a key.
    pub async fn new_budget(&self, key: KeyId) -> Uuid {
        self.new_budget_of(key, NanoUsd(5_000_000_000)).await
    }

    /// The same of another amount.
    pub async fn new_budget_of(&self, key: KeyId, amount: NanoUsd) -> Uuid {
        let terms = BudgetTerms {
            amount,
            period: Period::Monthly,
            zone: chrono_tz::UTC,
            enforcement: Enforcement::Hard,
            unpriced: Unpriced::Refuse,
            default_output_tokens: None,
            thresholds: DEFAULT_THRESHOLDS.into_iter().collect(),
            enabled: true,
        };
        let set = self
            .store
            .set_budget(
                self.organization,
                &BudgetScope::Key(key),
                &terms,
                &Author::system(TEST_HAND),
            )
            .await;
        set.expect("the database answers").expect("the key is there").0
    }

    /// Creates a team with a scope, and a key in it with a scope of its own.
    pub async fn new_team(&self, slug: &str, scope: Scope, of_the_key: Scope) -> (TeamId, String) {
        let team = TeamId(Uuid::now_v7());
        let row = NewTeam {
            id: team,
            organization: self.organization,
            slug: slug.into(),
            name: slug.into(),
            scope,
        };
        self.store.create_team(row).await.expect("a team can be created");
        let key = new_api_key();
        self.insert(&key, Some(team), of_the_key, None).await;
        (team, key.expose().to_owned())
    }

    /// Creates a key with a secret that was made up before.
    pub async fn give_out(&self, secret: &str) {
        let key = ApiKey::parse(secret).expect("it is well-formed");
        self.insert(&key, None, Scope::default(), None).await;
    }

    async fn insert(
        &self,
        key: &ApiKey,
        team: Option<TeamId>,
        scope: Scope,
        expires_at: Option<DateTime<Utc>>,
    ) -> KeyId {
        let row = NewKey {
            team,
            scope,
            metadata: json!({"purpose": "test"}),
            expires_at,
            ..plain_key(self.organization, key, &self.master_key)
        };
        let id = row.id;
        self.store.create_key(row).await.expect("a key can be created");
        id
    }

    /// Creates a key of another organization.
    pub async fn new_key_of(&self, organization: OrganizationId) -> String {
        let key = new_api_key();
        let row = plain_key(organization, &key, &self.master_key);
        self.store.create_key(row).await.expect("a key can be created");
        key.expose().to_owned()
    }

    /// A token for the management API.
    pub fn token(&self, role: Role) -> String {
        self.token_for(role, self.organization)
    }

    /// The same for any organization.
    pub fn token_for(&self, role: Role, organization: OrganizationId) -> String {
        self.token_of(role, organization, None, None)
    }

    /// The same for a user and their team.
    pub fn token_of(
        &self,
        role: Role,
        organization: OrganizationId,
        team: Option<TeamId>,
        user: Option<UserId>,
    ) -> String {
        let bearer = Bearer {
            subject: format!("{role}@bonito.test"),
            role,
            organization,
            team,
            user,
            session: None,
        };
        let signed = ManagementTokens::new(&self.master_key).sign(&bearer, Utc::now(), Duration::from_secs(600));
        signed.expect("the token can be signed")
    }

    /// A token of a session that is over.
    pub fn revoked_token(&self, role: Role) -> String {
        let session = Session {
            id: Uuid::now_v7(),
            revision: 1,
            via: Via::Password,
        };
        let bearer = Bearer {
            subject: "somebody who was signed in".into(),
            role,
            organization: self.organization,
            team: None,
            user: Some(UserId(Uuid::now_v7())),
            session: Some(session),
        };
        let signed = ManagementTokens::new(&self.master_key).sign(&bearer, Utc::now(), Duration::from_secs(600));
        signed.expect("the token can be signed")
    }

    /// How many rows the audit logs of all organizations have together.
    pub async fn all_audit_rows(&self) -> usize {
        let contents = self.contents().await;
        let log = contents.iter().find(|(table, _)| table == "audit_log");
        let (_, rows) = log.expect("there is an audit log");
        rows.lines().count()
    }

    /// A request to the management API.
    pub async fn manage(&self, method: &str, path: &str, token: &str, body: Option<&Value>) -> Reply {
        self.manage_with(method, path, token, body, &[]).await
    }

    /// The same with headers.
    pub async fn manage_with(
        &self,
        method: &str,
        path: &str,
        token: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Reply {
        let method: reqwest::Method = method.parse().expect("a method");
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.api))
            .bearer_auth(token);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        read(request.send().await.expect("the gateway answers")).await
    }

    /// Replaces the organization's config, whatever it is.
    pub async fn configure(&self, config: &Value) -> Reply {
        let token = self.token(Role::Admin);
        let any = [("if-match", "*")];
        let reply = self
            .manage_with("PUT", "/api/gateway/config", &token, Some(config), &any)
            .await;
        assert_eq!(reply.status, 200, "{} {config}", reply.text);
        reply
    }

    /// What requests pass through.
    pub fn pipeline(&self) -> Arc<Pipeline> {
        self.running
            .as_ref()
            .expect("the gateway runs")
            .gateway()
            .http
            .pipeline
            .clone()
    }

    /// The gate of a provider's one credential, with its actor behind it. A first request to a model that it serves makes it.
    pub async fn gate_of(&self, provider: &str, model: &str) -> Arc<ProviderGate> {
        let reply = self.chat(model, "hi").await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let board = self.pipeline().board.clone();
        let is_of = |gate: &Arc<ProviderGate>| gate.watched.spot.provider.as_str() == provider && gate.is_listened_to();
        loop {
            if let Some(gate) = board.gates().into_iter().find(is_of) {
                return gate;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// Where its database is.
    pub fn database_url(&self) -> &str {
        &self.database
    }

    /// Its master key.
    pub fn master_key(&self) -> &MasterKey {
        &self.master_key
    }

    /// A well-formed key that nobody was given.
    pub fn foreign_key(&self) -> String {
        new_api_key().expose().to_owned()
    }

    /// The ledger row of an answer, as soon as it is there.
    pub async fn row(&self, reply: &Reply) -> RequestRow {
        self.row_of(reply.request_id()).await
    }

    /// The ledger row of a request, as soon as it is there.
    pub async fn row_of(&self, id: RequestId) -> RequestRow {
        let find = async {
            loop {
                if let Some(row) = self
                    .store
                    .request(self.organization, id)
                    .await
                    .expect("the database answers")
                {
                    return row;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, find)
            .await
            .unwrap_or_else(|_| panic!("request {id} never reached the ledger"))
    }

    /// The rows of an answer's attempts.
    pub async fn attempts(&self, reply: &Reply) -> Vec<AttemptRow> {
        self.row(reply).await;
        self.store
            .attempts_of(self.organization, reply.request_id())
            .await
            .expect("the database answers")
    }

    /// Waits until so many requests are in the ledger, and sums them.
    pub async fn totals_of(&self, requests: i64) -> Totals {
        let find = async {
            loop {
                let totals = self
                    .store
                    .totals(self.organization)
                    .await
                    .expect("the database answers");
                if totals.requests >= requests {
                    return totals;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, find)
            .await
            .unwrap_or_else(|_| panic!("{requests} rows never came"))
    }

    /// Kills the actors that hear these messages, in the middle of whatever they do, as soon as there are so many.
    pub async fn kill<M: ractor::Message>(&self, count: usize) {
        let running = self.running.as_ref().expect("the gateway runs");
        let find = async {
            loop {
                let (mut actors, mut found) = (vec![running.gateway().root.0.get_cell()], Vec::new());
                while let Some(actor) = actors.pop() {
                    actors.extend(actor.get_children());
                    if actor.is_message_type_of::<M>() == Some(true) && actor.get_status() == ActorStatus::Running {
                        found.push(actor);
                    }
                }
                if found.len() == count {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, find)
            .await
            .unwrap_or_else(|_| panic!("there were never {count} of them"));
        found.iter().for_each(ractor::ActorCell::kill);
    }

    /// Ends it as a crash would: nobody writes, renews or gives back anything any more. Its threads are left to the end of
    /// the test.
    pub async fn crash(mut self) {
        let running = self.running.take().expect("the gateway runs");
        let mut actors = vec![running.gateway().root.0.get_cell()];
        while let Some(actor) = actors.pop() {
            actors.extend(actor.get_children());
            actor.kill();
        }
        let ended = async {
            while running.gateway().root.0.get_status() != ActorStatus::Stopped {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.expect("the actors end");
    }

    /// Every file of the gateway's data directory and of those in it, with what is in it.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        let mut files = Vec::new();
        let mut directories = vec![self.dir.path().to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).expect("the directory can be read") {
                let path = entry.expect("the directory can be read").path();
                if path.is_dir() {
                    directories.push(path);
                } else if let Ok(bytes) = std::fs::read(&path) {
                    // What is gone by now was a segment of the journal.
                    files.push((path.display().to_string(), bytes));
                }
            }
        }
        files
    }

    /// Where its database is, on SQLite.
    pub fn database_file(&self) -> PathBuf {
        self.dir.path().join(database::FILE)
    }

    /// Runs a statement in the gateway's database, past the gateway.
    pub async fn sql(&self, statement: &str) {
        let database = sea_orm::Database::connect(&self.database)
            .await
            .expect("the database can be reached");
        database
            .execute_unprepared(statement)
            .await
            .unwrap_or_else(|error| panic!("{error}: {statement}"));
        database.close().await.expect("the connection closes");
    }

    /// What a query says that answers with one whole number, called `n`, past the gateway.
    pub async fn number(&self, query: &str) -> i64 {
        let database = sea_orm::Database::connect(&self.database)
            .await
            .expect("the database can be reached");
        let statement = sea_orm::Statement::from_string(database.get_database_backend(), query);
        let row = database.query_one_raw(statement).await.expect("the database answers");
        database.close().await.expect("the connection closes");
        row.expect("there is a row").try_get("", "n").expect("it has a number")
    }

    /// Everything in the gateway's database but what its replicas and its background jobs write all the time, by table, in
    /// a form that can be compared.
    pub async fn contents(&self) -> Vec<(String, String)> {
        use sea_orm::{DatabaseBackend, FromQueryResult as _, JsonValue, Statement};
        const RESTLESS: [&str; 10] = [
            "gateway_export_pieces",
            "gateway_exports",
            "gateway_health_history",
            "gateway_price_versions",
            "gateway_replicas",
            "gateway_jobs",
            "gateway_job_schedules",
            "usage_pending",
            "usage_hourly",
            "usage_daily",
        ];
        let database = sea_orm::Database::connect(&self.database)
            .await
            .expect("the database can be reached");
        let ask = async |sql: String| {
            let statement = Statement::from_string(database.get_database_backend(), sql);
            JsonValue::find_by_statement(statement)
                .all(&database)
                .await
                .expect("it answers")
        };
        let sqlite = database.get_database_backend() == DatabaseBackend::Sqlite;
        let tables = ask(if sqlite {
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name".into()
        } else {
            "SELECT tablename::text AS name FROM pg_tables WHERE schemaname = current_schema() ORDER BY 1".into()
        });
        let mut contents = Vec::new();
        for table in tables.await {
            let table = table["name"].as_str().expect("it is a name").to_owned();
            if RESTLESS.contains(&table.as_str()) {
                continue;
            }
            let rows = if sqlite {
                let columns = ask(format!(
                    "SELECT name FROM pragma_table_info('{table}') WHERE name <> 'last_used_at'"
                ))
                .await;
                let quoted = columns
                    .iter()
                    .map(|column| format!("quote(\"{}\")", column["name"].as_str().expect("it is a name")));
                let row = quoted.collect::<Vec<_>>().join(" || ',' || ");
                format!("SELECT {row} AS line FROM \"{table}\" ORDER BY 1")
            } else {
                // When a key was last used is written down once a minute, whatever else is done.
                format!("SELECT (to_jsonb(t) - 'last_used_at')::text AS line FROM \"{table}\" t ORDER BY 1")
            };
            let lines = ask(rows).await;
            let lines = lines
                .iter()
                .map(|line| line["line"].as_str().unwrap_or_default().to_owned());
            contents.push((table, lines.collect::<Vec<_>>().join("\n")));
        }
        database.close().await.expect("the connection closes");
        contents
    }

    /// Stops the gateway as a signal would, and says how it ended and whether anything was left over.
    pub async fn stop(&mut self) -> End {
        let running = self.running.take().expect("the gateway runs");
        let pipelines = running.pipelines();
        let (journal, metrics) = (running.gateway().journal.clone(), running.gateway().metrics.clone());
        let board = running.gateway().board.clone();
        let measurements = running.gateway().http.pipeline.measurements.clone();
        let limiter = running.gateway().limiter.clone();
        let end = running.stop().await;
        for gate in board.gates() {
            assert_eq!(gate.permits(), 0, "a permit to probe {} is left over", gate.watched);
        }
        assert_eq!(limiter.under_way(), 0, "requests still count against their limits");
        assert_eq!(journal.used(), 0, "slots of the journal are left over");
        assert_eq!(metrics.in_flight.get(), 0, "requests are left over");
        assert_eq!(measurements.in_flight(), 0, "attempts are left over");
        let gone = async {
            while pipelines.iter().any(|pipeline| pipeline.upgrade().is_some()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, gone)
            .await
            .expect("a task is left over that holds the pipeline");
        end
    }

    /// Stops the gateway and expects that everything went well.
    pub async fn finish(mut self) {
        // Idle connections of the client would be waited for.
        self.client = reqwest::Client::new();
        assert_eq!(self.stop().await, End::Clean);
    }
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        if self.running.is_some() && !std::thread::panicking() {
            panic!("a test must end its gateway with finish(), which checks that nothing is left over");
        }
    }
}

/// A chat with one user message.
pub fn chat(model: &str, text: &str, stream: bool) -> Value {
    let messages = json!([{"role": "user", "content": text}]);
    if stream {
        json!({"model": model, "messages": messages, "stream": true})
    } else {
        json!({"model": model, "messages": messages})
    }
}

/// Reads an answer to its end, complete or not.
pub async fn read(mut response: reqwest::Response) -> Reply {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let mut bytes = Vec::new();
    let complete = loop {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => break true,
            Err(_) => break false,
        }
    };
    Reply {
        status,
        headers,
        text: String::from_utf8_lossy(&bytes).into_owned(),
        complete,
    }
}
