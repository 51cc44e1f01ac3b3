//! The dashboard: pages for people, made by the same binary, by the same proofs as the management API.
//!
//! # To write a page
//!
//! 1. A file `<page>.rs` here with `pub const VIEWS: &[View] = &[…]`, and one line in `VIEWS` below. A [`View`] is a
//!    route; with a [`Nav`] it is in the navigation of those who have the right. Patterns are poem's (`/gateway/keys/:id`).
//! 2. `async fn list(viewer: Viewer) -> Result<Page, Fault>`: ask for proofs by `viewer.may::<ReadKeys>()?`, which is the
//!    `May<ReadKeys>` of the API's handlers with the same methods; `?` on what they refuse gives the right error page (401
//!    goes to the sign-in, 403 and 404 and 503 are pages). There is no other way to the data. `viewer.query("name")` is a
//!    parameter of the URL, `viewer.param("id")` of the path, `viewer.can(Right::WriteKeys)` says what to show.
//! 3. Give a [`Page`]: `Page::new("Keys", html! { … }).crumb("Keys", "/gateway/keys").actions(html! { … })`. Components are
//!    in [`parts`] (tiles, tables, pills, bars, empty and error states, dialogs, fields, copyable code), numbers and times
//!    in [`mod@format`], charts in [`chart`]. No inline `style` and no inline script: the policy forbids them; classes are in
//!    `assets/dashboard.css`.
//! 4. Writing is the API's. A form says `data-api="POST /api/gateway/keys"`, its fields are named as the body is
//!    (`limits.requests_per_minute`, `budgets.0.amount_usd`), `data-type` is one of `number`, `bool`, `list`, `tokens`,
//!    `tags`, `time`, `json`; faults are shown at the field that their JSON pointer names. `data-done` says what follows:
//!    `reload`, `close`, `toast:Saved`, `go:/gateway/keys`, `event` (only the event `api:done`). A button can have
//!    `data-api` as well, with `data-body` and `data-confirm`. All of it is at the top of `assets/kit.js`.
//! 5. A script of its own goes to `assets/<page>.js`, into [`assets::ASSETS`], and to `Page::script`. It imports from
//!    `"./kit.js"`; names are replaced with hashed ones.
//! 6. Live parts: a [`Handler::Live`] view gives fragments by name, and `Page::live(url)` has elements with
//!    `data-live="name"` replaced as they change.
//! 7. Tests: `tests/suite/browser`, which looks at each page in both sizes and themes with what is in `PAGES` there.

pub mod assets;
pub mod chart;
mod exports;
pub mod format;
pub mod layout;
pub mod parts;
pub mod series;

mod audit;
mod batches;
mod budgets;
mod catalogue;
mod charges;
mod chosen;
mod endpoints;
mod filters;
mod health;
mod insights;
mod jobs;
mod key;
mod keys;
mod limits;
mod live;
mod logs;
mod members;
mod models;
mod overview;
mod playground;
mod providers;
mod repricing;
mod request;
mod routing;
mod settings;
mod sign_in;
mod usage;
mod webhooks;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use futures_util::future::BoxFuture;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, LOCATION, REFERRER_POLICY};
use http::header::{SET_COOKIE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use maud::Markup;
use poem::{Endpoint, Request, Response, Route};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::HttpState;
use super::management::Management;
use super::management::auth::sign_in::Identity;
use super::management::auth::{Caller, Grant, May, OwnAccount, ReadOrganization};
use super::management::problem::Refusal;
use crate::domain::role::Right;
use crate::domain::tenancy::Organization;
pub use layout::Page;

/// Every page. The order of those with a [`Nav`] is that of the navigation.
const VIEWS: &[&[View]] = &[
    overview::VIEWS,
    usage::VIEWS,
    logs::VIEWS,
    request::VIEWS,
    keys::VIEWS,
    key::VIEWS,
    budgets::VIEWS,
    providers::VIEWS,
    catalogue::VIEWS,
    repricing::VIEWS,
    routing::VIEWS,
    playground::VIEWS,
    webhooks::VIEWS,
    jobs::VIEWS,
    batches::VIEWS,
    exports::VIEWS,
    settings::VIEWS,
    members::VIEWS,
    audit::VIEWS,
];

/// What pages may load, and who may show them. Plotly makes style elements without a text and fills them by the CSSOM,
/// which the policy says nothing about: the hash is that of no text at all.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' \
    'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='; img-src 'self' data:; connect-src 'self'; \
    form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
/// Pages that are kept up to date at the same time.
const MOST_LIVE: usize = 256;
/// Organizations among which a platform admin can choose in the header.
const MOST_ORGANIZATIONS: u64 = 100;

/// A route of the dashboard.
pub struct View {
    /// Its path, as poem's patterns are.
    pub path: &'static str,
    /// Its place in the navigation.
    pub nav: Option<Nav>,
    /// What it does.
    pub handler: Handler,
}

/// A place in the navigation.
#[derive(Clone, Copy)]
pub struct Nav {
    /// What it is called.
    pub title: &'static str,
    /// The picture before it, see [`parts::icon`].
    pub icon: &'static str,
    /// Under which heading.
    pub group: Group,
    /// Who sees it.
    pub right: Right,
}

/// A heading of the navigation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Looking.
    Observe,
    /// Setting up.
    Manage,
    /// What goes on beneath.
    Operate,
}

impl Group {
    /// All, in order.
    pub const ALL: [Self; 3] = [Self::Observe, Self::Manage, Self::Operate];

    /// The words.
    pub fn title(self) -> &'static str {
        match self {
            Self::Observe => "Observe",
            Self::Manage => "Manage",
            Self::Operate => "Operate",
        }
    }
}

/// Makes a page.
pub type MakePage = fn(Viewer) -> BoxFuture<'static, Result<Page, Fault>>;
/// Makes the parts of a page, by name.
pub type MakeParts = fn(Viewer) -> BoxFuture<'static, Result<Vec<(&'static str, Markup)>, Fault>>;

/// What a view does.
#[derive(Clone, Copy)]
pub enum Handler {
    /// Makes a page.
    Page(MakePage),
    /// Makes the parts of a page that are kept up to date, by name; it is asked every two seconds.
    Live(MakeParts),
}

/// Why there is no page.
#[derive(Debug)]
pub struct Fault(pub Refusal);

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl Fault {
    /// There is no such thing.
    pub fn not_found(what: &str) -> Self {
        Self(Refusal::not_found(what))
    }
}

/// What the dashboard works with.
pub struct Dashboard {
    management: Arc<Management>,
    /// Where people reach the gateway, if somebody has said so.
    public_url: Option<String>,
    stopping: Arc<AtomicBool>,
    live_places: Arc<Semaphore>,
}

/// Somebody who looks at a page.
#[derive(Clone)]
pub struct Viewer {
    caller: Caller,
    dashboard: Arc<Dashboard>,
    public_url: String,
    path: String,
    query: Vec<(String, String)>,
    params: Vec<(String, String)>,
}

impl Viewer {
    /// The proof that they may do something, as the handlers of the API take it.
    ///
    /// # Errors
    /// They may not.
    pub fn may<G: Grant>(&self) -> Result<May<G>, Refusal> {
        self.caller.may()
    }

    /// Whether their role has a right. What they do is checked where it is done; this is for what to show.
    pub fn can(&self, right: Right) -> bool {
        self.caller.bearer().role.may(right) && !self.caller.must_change_password()
    }

    /// Who they are.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// A parameter of the URL that is not empty.
    pub fn query(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// The URL of the page with some parameters different; `None` takes one away.
    pub fn url_with(&self, changes: &[(&str, Option<&str>)]) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        let changed = |name: &str| changes.iter().any(|(own, _)| *own == name);
        for (name, value) in self
            .query
            .iter()
            .filter(|(name, value)| !changed(name) && !value.is_empty())
        {
            query.append_pair(name, value);
        }
        for (name, value) in changes {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        let query = query.finish();
        if query.is_empty() {
            self.path.clone()
        } else {
            format!("{}?{query}", self.path)
        }
    }

    /// A parameter of the path.
    pub fn param(&self, name: &str) -> Option<&str> {
        let found = self.params.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The id in the path; nothing has one that is none.
    ///
    /// # Errors
    /// It is none.
    pub fn id(&self, what: &str) -> Result<Uuid, Fault> {
        let id = self.param("id").and_then(|id| id.parse().ok());
        id.ok_or_else(|| Fault::not_found(what))
    }

    /// The path of the page.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Where people and programs reach the gateway, without a slash at its end: as it is configured, or else as the viewer
    /// did.
    pub fn public_url(&self) -> &str {
        self.public_url.trim_end_matches('/')
    }
}

/// What the frame around a page shows.
struct Frame {
    viewer: Viewer,
    identity: Identity,
    organizations: Vec<Organization>,
}

impl Frame {
    async fn of(viewer: &Viewer) -> Result<Self, Refusal> {
        let identity = viewer.may::<OwnAccount>()?.identity().await?;
        let organizations = if identity.bearer.role.everywhere() {
            let may = viewer.may::<ReadOrganization>()?;
            may.organizations(None, MOST_ORGANIZATIONS).await?
        } else {
            Vec::new()
        };
        Ok(Self {
            viewer: viewer.clone(),
            identity,
            organizations,
        })
    }
}

/// Adds every route of the dashboard. `api` is what answers at the rest of where an issuer sends people back to.
pub fn add_to(routes: Route, state: &HttpState, api: impl Endpoint<Output = Response> + 'static) -> Route {
    let dashboard = Arc::new(Dashboard {
        management: state.management.clone(),
        public_url: state.settings.server.public_url.clone(),
        stopping: state.stopping.clone(),
        live_places: Arc::new(Semaphore::new(MOST_LIVE)),
    });
    let mut routes = routes
        .at("/login", sign_in::Login(dashboard.clone()))
        .at("/login/oidc", sign_in::StartOidc(dashboard.clone()))
        .at(sign_in::CALLBACK, sign_in::FinishOidc::new(dashboard.clone(), api))
        .at("/logout", sign_in::Logout(dashboard.clone()))
        .at("/gateway/password", sign_in::Password(dashboard.clone()))
        .at("/gateway/organization", sign_in::Choose(dashboard.clone()))
        .at("/gateway/assets/:name", poem::endpoint::make(assets::serve))
        .at("/gateway/*rest", Nothing(dashboard.clone()));
    for view in VIEWS.iter().copied().flatten() {
        let dashboard = dashboard.clone();
        routes = routes.at(view.path, Served { view, dashboard });
    }
    routes
}

/// The endpoint of a view.
struct Served {
    view: &'static View,
    dashboard: Arc<Dashboard>,
}

impl Endpoint for Served {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Ok(guarded(not_allowed("GET, HEAD")));
        }
        let viewer = match viewer_of(&self.dashboard, &request).await {
            Ok(viewer) => viewer,
            Err(response) => return Ok(*response),
        };
        let response = match self.view.handler {
            Handler::Live(fragments) => live::stream(viewer, fragments),
            Handler::Page(make) => {
                let made = make(viewer.clone()).await;
                // Only whoever opens pages uses their session: a page that was left open keeps nobody signed in.
                let renewed = viewer.caller.renewed().await;
                with_cookies(framed(&viewer, made).await, renewed)
            }
        };
        Ok(guarded(response))
    }
}

/// Where there is no page.
struct Nothing(Arc<Dashboard>);

impl Endpoint for Nothing {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let viewer = match viewer_of(&self.0, &request).await {
            Ok(viewer) => viewer,
            Err(response) => return Ok(*response),
        };
        Ok(guarded(framed(&viewer, Err(Fault::not_found("page"))).await))
    }
}

/// Who looks at a page; an answer instead where it is nobody known, or somebody who must change their password first.
async fn viewer_of(dashboard: &Arc<Dashboard>, request: &Request) -> Result<Viewer, Box<Response>> {
    let path = request.uri().path().to_owned();
    let caller = match Caller::of(dashboard.management.clone(), request).await {
        Ok(caller) => caller,
        Err(Refusal::Unauthorized(..)) => {
            let back = request.uri().path_and_query().map_or("/gateway", |path| path.as_str());
            let query: String = url::form_urlencoded::Serializer::new(String::new())
                .append_pair("next", back)
                .finish();
            return Err(Box::new(guarded(redirect(&format!("/login?{query}")))));
        }
        Err(refusal) => return Err(Box::new(guarded(layout::bare_error(&refusal)))),
    };
    if caller.must_change_password() && path != "/gateway/password" {
        return Err(Box::new(guarded(redirect("/gateway/password"))));
    }
    let query = request.uri().query().unwrap_or_default();
    let query = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let params = ["id", "name", "n"].iter().filter_map(|name| {
        let value = request.raw_path_param(name)?;
        Some(((*name).to_owned(), value.to_owned()))
    });
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let public_url = dashboard.public_url.clone();
    Ok(Viewer {
        public_url: public_url.unwrap_or_else(|| format!("http://{}", host.unwrap_or("localhost"))),
        caller,
        dashboard: dashboard.clone(),
        params: params.collect(),
        path,
        query,
    })
}

/// A page, or what went wrong, in the frame.
async fn framed(viewer: &Viewer, made: Result<Page, Fault>) -> Response {
    let (status, page) = match made {
        Ok(page) => (StatusCode::OK, page),
        Err(Fault(Refusal::Unauthorized(..))) => return redirect("/login"),
        Err(Fault(refusal)) => layout::error_page(&refusal),
    };
    match Frame::of(viewer).await {
        Ok(frame) => html(status, layout::render(&frame, &page)),
        Err(refusal) => layout::bare_error(&refusal),
    }
}

fn html(status: StatusCode, markup: Markup) -> Response {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "text/html; charset=utf-8")
        .body(markup.into_string())
}

fn redirect(to: &str) -> Response {
    Response::builder()
        .status(StatusCode::SEE_OTHER)
        .header(LOCATION, to)
        .finish()
}

fn not_allowed(methods: &'static str) -> Response {
    Response::builder()
        .status(StatusCode::METHOD_NOT_ALLOWED)
        .header(ALLOW, methods)
        .finish()
}

fn with_cookies(mut response: Response, cookies: impl IntoIterator<Item = String>) -> Response {
    for cookie in cookies {
        if let Ok(value) = HeaderValue::try_from(cookie) {
            response.headers_mut().append(SET_COOKIE, value);
        }
    }
    response
}

/// Adds what browsers are to keep to.
fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Nobody else learns what is looked at here; ourselves we may know where a form was sent from.
        (REFERRER_POLICY, "same-origin"),
        (CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (
            HeaderName::from_static("permissions-policy"),
            "camera=(), geolocation=(), microphone=()",
        ),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
