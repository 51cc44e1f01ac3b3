//! The management API: who may, the config and its versions, and what is said about routing.

use std::time::{Duration, Instant};

use bonito::domain::audit::Author;
use bonito::domain::ids::{TeamId, UserId};
use bonito::domain::key::NewTeam;
use bonito::domain::limit::{LimitOwner, LimitValues};
use bonito::domain::role::{Right, Role};
use bonito::domain::scope::Scope;
use bonito::domain::user::{Email, NewUser, UserCreated};
use bonito::domain::webhook::WebhookTerms;
use bonito::http::management::specification;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::audit::rows;
use crate::promises::{figures, full};
use crate::support::gateway::{Reply, chat};
use crate::support::{ScriptedProvider, TestGateway};

const CONFIG: &str = "/api/gateway/config";

#[tokio::test]
async fn the_management_document_is_what_it_was() {
    let document: Value = serde_json::from_str(&specification("http://127.0.0.1:8001")).unwrap();
    insta::assert_json_snapshot!("management_openapi", document);
}

/// The schema that a part of the document refers to.
fn schema<'d>(document: &'d Value, part: &Value) -> &'d Value {
    let name = part["$ref"].as_str().and_then(|reference| reference.rsplit('/').next());
    name.map_or(&Value::Null, |name| &document["components"]["schemas"][name])
}

#[test]
fn every_operation_is_described_shown_by_examples_and_has_its_own_refusals_and_no_others() {
    let document: Value = serde_json::from_str(&specification("http://127.0.0.1:8001")).unwrap();
    let (mut operations, mut bodies, mut answers) = (0, 0, 0);
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            operations += 1;
            for words in ["summary", "description"] {
                let said = operation[words].as_str().unwrap_or_default();
                assert!(said.len() >= 5, "{id} has no {words}");
            }
            // A whole object or a page of them is shown by an example.
            let shown = |content: &Value| {
                let of = schema(&document, &content["application/json; charset=utf-8"]["schema"]);
                let one = schema(&document, &of["properties"]["data"]["items"]);
                of["example"].is_object() || one["example"].is_object()
            };
            let body = &operation["requestBody"];
            if body.is_object() {
                assert!(shown(&body["content"]), "the body of {id} has no example");
                bodies += 1;
            }
            let responses = operation["responses"].as_object().unwrap();
            for (status, response) in responses.iter().filter(|(status, _)| status.starts_with('2')) {
                let content = response["content"].as_object();
                if content.is_some_and(|content| content.contains_key("application/json; charset=utf-8")) {
                    assert!(shown(&response["content"]), "{id} has no example of its {status}");
                    answers += 1;
                }
            }
            // What needs a body can be too large, too late or of another kind; what needs none can be none of these.
            let has = |status: &str| responses.contains_key(status);
            for status in ["408", "413", "415"] {
                assert_eq!(has(status), body.is_object(), "{status} of {id}");
            }
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let conditional = parameters.into_iter().any(|parameter| parameter["name"] == "If-Match");
            assert_eq!(has("412"), conditional, "412 of {id}");
            assert!(!has("428") || conditional, "428 of {id}");
            assert_eq!(
                has("429"),
                path.starts_with("/api/auth") && !matches!(id, "logout" | "getMe"),
                "429 of {id}"
            );
            let reads = method == "get" && !path.starts_with("/api/auth/oidc");
            assert!(
                !reads || !has("409") || matches!(id, "getModel" | "fetchExport"),
                "409 of {id}"
            );
            assert!(!reads || !has("422"), "422 of {id}");
            assert!(["400", "401", "503"].into_iter().all(has), "{id}");
        }
    }
    assert!(
        operations >= 86 && bodies >= 31 && answers >= 60,
        "{operations} {bodies} {answers}"
    );
}

/// Places of a body that name something which the examples only make up.
const MADE_UP: [&str; 8] = [
    "/reference",
    "/team_id",
    "/provider",
    "/providers/house",
    "/prices",
    "/model",
    "/deployment",
    "/name",
];

#[tokio::test]
async fn the_examples_of_the_document_are_taken_as_they_are() {
    let gateway = TestGateway::builder().start().await;
    let document: Value = serde_json::from_str(&specification("http://127.0.0.1:8001")).unwrap();
    let (mut tried, mut not_taken) = (0, Vec::new());
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let content = &operation["requestBody"]["content"]["application/json; charset=utf-8"];
            let example = &schema(&document, &content["schema"])["example"];
            if !example.is_object() {
                continue;
            }
            tried += 1;
            // Of the things in paths there are none; the endpoint is made by the first of its examples.
            let path = match path.as_str() {
                path if path.contains("/providers/") => path.replace("{id}", "house"),
                path => path.replace("{id}", "0199e1c2-0000-7000-8000-000000000000"),
            };
            let token = gateway.token(Role::PlatformAdmin);
            let any = [("if-match", "*")];
            let reply = gateway
                .manage_with(&method.to_uppercase(), &path, &token, Some(example), &any)
                .await;
            let pointers = reply.text.starts_with('{').then(|| reply.json()["errors"].clone());
            let faults: Vec<String> = (pointers.iter().filter_map(Value::as_array).flatten())
                .filter_map(|fault| fault["pointer"].as_str().map(str::to_owned))
                .filter(|pointer| !MADE_UP.iter().any(|made_up| pointer.ends_with(made_up)))
                .filter(|pointer| !pointer.contains("/fallback_models/") && !pointer.contains("/then/route"))
                .collect();
            if !faults.is_empty() || matches!(reply.status, 400 | 415 | 500..) {
                not_taken.push(format!("{method} {path}: {} {}", reply.status, reply.text));
            }
        }
    }
    assert!(not_taken.is_empty(), "{not_taken:#?}");
    assert!(tried >= 31, "{tried}");
    gateway.finish().await;
}

#[tokio::test]
async fn the_document_and_its_page_are_served_without_a_token() {
    let gateway = TestGateway::builder().start().await;
    let document = gateway.get("/openapi/management.json", "").await;
    assert_eq!(
        (document.status, document.json()["openapi"].as_str()),
        (200, Some("3.0.0"))
    );
    let page = gateway.get("/docs/management", "").await;
    assert!(page.status == 200 && page.text.contains("/openapi/management.json"));
    gateway.finish().await;
}

/// Operations for everybody.
const OPEN: [&str; 4] = ["login", "refresh", "startOidc", "finishOidc"];

/// Every operation of the document, with a path that can be asked for and a body that it takes.
fn operations() -> Vec<(String, String, Option<Value>, Right)> {
    let document: Value = serde_json::from_str(&specification("http://127.0.0.1")).unwrap();
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            // An operation that is not here is one whose rights nobody has thought of.
            let (right, body) = match id {
                "getConfig" | "listConfigVersions" | "getConfigVersion" => (Right::ReadConfig, None),
                "putConfig" => (Right::WriteConfig, Some(json!({}))),
                "restoreConfigVersion" => (Right::WriteConfig, None),
                "explainRouting" => (Right::ReadConfig, Some(json!({"model": "echo"}))),
                "simulateRouting" => (Right::ReadConfig, Some(json!({"config": {}}))),
                "listProviders" | "getProvider" | "getProviderHealth" | "listPrices" => (Right::ReadProviders, None),
                "listModels" | "getModel" => (Right::ReadProviders, None),
                "putModels" => (Right::WriteConfig, Some(json!({"models": []}))),
                "createModel" => (
                    Right::WriteConfig,
                    Some(json!({"provider": "echo", "model": "made-{n}"})),
                ),
                "putModel" => (
                    Right::WriteConfig,
                    Some(json!({"provider": "echo", "model": "{model}"})),
                ),
                "listRepricings" | "getRepricing" => (Right::ReadProviders, None),
                "repricePrices" => {
                    let past = json!({"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z", "dry_run": true});
                    (Right::Reprice, Some(past))
                }
                "deleteModel" | "deleteProvider" => (Right::WriteConfig, None),
                "putProvider" => (Right::WriteConfig, Some(json!({"base_url": "https://llm.invalid/v1"}))),
                "updateProvider" => (Right::WriteConfig, Some(json!({"enabled": true}))),
                "putPrices" => (Right::WriteConfig, Some(json!({"prices": []}))),
                "diffConfigVersion" => (Right::ReadConfig, None),
                "putProviderCredential" => (Right::WriteProviders, Some(json!({"values": {"api_key": "sk-matrix"}}))),
                "deleteProviderCredential" => (Right::WriteProviders, None),
                "testProvider" => (Right::WriteProviders, Some(json!({}))),
                "getRequestPayload" => (Right::ReadPayloads, None),
                "listAudit" => (Right::ReadAudit, None),
                "getUsage" | "exportUsage" | "getInsights" => (Right::ReadUsage, None),
                "listLogs" | "exportLogs" | "getLog" => (Right::ReadLogs, None),
                "listJobs" | "listBatches" | "listExports" | "getExport" | "fetchExport" => (Right::ReadJobs, None),
                "createExport" => (Right::Export, Some(json!({"of": "requests"}))),
                "deleteExport" => (Right::Export, None),
                "retryJob" => (Right::RetryJobs, None),
                "listKeys" | "getKey" | "getKeyPolicy" => (Right::ReadKeys, None),
                "createKey" => (Right::WriteKeys, Some(json!({"name": "matrix"}))),
                "updateKey" => (Right::WriteKeys, Some(json!({"name": "changed"}))),
                "revokeKey" => (Right::WriteKeys, None),
                "rotateKey" => (Right::WriteKeys, Some(json!({}))),
                "listRateLimits" | "getRateLimit" => (Right::ReadLimits, None),
                "createRateLimit" => {
                    let limit = json!({"scope": "key", "reference": "{key}", "requests_per_minute": 5});
                    (Right::WriteLimits, Some(limit))
                }
                "updateRateLimit" => (Right::WriteLimits, Some(json!({"enabled": false}))),
                "listBudgets" | "getBudget" => (Right::ReadLimits, None),
                "createBudget" => {
                    let budget = json!({"scope": "key", "reference": "{key}", "amount_usd": "5", "period": "daily"});
                    (Right::WriteLimits, Some(budget))
                }
                "updateBudget" => (Right::WriteLimits, Some(json!({"amount_usd": "6"}))),
                "deleteRateLimit" | "deleteBudget" => (Right::WriteLimits, None),
                // Whoever calls these proves who they are by what they send.
                open if OPEN.contains(&open) => continue,
                "getMe" | "logout" => (Right::OwnAccount, None),
                "changePassword" => {
                    let change = json!({"current_password": "x", "new_password": "a long enough password"});
                    (Right::OwnAccount, Some(change))
                }
                "listOrganizations" | "getOrganization" => (Right::ReadOrganization, None),
                "updateOrganization" => (Right::WriteOrganization, Some(json!({"name": "changed"}))),
                "createOrganization" => (Right::ManageOrganizations, Some(json!({"slug": "made-{n}"}))),
                "deleteOrganization" => (Right::ManageOrganizations, None),
                "listTeams" | "getTeam" => (Right::ReadTeams, None),
                "createTeam" => (Right::WriteTeams, Some(json!({"slug": "made-{n}"}))),
                "updateTeam" => (Right::WriteTeams, Some(json!({"name": "changed"}))),
                "deleteTeam" => (Right::WriteTeams, None),
                "listUsers" | "getUser" => (Right::ReadUsers, None),
                "createUser" => {
                    let user = json!({"email": "made-{n}@example.com", "role": "viewer", "external": true});
                    (Right::WriteUsers, Some(user))
                }
                "updateUser" => (Right::WriteUsers, Some(json!({"name": "changed"}))),
                "deleteUser" => (Right::WriteUsers, None),
                "listWebhooks" => (Right::ReadWebhooks, None),
                "getWebhook" | "listWebhookDeliveries" => (Right::ReadWebhooks, None),
                "createWebhook" => {
                    let webhook = json!({"url": "https://hooks.invalid/x"});
                    (Right::WriteWebhooks, Some(webhook))
                }
                "changeWebhook" | "rotateWebhook" => (Right::WriteWebhooks, Some(json!({}))),
                "deleteWebhook" | "testWebhook" | "replayWebhookDelivery" => (Right::WriteWebhooks, None),
                other => panic!("{other} has no place in the matrix of rights"),
            };
            operations.push((method.to_uppercase(), path.replace("{version}", "1"), body, right));
        }
    }
    assert!(!operations.is_empty());
    operations
}

/// Things of one team and one user that operations can be about.
struct Things {
    team: TeamId,
    user: UserId,
}

impl Things {
    async fn new(gateway: &TestGateway) -> Self {
        let (team, _) = gateway.new_team("matrix", Scope::default(), Scope::default()).await;
        let user = UserId(Uuid::now_v7());
        gateway.new_user(user).await;
        Self { team, user }
    }

    /// A path and a body with the ids of things that are there, made for this one request.
    async fn fill(&self, gateway: &TestGateway, path: &str, body: Option<&Value>) -> (String, Option<Value>) {
        let unique = Uuid::now_v7().simple().to_string();
        let numbered = body.map(|body| body.to_string().replace("{n}", &unique[20..]));
        let body: Option<Value> = numbered.map(|body| serde_json::from_str(&body).unwrap());
        if path.starts_with("/api/gateway/webhooks") {
            return (self.fill_webhook(gateway, path).await, body);
        }
        if path.starts_with("/api/gateway/models/{id}") {
            return self.fill_model(gateway, path, body).await;
        }
        if path.starts_with("/api/gateway/exports") {
            return (self.fill_export(gateway, path).await, body);
        }
        if path.starts_with("/api/gateway/prices/reprice") {
            return (self.fill_repricing(gateway, path).await, body);
        }
        let about_one = path.contains("{id}") || body.as_ref().is_some_and(|body| body.to_string().contains("{key}"));
        if !about_one {
            return (path.to_owned(), body);
        }
        if is_about_nothing(path) {
            return (path.replace("{id}", &Uuid::now_v7().to_string()), body);
        }
        if let Some(id) = self.somebody(gateway, path, &unique[20..]).await {
            return (path.replace("{id}", &id.to_string()), body);
        }
        if path.starts_with("/api/gateway/providers/") {
            let endpoint = json!({"base_url": "https://llm.invalid/v1"});
            if path == "/api/gateway/providers/{id}#" {
                // There is one to take away.
                let (path, admin) = (path.replace("{id}", "made-llm"), gateway.token(Role::Admin));
                let put = gateway.manage("PUT", path.trim_end_matches('#'), &admin, Some(&endpoint));
                assert_eq!(put.await.status, 200);
                return (path, body);
            }
            if body.as_ref() == Some(&endpoint) {
                return (path.replace("{id}", "made-llm"), body);
            }
            if !path.trim_end_matches('#').ends_with("/credentials") {
                return (path.replace("{id}", "echo"), body);
            }
            let path = path.replace("{id}", "openai");
            // There is one to take away.
            let admin = gateway.token(Role::Admin);
            let stored = json!({"values": {"api_key": "sk-matrix"}});
            assert_eq!(
                gateway
                    .manage("PUT", path.trim_end_matches('#'), &admin, Some(&stored))
                    .await
                    .status,
                200
            );
            return (path, body);
        }
        let (key, secret) = gateway.new_key_in(Some(self.team), Some(self.user)).await;
        let id = match path {
            path if path.starts_with("/api/gateway/logs/") => {
                let asked = chat("echo", "hello", false).to_string();
                let reply = gateway.send("/v1/chat/completions", &secret, asked).await;
                gateway.row_of(reply.request_id()).await.id
            }
            path if path.starts_with("/api/gateway/rate-limits/") => {
                let one = LimitValues {
                    requests: Some(7),
                    ..LimitValues::default()
                };
                gateway.new_limit(LimitOwner::Key(key), None, one).await
            }
            path if path.starts_with("/api/gateway/budgets/") => gateway.new_budget(key).await,
            _ => key.0,
        };
        let body = body.map(|body| body.to_string().replace("{key}", &key.to_string()));
        let body = body.map(|body| serde_json::from_str(&body).unwrap());
        (path.replace("{id}", &id.to_string()), body)
    }

    /// An organization, a team or a user that a path can be about. A `#` at the end of the path asks for one that can be
    /// deleted.
    async fn somebody(&self, gateway: &TestGateway, path: &str, unique: &str) -> Option<Uuid> {
        let store = &gateway.store;
        match path {
            "/api/organizations/{id}" => Some(gateway.organization.0),
            "/api/organizations/{id}#" => {
                let slug = format!("gone-{unique}");
                Some(store.create_organization(&slug, "Gone").await.unwrap().0)
            }
            "/api/teams/{id}" => Some(self.team.0),
            "/api/teams/{id}#" => {
                let (team, slug) = (TeamId(Uuid::now_v7()), format!("gone-{unique}"));
                let new = NewTeam {
                    id: team,
                    organization: gateway.organization,
                    slug,
                    name: "Gone".into(),
                    scope: Scope::default(),
                };
                store.create_team(new).await.unwrap();
                Some(team.0)
            }
            path if path.starts_with("/api/users/{id}") => {
                let new = NewUser {
                    id: UserId(Uuid::now_v7()),
                    organization: gateway.organization,
                    team: Some(self.team),
                    email: Email::parse(&format!("somebody-{unique}@example.com")).unwrap(),
                    name: "Somebody".into(),
                    role: Role::Viewer,
                    password_hash: None,
                    must_change_password: false,
                };
                let id = new.id;
                let by = Author::system("first start");
                assert!(matches!(store.create_user(new, &by).await, Ok(UserCreated::Created(_))));
                Some(id.0)
            }
            _ => None,
        }
    }
}

impl Things {
    /// The same for models of the organization's own, whose ids say what they are.
    async fn fill_model(&self, gateway: &TestGateway, path: &str, body: Option<Value>) -> (String, Option<Value>) {
        let model = format!("made-{}", &Uuid::now_v7().simple().to_string()[20..]);
        let made = json!({"provider": "echo", "model": model});
        let admin = gateway.token(Role::Admin);
        let added = gateway.manage("POST", "/api/gateway/models", &admin, Some(&made)).await;
        assert_eq!(added.status, 201, "{}", added.text);
        let path = path.replace("{id}", &format!("echo%2F{model}"));
        (path, body.map(|_| made))
    }

    /// The same for exports, of which there may be only so many. One that can be fetched is written.
    async fn fill_export(&self, gateway: &TestGateway, path: &str) -> String {
        let (all, admin) = ("/api/gateway/exports", gateway.token(Role::Admin));
        let kept = gateway.manage("GET", all, &admin, None).await.json();
        for export in kept["data"].as_array().unwrap() {
            let path = format!("{all}/{}", export["id"].as_str().unwrap());
            assert_eq!(gateway.manage("DELETE", &path, &admin, None).await.status, 204);
        }
        if !path.contains("{id}") {
            return path.to_owned();
        }
        let asked = json!({"of": "usage"});
        let begun = gateway.manage("POST", all, &admin, Some(&asked)).await;
        assert_eq!(begun.status, 202, "{}", begun.text);
        let one = begun.header("location").to_owned();
        while gateway.manage("GET", &one, &admin, None).await.json()["state"] == "running" {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        path.replace("{id}", begun.json()["id"].as_str().unwrap())
    }

    /// The same for re-pricings, of which one can be under way at a time.
    async fn fill_repricing(&self, gateway: &TestGateway, path: &str) -> String {
        let (all, admin) = ("/api/gateway/prices/reprice", gateway.token(Role::Admin));
        let mut id = String::new();
        if path.contains("{id}") {
            let past = json!({"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z", "dry_run": true});
            let begun = gateway.manage("POST", all, &admin, Some(&past)).await;
            assert_eq!(begun.status, 202, "{}", begun.text);
            id = begun.json()["id"].as_str().unwrap().to_owned();
        }
        while gateway
            .manage("GET", all, &admin, None)
            .await
            .text
            .contains("\"running\"")
        {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        path.replace("{id}", &id)
    }

    /// The same for what is about webhooks, of which there may be few.
    async fn fill_webhook(&self, gateway: &TestGateway, path: &str) -> String {
        let (store, organization) = (&gateway.store, gateway.organization);
        for old in store.webhooks(organization, None, 100).await.unwrap() {
            store
                .delete_webhook(organization, old.id, &Author::system("test"))
                .await
                .unwrap();
        }
        let terms = WebhookTerms {
            url: "https://hooks.invalid/x".into(),
            description: String::new(),
            events: Vec::new(),
            enabled: false,
        };
        let id = Uuid::now_v7();
        store
            .create_webhook(organization, id, &terms, String::new(), &Author::system("test"))
            .await
            .unwrap();
        let delivery = store
            .test_webhook(organization, id, &Author::system("test"))
            .await
            .unwrap()
            .unwrap()
            .id;
        path.replace("{id}", &id.to_string())
            .replace("{delivery}", &delivery.to_string())
    }
}

/// Whether an operation is about something that none is made of here: a job that was given up, a payload that was kept.
fn is_about_nothing(path: &str) -> bool {
    path.starts_with("/api/gateway/jobs/") || path.ends_with("/payload")
}

/// Whether an operation was done, or would have been if what it is about were there.
fn is_done(path: &str, status: u16) -> bool {
    let script = ["/api/auth/logout", "/api/auth/password"].contains(&path);
    match status {
        200 | 201 | 202 | 204 => !is_about_nothing(path) && !script,
        404 => is_about_nothing(path),
        // The tokens here are of no session.
        409 => script,
        _ => false,
    }
}

/// Whether an operation only asks, though its method would let it change something.
fn only_asks(method: &str, path: &str) -> bool {
    method == "GET" || path.starts_with("/api/gateway/routing/")
}

fn is_problem(reply: &Reply, status: u16) {
    assert_eq!(reply.status, status, "{}", reply.text);
    assert_eq!(
        reply.headers[CONTENT_TYPE], "application/problem+json",
        "{}",
        reply.text
    );
    assert_eq!(reply.json()["status"], status);
    assert_eq!(reply.header("cache-control"), "no-store");
}

/// Calls with a path that the document has, as somebody would.
struct Call<'g> {
    gateway: &'g TestGateway,
    method: &'g str,
}

impl Call<'_> {
    async fn by(&self, token: &str, path: &str, body: Option<&Value>, organization: Option<&str>) -> Reply {
        let mut headers = vec![("if-match", "*")];
        headers.extend(organization.map(|organization| ("x-bonito-organization", organization)));
        let path = path.trim_end_matches('#');
        self.gateway.manage_with(self.method, path, token, body, &headers).await
    }
}

/// P26: every operation, by every role of this organization and of another one, by nobody, and by whoever was somebody
/// once. Who is refused has changed nothing in the database, and what is somebody else's answers like what is not there.
#[tokio::test]
async fn p26_every_operation_is_for_the_roles_that_have_the_right_in_their_own_organization() {
    let gateway = TestGateway::builder().start().await;
    gateway.configure(&json!({})).await;
    let other = gateway.store.create_organization("other", "Other").await.unwrap();
    let mine = gateway.organization.to_string();
    let things = Things::new(&gateway).await;
    let token = |role, organization| gateway.token_of(role, organization, Some(things.team), Some(things.user));
    let revoked = gateway.revoked_token(Role::PlatformAdmin);
    // How far the times of what is somebody else's and of what is not there are apart, at most, and for how many operations.
    let (mut apart, mut compared) = (Duration::ZERO, 0);
    for (method, template, of_template, right) in operations() {
        // What is deleted is made for it.
        let template = if method == "DELETE" {
            format!("{template}#")
        } else {
            template
        };
        let call = Call {
            gateway: &gateway,
            method: &method,
        };
        let tenants = template.starts_with("/api/organizations");
        let (path, body) = things.fill(&gateway, &template, of_template.as_ref()).await;
        let nobody = Uuid::now_v7().to_string();
        let missing = template.replace("{id}", &nobody).replace("{delivery}", &nobody);
        let foreign_key = body.as_ref().is_some_and(|body| body.get("reference").is_some());

        let before = gateway.contents().await;
        let without = gateway.client.request(
            method.parse().unwrap(),
            format!("{}{}", gateway.api, path.trim_end_matches('#')),
        );
        let without = crate::support::gateway::read(without.send().await.unwrap()).await;
        is_problem(&without, 401);
        assert_eq!(without.header("www-authenticate"), "Bearer realm=\"bonito management\"");
        is_problem(&call.by(&revoked, &path, body.as_ref(), None).await, 401);
        for role in Role::ALL {
            let (own, foreign) = (token(role, gateway.organization), token(role, other));
            if !role.may(right) {
                is_problem(&call.by(&own, &path, body.as_ref(), None).await, 403);
            }
            // Somebody of another organization, who names this one.
            if !role.everywhere() {
                let reply = call.by(&foreign, &path, body.as_ref(), Some(&mine)).await;
                is_problem(&reply, if role.may(right) { 404 } else { 403 });
            }
            // Somebody of another organization, who knows an id. Providers and models are called the same everywhere.
            let by_name = ["/api/gateway/providers/", "/api/gateway/models/"];
            let everywhere = tenants && role.everywhere() || by_name.iter().any(|prefix| template.starts_with(prefix));
            if template.contains("{id}") && !everywhere {
                let theirs = call.by(&foreign, &path, body.as_ref(), None).await;
                let nobodys = call.by(&foreign, &missing, body.as_ref(), None).await;
                let same = (theirs.status, &theirs.text) == (nobodys.status, &nobodys.text);
                assert!(
                    same && theirs.status >= 403,
                    "{role} {method} {path}: {} {}",
                    theirs.text,
                    nobodys.text
                );
                if full() && matches!(role, Role::Admin) && role.may(right) && method == "GET" {
                    let [theirs, nobodys] = medians(&call, &foreign, [&path, &missing]).await;
                    let between = theirs.abs_diff(nobodys);
                    assert!(
                        between < nobodys / 4 + Duration::from_millis(1),
                        "{path}: {theirs:?}, and {nobodys:?} where nothing is"
                    );
                    (apart, compared) = (apart.max(between), compared + 1);
                }
            }
            if foreign_key {
                let reply = call.by(&foreign, &path, body.as_ref(), None).await;
                assert!(
                    matches!(reply.status, 403 | 404 | 422),
                    "{role} {method} {path}: {}",
                    reply.text
                );
            }
        }
        let after = gateway.contents().await;
        for ((table, before), (_, after)) in before.iter().zip(&after) {
            assert_eq!(
                before, after,
                "{method} {path} changed {table} for somebody who was refused"
            );
        }

        for role in Role::ALL.into_iter().filter(|role| role.may(right)) {
            let own = token(role, gateway.organization);
            let (path, body) = things.fill(&gateway, &template, of_template.as_ref()).await;
            // What becomes of an organization is in its own log.
            let whose = if tenants && method != "PATCH" {
                None
            } else {
                Some(gateway.organization)
            };
            let recorded = async || match whose {
                Some(organization) => rows(&gateway, organization).await.len(),
                None => gateway.all_audit_rows().await,
            };
            let rows_before = recorded().await;
            let reply = call.by(&own, &path, body.as_ref(), None).await;
            let rows = recorded().await - rows_before;
            let plain = path.trim_end_matches('#');
            assert!(
                is_done(plain, reply.status),
                "{role} {method} {path}: {} {}",
                reply.status,
                reply.text
            );
            let expected = usize::from(!only_asks(&method, &path) && reply.status < 300);
            assert_eq!(rows, expected, "rows of the audit log: {role} {method} {path}");
            if role.everywhere() {
                let (path, body) = things.fill(&gateway, &template, of_template.as_ref()).await;
                let reply = call.by(&token(role, other), &path, body.as_ref(), Some(&mine)).await;
                let plain = path.trim_end_matches('#');
                assert!(is_done(plain, reply.status), "{role} {method} {path}: {}", reply.text);
                if right != Right::ReadProviders && right != Right::OwnAccount && !tenants {
                    let nowhere = Uuid::now_v7().to_string();
                    let reply = call.by(&own, &path, body.as_ref(), Some(&nowhere)).await;
                    // An organization without a config has an empty one, whether or not it exists; and what a body
                    // names does not exist in one that does not.
                    let nothing = reply.status == 404 || reply.status == 422 && reply.text.contains("/reference");
                    assert!(nothing || method == "GET", "{method} {path}: {}", reply.text);
                }
            }
        }
    }
    gateway.finish().await;
    if full() {
        assert!(compared > 0);
        figures(
            "P26",
            format_args!("{compared} operations: medians of foreign and missing ids at most {apart:?} apart"),
        );
    }
}

/// How long two questions take that are asked in turns: the medians.
async fn medians(call: &Call<'_>, token: &str, paths: [&str; 2]) -> [Duration; 2] {
    const EACH: usize = 201;
    let mut times = [const { Vec::<Duration>::new() }; 2];
    for _ in 0..EACH {
        for (path, times) in paths.into_iter().zip(&mut times) {
            let began = Instant::now();
            drop(call.by(token, path, None, None).await);
            times.push(began.elapsed());
        }
    }
    times.map(|mut times| {
        times.sort_unstable();
        times[EACH / 2]
    })
}

#[tokio::test]
async fn a_token_that_is_not_one_opens_nothing() {
    let gateway = TestGateway::builder().start().await;
    let good = gateway.token(Role::Owner);
    let mut changed = good.clone();
    let last = changed.pop().unwrap();
    changed.push(if last == 'A' { 'B' } else { 'A' });
    for token in ["", "x", "a.b.c", &gateway.key, &changed, &format!("{good}.x")] {
        is_problem(&gateway.manage("GET", CONFIG, token, None).await, 401);
    }
    // Nor does a token of management open inference.
    assert_eq!(gateway.get("/v1/models", &good).await.status, 401);
    gateway.finish().await;
}

#[tokio::test]
async fn a_config_is_replaced_only_by_whoever_saw_it() {
    let gateway = TestGateway::builder().start().await;
    let token = gateway.token(Role::Admin);
    let put = async |config: Value, tag: &str| {
        gateway
            .manage_with("PUT", CONFIG, &token, Some(&config), &[("if-match", tag)])
            .await
    };
    let first = gateway.manage("GET", CONFIG, &token, None).await;
    assert_eq!((first.json(), first.header("etag")), (json!({}), "\"0\""));
    is_problem(&gateway.manage("PUT", CONFIG, &token, Some(&json!({}))).await, 428);
    is_problem(&put(json!({}), "3").await, 400);
    let saved = put(json!({"strategy": "failover"}), "\"0\"").await;
    assert_eq!((saved.status, saved.header("etag")), (200, "\"1\""));
    is_problem(&put(json!({"strategy": "balanced"}), "\"0\"").await, 412);
    let saved = put(json!({"strategy": "balanced"}), "\"1\"").await;
    assert_eq!((saved.status, saved.header("etag")), (200, "\"2\""));
    let now = gateway.manage("GET", CONFIG, &token, None).await;
    assert_eq!(
        (now.json(), now.header("etag")),
        (json!({"strategy": "balanced"}), "\"2\"")
    );
    gateway.finish().await;
}

#[tokio::test]
async fn of_many_who_replace_the_same_version_one_does() {
    let gateway = TestGateway::builder().start().await;
    let token = gateway.token(Role::Admin);
    let config = json!({"strategy": "failover"});
    let puts = (0..8).map(|_| gateway.manage_with("PUT", CONFIG, &token, Some(&config), &[("if-match", "\"0\"")]));
    let replies = futures_util::future::join_all(puts).await;
    let saved = replies.iter().filter(|reply| reply.status == 200).count();
    let refused = replies.iter().filter(|reply| reply.status == 412).count();
    assert_eq!((saved, refused), (1, 7), "{replies:?}");
    gateway.finish().await;
}

#[tokio::test]
async fn versions_are_kept_and_can_be_gone_back_to() {
    let gateway = TestGateway::builder().start().await;
    let token = gateway.token(Role::Admin);
    for strategy in ["failover", "balanced", "cost-optimized"] {
        gateway.configure(&json!({"strategy": strategy})).await;
    }
    let page = gateway
        .manage("GET", &format!("{CONFIG}/versions?limit=2"), &token, None)
        .await
        .json();
    let numbers: Vec<i64> = page["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["version"].as_i64().unwrap())
        .collect();
    assert_eq!((numbers, &page["next_cursor"]), (vec![3, 2], &json!(2)));
    assert_eq!(page["data"][0]["author"], "admin@bonito.test");
    assert_eq!(
        (&page["data"][0]["active"], &page["data"][1]["active"]),
        (&json!(true), &json!(false))
    );
    let rest = gateway
        .manage("GET", &format!("{CONFIG}/versions?limit=2&cursor=2"), &token, None)
        .await
        .json();
    assert_eq!(
        (rest["data"].as_array().unwrap().len(), rest.get("next_cursor")),
        (1, None)
    );

    let first = gateway
        .manage("GET", &format!("{CONFIG}/versions/1"), &token, None)
        .await;
    assert_eq!(first.json(), json!({"strategy": "failover"}));
    let restored = gateway
        .manage("POST", &format!("{CONFIG}/versions/1/restore"), &token, None)
        .await;
    assert_eq!((restored.status, restored.header("etag")), (200, "\"4\""));
    assert_eq!(
        gateway.manage("GET", CONFIG, &token, None).await.json(),
        json!({"strategy": "failover"})
    );
    is_problem(
        &gateway
            .manage("POST", &format!("{CONFIG}/versions/9/restore"), &token, None)
            .await,
        404,
    );
    is_problem(
        &gateway
            .manage("GET", &format!("{CONFIG}/versions/9"), &token, None)
            .await,
        404,
    );
    is_problem(
        &gateway
            .manage("GET", &format!("{CONFIG}/versions?limit=0"), &token, None)
            .await,
        400,
    );
    gateway.finish().await;
}

#[tokio::test]
async fn everything_that_is_wrong_with_a_config_is_said_at_once_and_nothing_changes() {
    let gateway = TestGateway::builder().start().await;
    let token = gateway.token(Role::Admin);
    let any = [("if-match", "*")];
    let config = json!({
        "strategie": "balanced",
        "rules": [{"name": "a", "when": "model == 'x' &&\n  modell == 'y'", "then": {"deny": "no"}},
                  {"name": "b", "when": "size(model)", "then": {"pin": []}}]
    });
    let reply = gateway.manage_with("PUT", CONFIG, &token, Some(&config), &any).await;
    is_problem(&reply, 422);
    let errors = reply.json()["errors"].as_array().unwrap().clone();
    let at = |pointer: &str| {
        let error = errors.iter().find(|error| error["pointer"] == pointer);
        error.unwrap_or_else(|| panic!("{errors:?}"))["problem"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(at("/strategie"), "is unknown; did you mean strategy?");
    assert!(
        at("/rules/0/when").starts_with("line 2, column 3: there is no modell"),
        "{errors:?}"
    );
    assert_eq!(at("/rules/1/when"), "must be true or false; it is of type int");
    assert_eq!(at("/rules/1/then/pin"), "must not be empty");

    let dangling = json!({
        "order": ["nowhere"], "fallback_models": {"generic": {"*": ["gpt-4o-mni"]}},
        "rules": [{"name": "a", "then": {"route": ["claude-sonnet-4-5"]}}]
    });
    let reply = gateway.manage_with("PUT", CONFIG, &token, Some(&dangling), &any).await;
    is_problem(&reply, 422);
    for expected in [
        "there is no provider \"nowhere\"",
        "\"gpt-4o-mni\" is not the name of a model; did you mean gpt-4o-mini?",
        "no configured provider serves \"claude-sonnet-4-5\"",
    ] {
        assert!(
            reply.json()["errors"]
                .as_array()
                .unwrap()
                .iter()
                .any(|e| e["problem"] == expected),
            "{}",
            reply.text
        );
    }
    assert_eq!(
        gateway.manage("GET", CONFIG, &token, None).await.header("etag"),
        "\"0\""
    );
    gateway.finish().await;
}

#[tokio::test]
async fn bodies_that_are_none_are_problems_too() {
    let gateway = TestGateway::builder().start().await;
    let token = gateway.token(Role::Admin);
    let send = async |path: &str, kind: &str, body: String| {
        let request = gateway.client.put(format!("{}{path}", gateway.api)).bearer_auth(&token);
        let request = request.header("if-match", "*").header(CONTENT_TYPE, kind).body(body);
        crate::support::gateway::read(request.send().await.unwrap()).await
    };
    is_problem(&send(CONFIG, "application/json", "{".into()).await, 400);
    is_problem(&send(CONFIG, "application/json", "[]".into()).await, 422);
    is_problem(&send(CONFIG, "text/plain", "{}".into()).await, 415);
    is_problem(&send(CONFIG, "application/json", " ".repeat(2_000_000)).await, 413);
    let large: Vec<String> = (0..200).map(|n| format!("{n}{}", "x".repeat(2_000))).collect();
    is_problem(
        &send(CONFIG, "application/json", json!({"headers": large}).to_string()).await,
        400,
    );
    is_problem(&gateway.manage("GET", "/api/gateway/nothing", &token, None).await, 404);
    let untaken = gateway.manage("DELETE", CONFIG, &token, None).await;
    is_problem(&untaken, 405);
    assert_eq!(untaken.header("allow"), "GET, PUT");
    let nowhere = format!("{CONFIG}/versions/{}/diff?against=0", i64::MIN);
    is_problem(&gateway.manage("GET", &nowhere, &token, None).await, 404);
    let unknown = json!({"model": "echo", "modle": 1});
    is_problem(
        &gateway
            .manage("POST", "/api/gateway/routing/explain", &token, Some(&unknown))
            .await,
        400,
    );
    gateway.finish().await;
}

#[tokio::test]
async fn explain_says_where_a_request_would_go_and_why_not_elsewhere() {
    let at = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .provider("alpha", &at.base_url(), &["m"])
        .provider("beta", &at.base_url(), &["m"])
        .start()
        .await;
    let token = gateway.token(Role::Viewer);
    let explain = async |question: Value| {
        let reply = gateway
            .manage("POST", "/api/gateway/routing/explain", &token, Some(&question))
            .await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        reply.json()
    };
    let draft = json!({
        "strategy": "cost-optimized", "providers": {"alpha": {"enabled": false}}, "headers": ["x-tenant"],
        "rules": [{"name": "acme", "when": "headers['x-tenant'] == 'acme'", "then": {"strategy": "failover"}}]
    });
    let answer = explain(json!({
        "model": "m", "input_tokens": 1_000, "max_output_tokens": 100, "config": draft, "headers": {"X-Tenant": "acme"}
    }))
    .await;
    assert_eq!(
        (&answer["strategy"], &answer["rules"], &answer["config_version"]),
        (&json!("failover"), &json!(["acme"]), &json!(0))
    );
    let attempts = answer["attempts"].as_array().unwrap();
    assert_eq!((attempts.len(), &attempts[0]["deployment"]), (1, &json!("beta/m")));
    // 1,000 tokens at 2.5 and 100 at 10 dollars a million.
    assert_eq!(attempts[0]["cost_nanousd"], 3_500_000);
    assert_eq!(answer["excluded"][0]["reason"], "provider_off");
    // Nothing was sent, and nothing was put into force.
    assert_eq!(at.requests().len(), 0);
    assert_eq!(
        explain(json!({"model": "m"})).await["excluded"]
            .as_array()
            .unwrap()
            .len(),
        0
    );
    assert_eq!(
        explain(json!({"model": "nothing"})).await["refusal"]["kind"],
        "not_found"
    );

    let (key, _) = gateway.new_key(&["m"], &["beta"], None).await;
    let answer = explain(json!({"model": "m", "key_id": key.0})).await;
    assert_eq!(
        (&answer["excluded"][0]["deployment"], &answer["excluded"][0]["reason"]),
        (&json!("alpha/m"), &json!("scope"))
    );
    let unknown = json!({"model": "m", "key_id": Uuid::now_v7()});
    is_problem(
        &gateway
            .manage("POST", "/api/gateway/routing/explain", &token, Some(&unknown))
            .await,
        404,
    );
    gateway.finish().await;
}

#[tokio::test]
async fn simulate_shows_what_a_draft_would_have_changed() {
    let at = ScriptedProvider::start().await;
    let lines = [("alpha", "10"), ("beta", "1")].map(|(id, usd)| {
        format!(
            "[providers.{id}]\nbase_url = {:?}\napi_key_env = \"TEST_KEY\"\n[[providers.{id}.deployments]]\n\
             model = \"m\"\nname = \"m\"\ninput_usd = {usd:?}\noutput_usd = {usd:?}\n",
            at.base_url()
        )
    });
    let gateway = TestGateway::builder()
        .env("TEST_KEY", "sk")
        .file(&lines[0])
        .file(&lines[1])
        .start()
        .await;
    for _ in 0..10 {
        assert_eq!(gateway.chat("m", "hello").await.header("x-bonito-provider"), "alpha");
    }
    let spent = gateway.totals_of(10).await;
    let token = gateway.token(Role::Viewer);
    let body = json!({"config": {"strategy": "cost-optimized"}, "last": 100});
    let report = gateway
        .manage("POST", "/api/gateway/routing/simulate", &token, Some(&body))
        .await;
    assert_eq!(report.status, 200, "{}", report.text);
    let report = report.json();
    assert_eq!((&report["requests"], &report["moved"]), (&json!(10), &json!(10)));
    assert_eq!(report["current"]["split"], json!({"alpha/m": 10}));
    assert_eq!(report["draft"]["split"], json!({"beta/m": 10}));
    assert_eq!(report["recorded_cost_nanousd"], spent.cost_nanousd);
    assert_eq!(report["current"]["cost_nanousd"], spent.cost_nanousd);
    assert_eq!(
        report["draft"]["cost_nanousd"].as_i64().unwrap() * 10,
        spent.cost_nanousd
    );
    assert_eq!(at.requests().len(), 10, "nothing is sent");
    let refusing = json!({"config": {"rules": [{"name": "no", "then": {"deny": "never"}}]}, "last": 5});
    let report = gateway
        .manage("POST", "/api/gateway/routing/simulate", &token, Some(&refusing))
        .await
        .json();
    assert_eq!(
        (&report["requests"], &report["draft"]["refused"]),
        (&json!(5), &json!(5))
    );
    gateway.finish().await;
}

#[tokio::test]
async fn providers_are_listed_with_their_health() {
    let at = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .provider("alpha", &at.base_url(), &["m"])
        .provider("beta", &at.base_url(), &["m"])
        .set("health.failures_in_a_row", 1)
        .set("health.eject_ms", 60_000)
        .start()
        .await;
    gateway
        .configure(&json!({"providers": {"beta": {"enabled": false}}}))
        .await;
    assert_eq!(gateway.chat("m", "hi").await.status, 200);
    at.script(crate::support::Script::server_error());
    assert_ne!(gateway.chat("m", "hi").await.status, 200);
    let token = gateway.token(Role::Viewer);
    let listed = async || {
        gateway
            .manage("GET", "/api/gateway/providers", &token, None)
            .await
            .json()["data"]
            .clone()
    };
    let ejected = async { while listed().await[0]["health"] != "ejected" {} };
    tokio::time::timeout(std::time::Duration::from_secs(5), ejected)
        .await
        .expect("alpha is ejected");
    let providers = listed().await;
    let ids: Vec<&str> = providers
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["alpha", "beta", "echo"]);
    assert_eq!(
        (&providers[0]["enabled"], &providers[1]["enabled"]),
        (&json!(true), &json!(false))
    );
    let measured = &providers[0]["measured"][0];
    assert_eq!(measured["deployment"], "alpha/m");
    assert!(
        measured["error_rate"].as_f64().unwrap() > 0.0 && measured["in_flight"] == 0,
        "{measured}"
    );

    // An organization without the grant sees what it can use, which is what is built in.
    let other = gateway.store.create_organization("other", "Other").await.unwrap();
    let foreign = gateway.token_for(Role::Viewer, other);
    let theirs = gateway
        .manage("GET", "/api/gateway/providers", &foreign, None)
        .await
        .json();
    let ids: Vec<&str> = theirs["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["echo"]);
    gateway.finish().await;
}
