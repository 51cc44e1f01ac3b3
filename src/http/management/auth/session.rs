//! Browsers: who somebody is by the dashboard's cookie.
//!
//! A cookie is sent by the browser whoever made the page that asks, so it is not enough: whatever is not a mere look has
//! to come from a page of ours, which knows the session's proof ([`CSRF_HEADER`]), and what a browser says of where a
//! request comes from must not be somewhere else.
//!
//! A session that is used goes on: opening a page renews it now and then ([`Caller::renewed`]), up to its end. Only the row
//! in the database says whether there is a session, so a cookie that was renewed is worth nothing once that is gone.

use std::time::Duration;

use chrono::{DateTime, Utc};
use http::header::{COOKIE, HOST, ORIGIN};
use http::{HeaderMap, Method};
use poem::Request;
use uuid::Uuid;

use super::sign_in::SignedIn;
use super::{Caller, Identified};
use crate::http::management::Management;
use crate::http::management::problem::Refusal;
use crate::secrets::csrf::CsrfProofs;
use crate::secrets::management_token::{Bearer, MAX_COOKIE_LIFETIME, ManagementTokens};

/// The header in which a page of ours proves that it is one.
pub const CSRF_HEADER: &str = "x-bonito-csrf";
/// What a browser says of where a request comes from (Fetch Metadata, <https://www.w3.org/TR/fetch-metadata/>).
const FETCH_SITE: &str = "sec-fetch-site";
/// The cookie of a platform admin who looks at another organization than their own.
const ORGANIZATION: &str = "bonito_organization";

/// Makes the dashboard's cookies and checks them.
#[derive(Clone, Debug)]
pub struct BrowserSessions {
    /// Signs them.
    pub tokens: ManagementTokens,
    /// Proves that a page is ours.
    pub proofs: CsrfProofs,
    /// Whether people reach the gateway by HTTPS alone.
    pub secure: bool,
}

impl BrowserSessions {
    /// The name of the cookie. The prefix has browsers take it from this host alone, by HTTPS alone (RFC 6265bis).
    fn name(&self) -> &'static str {
        if self.secure {
            "__Host-bonito_session"
        } else {
            "bonito_session"
        }
    }

    /// The cookie of somebody who has just signed in, or changed their password. `ends_at` is when the session ends;
    /// `None`: it goes on, and the cookie with it until the browser is closed or `longest` is over.
    ///
    /// # Errors
    /// It cannot be signed.
    pub fn begin(&self, signed_in: &SignedIn, longest: Duration, now: DateTime<Utc>) -> Result<String, Refusal> {
        let left = signed_in.refresh.as_ref().map(|(_, end)| (*end - now).to_std());
        let lifetime = left.and_then(Result::ok).unwrap_or(longest).min(longest);
        let signed = self.tokens.sign(&signed_in.bearer, now, lifetime);
        let token = signed.map_err(|error| Refusal::unavailable(&error.into()))?;
        Ok(self.cookie(self.name(), &token, lifetime.as_secs()))
    }

    /// The cookie of a session that goes on until a time.
    fn renew(&self, bearer: &Bearer, now: DateTime<Utc>, until: DateTime<Utc>) -> Option<String> {
        let lifetime = (until - now).to_std().ok()?.min(MAX_COOKIE_LIFETIME);
        let token = self.tokens.sign(bearer, now, lifetime).ok()?;
        Some(self.cookie(self.name(), &token, lifetime.as_secs()))
    }

    /// What has a browser forget its session.
    pub fn end(&self) -> [String; 2] {
        [self.cookie(self.name(), "", 0), self.cookie(ORGANIZATION, "", 0)]
    }

    /// What has a browser look at an organization; `None`: at one's own.
    pub fn choose(&self, organization: Option<Uuid>) -> String {
        match organization {
            Some(id) => self.cookie(ORGANIZATION, &id.to_string(), 30 * 24 * 3_600),
            None => self.cookie(ORGANIZATION, "", 0),
        }
    }

    fn cookie(&self, name: &str, value: &str, seconds: u64) -> String {
        let secure = if self.secure { "; Secure" } else { "" };
        format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}")
    }
}

/// The value of a cookie.
pub fn sent_cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';'));
    pairs.find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

/// The organization that a platform admin has chosen to look at.
pub(super) fn chosen_organization(request: &Request) -> Option<Uuid> {
    sent_cookie(request.headers(), ORGANIZATION)?.parse().ok()
}

/// Whether a browser says that a page of somebody else's sends a request. What says nothing is no browser of today; the
/// proof decides then.
pub fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    // The browser knows it best, and no page can write this header. `none`: typed or bookmarked.
    if let Some(site) = text(FETCH_SITE) {
        return !matches!(site, "same-origin" | "none");
    }
    let Some(origin) = text(ORIGIN.as_str()) else {
        return false;
    };
    // The scheme may differ where a proxy speaks TLS for us; whose page it is the host says.
    let host = origin.split_once("://").map(|(_, host)| host);
    host.is_none() || host != text(HOST.as_str())
}

impl Management {
    /// Who a browser's cookie is of.
    pub(super) async fn identify_browser(&self, request: &Request) -> Result<Identified, Refusal> {
        let headers = request.headers();
        let cookie = sent_cookie(headers, self.browsers.name()).filter(|cookie| !cookie.is_empty());
        let bearer = cookie.and_then(|cookie| self.browsers.tokens.check(cookie));
        let bearer = bearer.ok_or_else(Refusal::unauthorized)?;
        let session = bearer.session.ok_or_else(Refusal::unauthorized)?;
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            if is_from_elsewhere(headers) {
                return Err(Refusal::forbidden("another site's page may not ask for this"));
            }
            let proof = headers.get(CSRF_HEADER).and_then(|value| value.to_str().ok());
            if !proof.is_some_and(|proof| self.browsers.proofs.is_of(session.id, proof)) {
                let detail = "with the dashboard's cookie this needs the header x-bonito-csrf, which its pages know";
                return Err(Refusal::forbidden(detail));
            }
        }
        self.identify_by_session(bearer).await
    }
}

impl Caller {
    /// What a page proves by that it is ours; empty for whoever came with a bearer token.
    pub fn csrf(&self) -> String {
        let session = self.bearer.session;
        session.map_or_else(String::new, |session| self.management.browsers.proofs.of(session.id))
    }

    /// The cookie with which their session goes on, where it is time for another one. It says what the one they came with
    /// says, so whatever ends that one ends it, too: the end of the session, or a change of its user.
    pub async fn renewed(&self) -> Option<String> {
        let (user, session) = self.bearer.user.zip(self.bearer.session).filter(|_| self.by_cookie)?;
        let people = &self.management.people;
        let (now, state) = (Utc::now(), people.sessions.state(user, session.id).await);
        let until = state.ok()??.renewed(now, people.lifetimes.refresh)?;
        // What cannot be written now may be by the next page.
        let there = people.sign_ins.renew(user, session.id, now, until).await.ok()?;
        people.sessions.forget(user, session.id).await;
        if !there {
            return None;
        }
        self.management.browsers.renew(&self.bearer, now, until)
    }

    /// Whether the session is still what it was when the caller was identified.
    ///
    /// # Errors
    /// It is not, or it cannot be found out right now.
    pub async fn again(&self) -> Result<Self, Refusal> {
        let identified = self.management.identify_by_session(self.bearer.clone()).await?;
        Ok(Self {
            must_change_password: identified.must_change_password,
            ..self.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_request_is_from_elsewhere_where_the_browser_says_so() {
        let elsewhere = |pairs: &[(&'static str, &str)]| is_from_elsewhere(&headers(pairs));
        assert!(!elsewhere(&[("host", "a.example")]));
        assert!(!elsewhere(&[("host", "a.example"), ("sec-fetch-site", "same-origin")]));
        assert!(!elsewhere(&[
            ("host", "a.example:8"),
            ("origin", "https://a.example:8")
        ]));
        // A proxy that asks by another name than people do.
        assert!(!elsewhere(&[
            ("host", "bonito:8001"),
            ("origin", "https://a.example"),
            ("sec-fetch-site", "same-origin")
        ]));
        for (name, value) in [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("origin", "https://b.example"),
            ("origin", "null"),
        ] {
            assert!(elsewhere(&[("host", "a.example"), (name, value)]), "{name}: {value}");
        }
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let headers = headers(&[("cookie", "xbonito=1; bonito_session=abc; bonito=2")]);
        assert_eq!(sent_cookie(&headers, "bonito_session"), Some("abc"));
        assert_eq!(sent_cookie(&headers, "bonito"), Some("2"));
        assert_eq!(sent_cookie(&headers, "session"), None);
    }
}
