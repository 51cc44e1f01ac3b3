//! Signing in and out by pages. What signs people in is `management::auth::sign_in`, with its throttles and its audit log.

use std::sync::Arc;

use chrono::Utc;
use http::{Method, StatusCode};
use maud::{Markup, html};
use poem::{Endpoint, Request, Response};
use secrecy::SecretString;

use super::layout::bare;
use super::parts::{Tone, notice};
use super::{Dashboard, guarded, not_allowed, redirect, viewer_of, with_cookies};
use crate::http::management::auth::session::{is_from_elsewhere, sent_cookie};
use crate::http::management::auth::sign_in::Visitor;
use crate::http::management::auth::{Caller, OwnAccount};
use crate::http::management::bounded;
use crate::http::management::problem::Refusal;

/// The cookie that says that a page began signing in by the issuer, with where to go afterwards.
const BEGUN: &str = "bonito_oidc_page";
/// How long that may take, in seconds.
const PATIENCE_S: u32 = 600;
/// Where the issuer sends browsers back to.
pub(super) const CALLBACK: &str = "/api/auth/oidc/callback";

/// The fields of a form that was sent.
struct Form(Vec<(String, String)>);

impl Form {
    /// Reads a form of a page of ours.
    async fn of(request: &mut Request) -> Result<Self, Refusal> {
        if is_from_elsewhere(request.headers()) {
            return Err(Refusal::forbidden("another site's page may not ask for this"));
        }
        bounded(request)
            .await
            .map_err(|problem| Refusal::bad_request(problem.detail))?;
        let body = request.take_body().into_bytes().await;
        let body = body.map_err(|_| Refusal::bad_request("the form did not arrive"))?;
        Ok(Self(url::form_urlencoded::parse(&body).into_owned().collect()))
    }

    fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(own, _)| own == name);
        found.map_or("", |(_, value)| value.as_str())
    }

    fn secret(&self, name: &str) -> SecretString {
        SecretString::from(self.get(name).to_owned())
    }

    /// Whether a page made the form for this caller.
    fn is_of(&self, caller: &Caller) -> Result<(), Refusal> {
        let proof = caller.csrf();
        let same = subtle::ConstantTimeEq::ct_eq(proof.as_bytes(), self.get("csrf").as_bytes());
        if proof.is_empty() || !bool::from(same) {
            return Err(Refusal::forbidden("the page is out of date; reload it and try again"));
        }
        Ok(())
    }
}

/// Where to go after signing in: pages of ours and nothing else.
fn next_of(asked: Option<&str>) -> &str {
    let ours = |path: &&str| {
        (*path == "/gateway" || path.starts_with("/gateway/") || path.starts_with("/gateway?"))
            && !path.contains(['\\', '\r', '\n'])
    };
    asked.filter(ours).unwrap_or("/gateway")
}

/// `/login`.
pub(super) struct Login(pub(super) Arc<Dashboard>);

impl Endpoint for Login {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let asked = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "next");
        let asked = asked.map(|(_, value)| value.into_owned());
        let next = next_of(asked.as_deref());
        let visitor = Visitor::of(self.0.management.clone(), &request);
        match *request.method() {
            Method::GET | Method::HEAD => {
                // Whoever is in need not sign in.
                if Caller::of(self.0.management.clone(), &request).await.is_ok() {
                    return Ok(guarded(redirect(next)));
                }
                let page = page(&visitor, next, "", None);
                Ok(guarded(super::html(StatusCode::OK, page)))
            }
            Method::POST => {
                let form = match Form::of(&mut request).await {
                    Ok(form) => form,
                    Err(refusal) => return Ok(guarded(again(&visitor, next, "", &refusal))),
                };
                let email = form.get("email");
                let next = next_of(Some(form.get("next")));
                let signed_in = visitor.sign_in(email, form.secret("password")).await;
                let begun = signed_in.and_then(|signed_in| self.0.begin(&signed_in));
                Ok(guarded(match begun {
                    Ok(cookie) => with_cookies(redirect(next), [cookie]),
                    Err(refusal) => again(&visitor, next, email, &refusal),
                }))
            }
            _ => Ok(guarded(not_allowed("GET, HEAD, POST"))),
        }
    }
}

impl Dashboard {
    /// The cookie of somebody who has just signed in.
    fn begin(&self, signed_in: &crate::http::management::auth::sign_in::SignedIn) -> Result<String, Refusal> {
        let longest = self.management.people.lifetimes.session;
        self.management.browsers.begin(signed_in, longest, Utc::now())
    }
}

/// The page once more, with why.
fn again(visitor: &Visitor, next: &str, email: &str, refusal: &Refusal) -> Response {
    let problem = refusal.problem();
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::BAD_REQUEST);
    let mut words = match refusal {
        Refusal::Unprocessable(_) => "Enter a valid e-mail address.".to_owned(),
        _ => problem.detail.clone(),
    };
    if let Refusal::TooManyRequests(_, wait) = refusal {
        words = format!(
            "Too many attempts to sign in failed. Try again in {}.",
            super::format::seconds(*wait)
        );
    }
    super::html(status, page(visitor, next, email, Some(&words)))
}

fn page(visitor: &Visitor, next: &str, email: &str, fault: Option<&str>) -> Markup {
    let query: String = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("next", next)
        .finish();
    bare(
        "Sign in",
        None,
        html! {
            @if let Some(fault) = fault { (notice(Tone::Bad, html! { (fault) })) }
            form.stack method="post" action="/login" {
                input type="hidden" name="next" value=(next);
                div.field {
                    label for="email" { "E-mail" }
                    input id="email" name="email" type="email" autocomplete="username" required autofocus[email.is_empty()] value=(email);
                }
                div.field {
                    label for="password" { "Password" }
                    input id="password" name="password" type="password" autocomplete="current-password" required autofocus[!email.is_empty()];
                }
                button.button.primary.wide type="submit" { "Sign in" }
            }
            @if visitor.knows_an_issuer() {
                p.or { span { "or" } }
                a.button.wide href={ "/login/oidc?" (query) } { "Sign in with single sign-on" }
            }
        },
    )
}

/// `/login/oidc`: sends a browser to the issuer.
pub(super) struct StartOidc(pub(super) Arc<Dashboard>);

impl Endpoint for StartOidc {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let query = request.uri().query().unwrap_or_default();
        let asked = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "next");
        let next = next_of(asked.as_ref().map(|(_, value)| value.as_ref())).to_owned();
        let visitor = Visitor::of(self.0.management.clone(), &request);
        let secure = if self.0.management.browsers.secure {
            "; Secure"
        } else {
            ""
        };
        let value: String = url::form_urlencoded::byte_serialize(next.as_bytes()).collect();
        Ok(guarded(match visitor.start_externally().await {
            Ok(start) => {
                let begun =
                    format!("{BEGUN}={value}; Path={CALLBACK}; Max-Age={PATIENCE_S}; HttpOnly; SameSite=Lax{secure}");
                with_cookies(redirect(&start.location), [start.cookie, begun])
            }
            Err(refusal) => again(&visitor, &next, "", &refusal),
        }))
    }
}

/// Where the issuer sends browsers back to: a page that began gets a session and a page, whoever else what the API says.
pub struct FinishOidc<E> {
    dashboard: Arc<Dashboard>,
    api: E,
}

impl<E> FinishOidc<E> {
    /// With what the API says.
    pub(super) fn new(dashboard: Arc<Dashboard>, api: E) -> Self {
        Self { dashboard, api }
    }
}

impl<E: Endpoint<Output = Response>> Endpoint for FinishOidc<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let Some(begun) = sent_cookie(request.headers(), BEGUN).filter(|_| *request.method() == Method::GET) else {
            return self.api.call(request).await;
        };
        let begun = format!("next={begun}");
        let begun = url::form_urlencoded::parse(begun.as_bytes()).next();
        let begun = begun.map(|(_, value)| value.into_owned());
        let next = next_of(begun.as_deref());
        let query = request.uri().query().unwrap_or_default();
        let query: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).collect();
        let sent = |name: &str| {
            query
                .iter()
                .find(|(own, _)| own == name)
                .map(|(_, value)| value.as_ref())
        };
        let visitor = Visitor::of(self.dashboard.management.clone(), &request);
        let forget = format!("{BEGUN}=; Path={CALLBACK}; Max-Age=0; HttpOnly; SameSite=Lax");
        let finished = match (sent("code"), sent("state"), sent("error")) {
            (Some(code), Some(state), None) => visitor.finish_externally(code, state).await,
            _ => Err(Refusal::wrong_credentials("the identity provider did not sign you in")),
        };
        let finished = finished.and_then(|(signed_in, cookie)| Ok((self.dashboard.begin(&signed_in)?, cookie)));
        Ok(guarded(match finished {
            Ok((session, cookie)) => with_cookies(redirect(next), [session, cookie, forget]),
            Err(refusal) => with_cookies(again(&visitor, next, "", &refusal), [forget]),
        }))
    }
}

/// `/logout`.
pub(super) struct Logout(pub(super) Arc<Dashboard>);

impl Endpoint for Logout {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        if *request.method() != Method::POST {
            return Ok(guarded(not_allowed("POST")));
        }
        let gone = || with_cookies(redirect("/login"), self.0.management.browsers.end());
        let caller = match form_caller(&self.0, &mut request).await {
            Ok((caller, _)) => caller,
            // Whoever has no session any more is signed out.
            Err(Refusal::Unauthorized(..)) => return Ok(guarded(gone())),
            Err(refusal) => return Ok(guarded(super::layout::bare_error(&refusal))),
        };
        let ended = match caller.may::<OwnAccount>() {
            Ok(may) => may.sign_out().await,
            Err(refusal) => Err(refusal),
        };
        Ok(guarded(match ended {
            Ok(()) => gone(),
            Err(refusal) => super::layout::bare_error(&refusal),
        }))
    }
}

/// Who sent a form of a page of ours. The form itself is the proof that a header is elsewhere.
async fn form_caller(dashboard: &Dashboard, request: &mut Request) -> Result<(Caller, Form), Refusal> {
    let form = Form::of(request).await?;
    request.set_method(Method::GET);
    let caller = Caller::of(dashboard.management.clone(), request).await?;
    form.is_of(&caller)?;
    Ok((caller, form))
}

/// `/gateway/password`: changes the viewer's password.
pub(super) struct Password(pub(super) Arc<Dashboard>);

impl Endpoint for Password {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        match *request.method() {
            Method::GET | Method::HEAD => {
                let viewer = match viewer_of(&self.0, &request).await {
                    Ok(viewer) => viewer,
                    Err(response) => return Ok(*response),
                };
                let page = password_page(viewer.caller(), None);
                Ok(guarded(super::html(StatusCode::OK, page)))
            }
            Method::POST => {
                let (caller, form) = match form_caller(&self.0, &mut request).await {
                    Ok(found) => found,
                    Err(Refusal::Unauthorized(..)) => return Ok(guarded(redirect("/login"))),
                    Err(refusal) => return Ok(guarded(super::layout::bare_error(&refusal))),
                };
                let changed = self.change(&caller, &form).await;
                Ok(guarded(match changed {
                    Ok(cookie) => with_cookies(redirect("/gateway"), [cookie]),
                    Err(refusal) => {
                        let problem = refusal.problem();
                        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::BAD_REQUEST);
                        super::html(status, password_page(&caller, Some(&refusal)))
                    }
                }))
            }
            _ => Ok(guarded(not_allowed("GET, HEAD, POST"))),
        }
    }
}

impl Password {
    async fn change(&self, caller: &Caller, form: &Form) -> Result<String, Refusal> {
        if form.get("new_password") != form.get("again") {
            return Err(Refusal::field("/again", "is not the same as the new password"));
        }
        let may = caller.may::<OwnAccount>()?;
        let signed_in = may
            .change_password(form.secret("current_password"), form.secret("new_password"))
            .await?;
        self.0.begin(&signed_in)
    }
}

fn password_page(caller: &Caller, refusal: Option<&Refusal>) -> Markup {
    let problem = refusal.map(Refusal::problem);
    let fault_of = |pointer: &str| {
        let faults = problem.map_or(&[][..], |problem| problem.errors.as_slice());
        let fault = faults.iter().find(|fault| fault.pointer == pointer);
        html! { @if let Some(fault) = fault { p.fault { "This " (fault.problem) "." } } }
    };
    let forced = caller.must_change_password();
    bare(
        if forced { "Choose a password" } else { "Change password" },
        None,
        html! {
            @if forced { p.bare-text { "Your temporary password works only once. Choose a new one to continue." } }
            @if let Some(problem) = problem.filter(|problem| problem.errors.is_empty()) { (notice(Tone::Bad, html! { (problem.detail) })) }
            form.stack method="post" action="/gateway/password" {
                input type="hidden" name="csrf" value=(caller.csrf());
                // Password managers want to know whose it is.
                input.visually-hidden type="email" name="email" autocomplete="username" value=(caller.bearer().subject) tabindex="-1" readonly aria-label="E-mail";
                div.field {
                    label for="current" { "Current password" }
                    input id="current" name="current_password" type="password" autocomplete="current-password" required autofocus;
                    (fault_of("/current_password"))
                }
                div.field {
                    label for="new" { "New password" }
                    input id="new" name="new_password" type="password" autocomplete="new-password" required minlength="12";
                    p.hint { "At least 12 characters. All your other sessions will be signed out." }
                    (fault_of("/new_password"))
                }
                div.field {
                    label for="again" { "Confirm new password" }
                    input id="again" name="again" type="password" autocomplete="new-password" required minlength="12";
                    (fault_of("/again"))
                }
                button.button.primary.wide type="submit" { "Change password" }
            }
            @if !forced { p.bare-text { a href="/gateway" { "Back" } } }
        },
    )
}

/// `/gateway/organization`: which organization a platform admin looks at.
pub(super) struct Choose(pub(super) Arc<Dashboard>);

impl Endpoint for Choose {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        if *request.method() != Method::POST {
            return Ok(guarded(not_allowed("POST")));
        }
        let (caller, form) = match form_caller(&self.0, &mut request).await {
            Ok(found) => found,
            Err(Refusal::Unauthorized(..)) => return Ok(guarded(redirect("/login"))),
            Err(refusal) => return Ok(guarded(super::layout::bare_error(&refusal))),
        };
        let own = caller.bearer().organization.0;
        let chosen = form.get("organization").parse().ok().filter(|chosen| *chosen != own);
        // Whether it may be looked at is decided whenever it is.
        let cookie = self.0.management.browsers.choose(chosen);
        Ok(guarded(with_cookies(redirect("/gateway"), [cookie])))
    }
}

#[cfg(test)]
mod tests {
    use super::next_of;

    #[test]
    fn after_signing_in_nobody_is_sent_anywhere_else() {
        for ours in ["/gateway", "/gateway/keys?status=active", "/gateway?range=7d"] {
            assert_eq!(next_of(Some(ours)), ours);
        }
        for other in [
            "https://evil.example",
            "//evil.example",
            "/gatewayx",
            "/gateway/\\evil",
            "/login",
            "",
            "/gateway/\r\nx: y",
        ] {
            assert_eq!(next_of(Some(other)), "/gateway", "{other}");
        }
        assert_eq!(next_of(None), "/gateway");
    }
}
