//! Who may do what here: from a token to a proof of a right.
//!
//! A handler takes a [`May`] of the right it needs. Only [`May`]'s own check can make one, and nothing here can be reached
//! without one: what it is good for are its methods, in `access`. A handler that forgets to ask for a right does not
//! compile. Which role has which right is `domain::role`'s.

pub mod access;
mod audit;
mod endpoints;
mod jobs;
pub mod keys;
mod limits;
pub mod models;
mod organizations;
pub mod providers;
mod repricing;
pub mod sign_in;
mod teams;
mod usage;
pub mod users;
mod webhooks;

pub use webhooks::WebhookChange;

use std::marker::PhantomData;
use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use poem::{Request, RequestBody};
use poem_openapi::registry::{MetaSecurityScheme, Registry};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use uuid::Uuid;

use super::Management;
use super::problem::Refusal;
use crate::domain::audit::{Author, Deed, Via};
use crate::domain::ids::OrganizationId;
use crate::domain::role::Right;
use crate::http::auth::address_of;
use crate::http::boundary::Arrival;
use crate::secrets::management_token::Bearer;

/// The header by which a platform admin names another organization.
pub const X_ORGANIZATION: &str = "x-bonito-organization";
/// The name of the security scheme in the document.
const SCHEME: &str = "bearer";

/// A right as a type.
pub trait Grant: Send + Sync + 'static {
    /// The right.
    const RIGHT: Right;
}

macro_rules! grants {
    ($($name:ident),+ $(,)?) => {$(
        #[doc = concat!("[`Right::", stringify!($name), "`] as a type.")]
        #[derive(Debug)]
        pub enum $name {}

        impl Grant for $name {
            const RIGHT: Right = Right::$name;
        }
    )+};
}

grants!(
    ReadConfig,
    WriteConfig,
    ReadProviders,
    ReadUsage,
    ReadLogs,
    ReadAudit,
    OwnAccount,
    ReadOrganization,
    WriteOrganization,
    ManageOrganizations,
    ReadTeams,
    WriteTeams,
    ReadUsers,
    WriteUsers,
    ReadJobs,
    RetryJobs,
    ReadWebhooks,
    WriteWebhooks,
    ReadKeys,
    WriteKeys,
    ReadLimits,
    WriteLimits,
    WriteProviders,
    ReadPayloads,
    Reprice,
);

pub use usage::Asked;

/// The proof that a caller may do something in an organization.
pub struct May<G> {
    management: Arc<Management>,
    author: Author,
    bearer: Bearer,
    organization: OrganizationId,
    /// Whether it is about every organization: one that may be was not named.
    everywhere: bool,
    right: PhantomData<fn() -> G>,
}

impl<G: Grant> May<G> {
    /// The organization it is about.
    pub fn organization(&self) -> OrganizationId {
        self.organization
    }

    /// Who is calling, as their token says: role, team and user.
    pub fn bearer(&self) -> &Bearer {
        &self.bearer
    }

    /// Who does what is done by this proof, for the audit log.
    pub fn author(&self) -> &Author {
        &self.author
    }

    /// Writes down what was just done by this proof, where the store has not done so in the transaction of the write.
    /// A handler calls it before it answers: what cannot be written down has failed.
    pub async fn record(&self, deed: Deed) -> Result<(), Refusal> {
        let recorded = self.management.audit.append(self.organization, &self.author, deed);
        recorded.await.map_err(|error| Refusal::unavailable(&error))
    }

    /// Checks who is calling, and for which organization.
    async fn check(management: Arc<Management>, request: &Request) -> Result<Self, Refusal> {
        let headers = request.headers();
        let token = sent_token(headers).ok_or_else(Refusal::unauthorized)?;
        let (bearer, via) = management.identify(token, G::RIGHT).await?;
        if !bearer.role.may(G::RIGHT) {
            let detail = format!(
                "the role {} may not do this: it needs the right to {}",
                bearer.role,
                G::RIGHT.as_str()
            );
            return Err(Refusal::forbidden(detail));
        }
        let organization = match headers.get(X_ORGANIZATION) {
            None => bearer.organization,
            Some(named) => {
                let named = named
                    .to_str()
                    .ok()
                    .and_then(|text| text.parse::<Uuid>().ok())
                    .map(OrganizationId);
                // Somebody else's organization answers exactly like one that does not exist.
                let named = named.filter(|named| *named == bearer.organization || bearer.role.everywhere());
                named.ok_or_else(|| Refusal::not_found("organization"))?
            }
        };
        let author = Author {
            subject: bearer.subject.clone(),
            role: Some(bearer.role),
            via,
            address: address_of(request, &management.people.trusted_proxies),
            request: Some(Arrival::of(request).id),
        };
        Ok(Self {
            management,
            author,
            everywhere: bearer.role.everywhere() && !headers.contains_key(X_ORGANIZATION),
            bearer,
            organization,
            right: PhantomData,
        })
    }
}

impl Management {
    /// Who a token is for, and how they proved it. Only what has a good signature is looked up.
    async fn identify(&self, token: &str, right: Right) -> Result<(Bearer, Via), Refusal> {
        let Some(bearer) = self.tokens.check(token) else {
            return self.identify_externally(token).await;
        };
        let (Some(user), Some(session)) = (bearer.user, bearer.session) else {
            return Ok((bearer, Via::Token));
        };
        let state = self.people.sessions.state(user, session.id).await;
        let state = state.map_err(|error| Refusal::unavailable(&error))?;
        // A change of the user ends every token from before it; the session's next one says what they are now.
        let state = state
            .filter(|state| state.revision == session.revision)
            .ok_or_else(Refusal::unauthorized)?;
        if state.must_change_password && right != Right::OwnAccount {
            let detail = "change your password first, by POST /api/auth/password";
            return Err(Refusal::forbidden(detail));
        }
        Ok((bearer, session.via))
    }
}

/// The token a caller sent.
fn sent_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

impl<'a, G: Grant> ApiExtractor<'a> for May<G> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        registry.create_security_scheme(
            SCHEME,
            MetaSecurityScheme {
                ty: "http",
                description: Some(
                    "Authorization: Bearer …, a token from /api/auth/login or one that `bonito token` made.",
                ),
                name: None,
                key_in: None,
                scheme: Some("bearer"),
                bearer_format: Some("JWT"),
                flows: None,
                openid_connect_url: None,
            },
        );
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![SCHEME]
    }

    async fn from_request(
        request: &'a Request,
        _body: &mut RequestBody,
        _options: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        let management: &Arc<Management> = request.data().expect("the endpoint carries it");
        Ok(Self::check(management.clone(), request).await?)
    }
}
