//! Who may do what here: from a token to a proof of a right.
//!
//! A handler takes a [`May`] of the right it needs. Only [`May`]'s own check can make one, and nothing here can be reached
//! without one: what it is good for are its methods, in `access`. A handler that forgets to ask for a right does not
//! compile. Which role has which right is `domain::role`'s.
//!
//! Who somebody is (a [`Caller`]) is told by a bearer token or by the dashboard's cookie, see `session`.

pub mod access;
mod audit;
mod batches;
mod endpoints;
mod exports;
mod jobs;
pub mod keys;
mod limits;
pub mod models;
mod organizations;
pub mod providers;
mod repricing;
pub mod session;
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
    Export,
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
        Caller::of(management, request).await?.may()
    }
}

/// Somebody whose token or cookie is good. What they may do is not said yet: that is what [`Caller::may`] is for.
#[derive(Clone)]
pub struct Caller {
    management: Arc<Management>,
    author: Author,
    bearer: Bearer,
    /// Whether they can do nothing but change their password.
    must_change_password: bool,
    /// Whether it is a browser that showed a cookie, and not a token.
    by_cookie: bool,
    /// The organization it is about; `None`: one they named and may not see.
    organization: Option<OrganizationId>,
    /// Whether no organization was named by somebody who may see all of them.
    everywhere: bool,
}

impl Caller {
    /// Finds out who is calling, and about which organization.
    ///
    /// # Errors
    /// Nobody known, or it cannot be found out right now.
    pub async fn of(management: Arc<Management>, request: &Request) -> Result<Self, Refusal> {
        let headers = request.headers();
        let by_cookie = sent_token(headers).is_none();
        let identity = match sent_token(headers) {
            Some(token) => management.identify(token).await?,
            None => management.identify_browser(request).await?,
        };
        let Identified {
            bearer,
            via,
            must_change_password,
        } = identity;
        let named = match headers.get(X_ORGANIZATION) {
            Some(named) => Some(named.to_str().ok().and_then(|text| text.parse::<Uuid>().ok())),
            // A page's choice is taken where it can be: whoever has lost the right to it sees their own.
            None => session::chosen_organization(request)
                .filter(|_| by_cookie && bearer.role.everywhere())
                .map(Some),
        };
        let organization = match named {
            None => Some(bearer.organization),
            // Somebody else's organization answers exactly like one that does not exist.
            Some(named) => named
                .map(OrganizationId)
                .filter(|named| *named == bearer.organization || bearer.role.everywhere()),
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
            everywhere: bearer.role.everywhere() && named.is_none(),
            bearer,
            must_change_password,
            by_cookie,
            organization,
        })
    }

    /// The proof that they may do something.
    ///
    /// # Errors
    /// They may not, or the organization they named is none of theirs.
    pub fn may<G: Grant>(&self) -> Result<May<G>, Refusal> {
        if self.must_change_password && G::RIGHT != Right::OwnAccount {
            let detail = "change your password first, by POST /api/auth/password";
            return Err(Refusal::forbidden(detail));
        }
        if !self.bearer.role.may(G::RIGHT) {
            let detail = format!(
                "the role {} may not do this: it needs the right to {}",
                self.bearer.role,
                G::RIGHT.as_str()
            );
            return Err(Refusal::forbidden(detail));
        }
        Ok(May {
            management: self.management.clone(),
            author: self.author.clone(),
            everywhere: self.everywhere,
            bearer: self.bearer.clone(),
            organization: self.organization.ok_or_else(|| Refusal::not_found("organization"))?,
            right: PhantomData,
        })
    }

    /// Who they are, as their token or cookie says: role, team and user.
    pub fn bearer(&self) -> &Bearer {
        &self.bearer
    }

    /// Whether they can do nothing but change their password.
    pub fn must_change_password(&self) -> bool {
        self.must_change_password
    }
}

/// Who a token or a cookie is of.
struct Identified {
    bearer: Bearer,
    via: Via,
    must_change_password: bool,
}

impl Management {
    /// Who a bearer token is for, and how they proved it. Only what has a good signature is looked up.
    async fn identify(&self, token: &str) -> Result<Identified, Refusal> {
        match self.tokens.check(token) {
            Some(bearer) => self.identify_by_session(bearer).await,
            None => {
                let (bearer, via) = self.identify_externally(token).await?;
                Ok(Identified {
                    bearer,
                    via,
                    must_change_password: false,
                })
            }
        }
    }

    /// Whether the session of something with a good signature still stands, if it has one.
    async fn identify_by_session(&self, bearer: Bearer) -> Result<Identified, Refusal> {
        let (Some(user), Some(session)) = (bearer.user, bearer.session) else {
            return Ok(Identified {
                bearer,
                via: Via::Token,
                must_change_password: false,
            });
        };
        let state = self.people.sessions.state(user, session.id).await;
        let state = state.map_err(|error| Refusal::unavailable(&error))?;
        // A change of the user ends every token from before it; the session's next one says what they are now.
        let state = state
            .filter(|state| state.revision == session.revision)
            .ok_or_else(Refusal::unauthorized)?;
        Ok(Identified {
            bearer,
            via: session.via,
            must_change_password: state.must_change_password,
        })
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
