//! The management API: JSON over HTTP for admins, described by a document that is generated from the handlers.
//!
//! Every handler takes a proof of a right ([`auth::May`]), and can reach nothing without one. Errors are problem details
//! (`problem`). To add a resource: its rights in `domain::role`, what the proofs are good for in `auth/access.rs`, its
//! handlers in a file like `config`, and that file's API in `Api`.

mod audit;
pub mod auth;
mod batches;
mod budgets;
mod config;
mod examples;
mod exports;
mod jobs;
mod key_policy;
mod keys;
mod limits;
mod logs;
mod models;
mod optional;
mod organizations;
mod page;
mod payloads;
mod prices;
pub mod problem;
mod providers;
mod repricing;
mod routing;
mod schema;
mod sign_in;
mod teams;
pub mod usage;
mod users;
mod webhooks;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::header::{ALLOW, CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use ipnet::IpNet;
use poem::{Endpoint, EndpointExt as _, IntoEndpoint as _, Request, Response};
use poem_openapi::{LicenseObject, OpenApiService, ServerObject, Tags};

use crate::analytics::Analytics;
use crate::gates::audit::Audit;
use crate::gates::batches::Batches;
use crate::gates::control::{Configs, Directory, PayloadReader};
use crate::gates::exports::Exports;
use crate::gates::key_control::{BudgetControl, KeyControl, LimitControl};
use crate::gates::keyring::Keyring;
use crate::gates::people::{Sessions, SignIns, Tenants, Users};
use crate::gates::repricing::Repricings;
use crate::gates::sign_in_gate::SignInGate;
use crate::gates::webhooks::Webhooks;
use crate::pipeline::Pipeline;
use crate::queue::Jobs;
use crate::secrets::management_token::ManagementTokens;
use crate::secrets::master_key::KeyHasher;
use crate::secrets::oidc::Oidc;
use crate::secrets::password::Passwords;
use crate::secrets::refresh_token::RefreshTokens;
use crate::telemetry::names::trace::HTTP_ROUTE;
use crate::telemetry::trace::Ambient;
pub use auth::providers::CredentialDesk;
pub use auth::session::BrowserSessions;
use problem::Problem;

/// Where the document is served.
pub const SPECIFICATION_PATH: &str = "/openapi/management.json";
/// Its title.
pub const TITLE: &str = "Bonito Gateway: management API";
/// Largest body, in bytes: a config and what comes with it.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// How long a body may take to arrive.
const BODY_PATIENCE: Duration = Duration::from_secs(30);

/// What the management API works with. Handlers get at it by proofs alone.
pub struct Management {
    /// Checks who somebody is.
    pub tokens: ManagementTokens,
    /// The same for browsers.
    pub browsers: BrowserSessions,
    /// Keeps configs.
    pub configs: Arc<dyn Configs>,
    /// Knows organizations and keys.
    pub directory: Arc<dyn Directory>,
    /// Keeps what was done.
    pub audit: Arc<dyn Audit>,
    /// Keeps jobs.
    pub jobs: Arc<dyn Jobs>,
    /// Knows the batches of keys.
    pub batches: Arc<dyn Batches>,
    /// What handlers of keys, limits and budgets work with.
    pub keys: KeyDesk,
    /// Keeps endpoints and their deliveries.
    pub webhooks: Arc<dyn Webhooks>,
    /// Answers questions about past requests.
    pub analytics: Arc<Analytics>,
    /// What handlers of people work with.
    pub people: People,
    /// Reads what was kept of requests.
    pub payloads: Arc<dyn PayloadReader>,
    /// Keeps re-pricings.
    pub repricings: Arc<dyn Repricings>,
    /// Keeps exports.
    pub exports: Arc<dyn Exports>,
    /// What handlers of credentials work with.
    pub credentials: CredentialDesk,
    /// Decides where requests go.
    pub pipeline: Arc<Pipeline>,
}

/// What it works with where people are concerned.
pub struct People {
    /// Who signs in, and their sessions.
    pub sign_ins: Arc<dyn SignIns>,
    /// The users of organizations.
    pub users: Arc<dyn Users>,
    /// Organizations and teams.
    pub tenants: Arc<dyn Tenants>,
    /// The sessions that requests came in with lately.
    pub sessions: Sessions,
    /// Hashes passwords.
    pub passwords: Passwords,
    /// Makes refresh tokens.
    pub refresh_tokens: RefreshTokens,
    /// Counts attempts to sign in.
    pub gate: SignInGate,
    /// The issuer outside that vouches for people.
    pub oidc: Option<Oidc>,
    /// Networks of proxies whose word about who is calling is taken.
    pub trusted_proxies: Vec<IpNet>,
    /// How long everything lasts.
    pub lifetimes: SignInLifetimes,
}

/// How long tokens and sessions last.
#[derive(Clone, Copy, Debug)]
pub struct SignInLifetimes {
    /// An access token.
    pub access: Duration,
    /// A session that is not refreshed.
    pub refresh: Duration,
    /// Any session.
    pub session: Duration,
}

/// What handlers of keys, limits and budgets work with.
pub struct KeyDesk {
    /// Keeps keys.
    pub control: Arc<dyn KeyControl>,
    /// Keeps rate limits.
    pub limits: Arc<dyn LimitControl>,
    /// Keeps budgets.
    pub budgets: Arc<dyn BudgetControl>,
    /// Hashes new secrets.
    pub hasher: KeyHasher,
    /// The keys in use here.
    pub keyring: Arc<Keyring>,
}

/// The sections of the document.
#[derive(Tags)]
enum Section {
    /// How the organization's requests are served: the config, its versions, and what it does.
    Config,
    /// Where a request would go and why, and what another config would change.
    Routing,
    /// Who serves, and how they are doing.
    Providers,
    /// What was used, what it cost, and what could cost less.
    Usage,
    /// Single requests.
    Logs,
    /// What was done through management, by whom and from where.
    Audit,
    /// What is done in the background, and what could not be done.
    Jobs,
    /// Where the organization is told of events, and what was sent there.
    Webhooks,
    /// The keys that callers send, from their creation to their end.
    Keys,
    /// Rate limits besides the keys' own.
    Limits,
    /// What may be spent, and what is left of it.
    Budgets,
    /// Signing in and out.
    SignIn,
    /// Organizations: the tenants.
    Organizations,
    /// Teams: groups of keys and people inside an organization.
    Teams,
    /// Users: people who manage the gateway.
    Users,
}

// One tuple of APIs has room for sixteen, so there is one for each subject.
/// How requests are served.
type Serving = (
    config::ConfigApi,
    routing::RoutingApi,
    providers::ProvidersApi,
    models::ModelsApi,
    prices::PricesApi,
    repricing::RepricingApi,
);
/// Who may ask for how much.
type Limiting = (
    keys::KeysApi,
    key_policy::KeyPolicyApi,
    limits::LimitsApi,
    budgets::BudgetsApi,
);
/// Who manages.
type Managing = (
    sign_in::SignInApi,
    organizations::OrganizationsApi,
    teams::TeamsApi,
    users::UsersApi,
);
/// What was done.
type Looking = (usage::UsageApi, logs::LogsApi, payloads::PayloadsApi, audit::AuditApi);
/// What goes on in the background.
type Background = (
    jobs::JobsApi,
    batches::BatchesApi,
    exports::ExportsApi,
    webhooks::WebhooksApi,
);
type Api = (Serving, Limiting, Managing, Looking, Background);

fn service(server_url: &str) -> OpenApiService<Api, ()> {
    let api: Api = (
        (
            config::ConfigApi,
            routing::RoutingApi,
            providers::ProvidersApi,
            models::ModelsApi,
            prices::PricesApi,
            repricing::RepricingApi,
        ),
        (
            keys::KeysApi,
            key_policy::KeyPolicyApi,
            limits::LimitsApi,
            budgets::BudgetsApi,
        ),
        (
            sign_in::SignInApi,
            organizations::OrganizationsApi,
            teams::TeamsApi,
            users::UsersApi,
        ),
        (usage::UsageApi, logs::LogsApi, payloads::PayloadsApi, audit::AuditApi),
        (
            jobs::JobsApi,
            batches::BatchesApi,
            exports::ExportsApi,
            webhooks::WebhooksApi,
        ),
    );
    OpenApiService::new(api, TITLE, env!("CARGO_PKG_VERSION"))
        .description(include_str!("introduction.md"))
        .license(LicenseObject::new("Apache-2.0"))
        .server(ServerObject::new(server_url.trim_end_matches('/')))
}

/// The OpenAPI document of the management API, as JSON. The same input gives the same bytes.
pub fn specification(server_url: &str) -> String {
    let mut document = serde_json::from_str(&service(server_url).spec()).expect("a document is JSON");
    optional::say_so(&mut document);
    examples::shorten(&mut document);
    serde_json::to_string_pretty(&document).expect("JSON can be written")
}

/// Everything below `/api`.
pub fn endpoint(management: Arc<Management>) -> impl Endpoint<Output = Response> {
    Guarded(service("/").into_endpoint().data(management))
}

/// Bounds bodies, and turns what poem says by itself into problems.
struct Guarded<E>(E);

/// Of every path. The document they are read from is large, and there are several endpoints in a process.
static METHODS: LazyLock<Methods> = LazyLock::new(|| Methods::of(&service("/").spec()));

/// Which methods each path takes: an answer of 405 has to say so (RFC 9110, section 15.5.6), and poem's does not.
struct Methods(Vec<(String, HeaderValue)>);

impl Methods {
    /// Those of a document.
    fn of(document: &str) -> Self {
        let document: serde_json::Value = serde_json::from_str(document).unwrap_or_default();
        let paths = document["paths"].as_object().into_iter().flatten();
        let methods = paths.filter_map(|(path, operations)| {
            let methods: Vec<String> = operations
                .as_object()?
                .keys()
                .map(|method| method.to_uppercase())
                .collect();
            Some((path.clone(), HeaderValue::from_str(&methods.join(", ")).ok()?))
        });
        Self(methods.collect())
    }

    /// What a path takes; a part of a template in braces stands for anything.
    fn at(&self, path: &str) -> Option<HeaderValue> {
        self.entry(path).map(|(_, methods)| methods.clone())
    }

    /// The template of a path.
    fn template(&self, path: &str) -> Option<&str> {
        self.entry(path).map(|(template, _)| template.as_str())
    }

    fn entry(&self, path: &str) -> Option<&(String, HeaderValue)> {
        let fits = |template: &str| {
            let (ours, theirs) = (template.trim_end_matches('/'), path.trim_end_matches('/'));
            let mut parts = ours.split('/').zip(theirs.split('/'));
            ours.split('/').count() == theirs.split('/').count()
                && parts.all(|(ours, theirs)| ours == theirs || ours.starts_with('{'))
        };
        self.0.iter().find(|(template, _)| fits(template))
    }
}

impl<E: Endpoint> Endpoint for Guarded<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let path = request.uri().path().to_owned();
        Ambient::with(|ambient| {
            ambient.root(|root| {
                if let Some(route) = METHODS.template(&path) {
                    root.rename(|| format!("{} {route}", request.method()));
                    root.set(HTTP_ROUTE, || route);
                }
            });
        });
        let answer = match bounded(&mut request).await {
            Ok(()) => self.0.call(request).await.map(poem::IntoResponse::into_response),
            Err(problem) => Ok(problem.response()),
        };
        let mut response = answer.unwrap_or_else(in_problem_form);
        if response.status() == StatusCode::METHOD_NOT_ALLOWED
            && let Some(methods) = METHODS.at(&path)
        {
            response.headers_mut().insert(ALLOW, methods);
        }
        // What an admin reads is nobody else's, and changes; and it is no page, whatever somebody wrote into it.
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Ok(response)
    }
}

/// Reads a request's body within its limits and puts it back.
pub async fn bounded(request: &mut Request) -> Result<(), Problem> {
    let body: http_body_util::combinators::BoxBody<bytes::Bytes, std::io::Error> = request.take_body().into();
    let whole = Limited::new(body, MAX_BODY_BYTES).collect();
    match tokio::time::timeout(BODY_PATIENCE, whole).await {
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not arrive in time",
        )),
        Ok(Err(error)) if error.downcast_ref::<http_body_util::LengthLimitError>().is_some() => {
            let detail = format!("the body is larger than {MAX_BODY_BYTES} bytes");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail))
        }
        Ok(Err(_)) => Err(Problem::new(StatusCode::BAD_REQUEST, "the body broke off")),
        Ok(Ok(whole)) => {
            request.set_body(whole.to_bytes());
            Ok(())
        }
    }
}

/// An error of poem's, or one that a handler or a proof gave, as a problem.
fn in_problem_form(error: poem::Error) -> Response {
    let status = error.status();
    // Ours come as whole answers.
    if error.is_from_response() {
        return error.into_response();
    }
    let detail = match status {
        StatusCode::NOT_FOUND => "there is no such endpoint; /openapi/management.json lists those there are".to_owned(),
        StatusCode::METHOD_NOT_ALLOWED => "this endpoint does not take this method".to_owned(),
        // Its words are about the request's form and repeat nothing of its body but names of fields.
        status if status.is_client_error() => error.to_string(),
        _ => {
            tracing::error!(%error, "a management request failed");
            "the gateway failed; its log says why".to_owned()
        }
    };
    Problem::new(status, detail).response()
}
