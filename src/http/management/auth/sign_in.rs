//! Signing in, staying signed in and signing out.
//!
//! A [`Visitor`] is anybody: what they can do is sign in, and nothing else. What is said of a wrong address and of a wrong
//! password is the same, after the same work.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use poem::{FromRequest, Request, RequestBody};
use secrecy::SecretString;
use uuid::Uuid;

use super::session::sent_cookie;
use super::{May, OwnAccount};
use crate::domain::audit::{Author, Via};
use crate::domain::ids::{OrganizationId, RequestId, TeamId, UserId};
use crate::domain::role::Role;
use crate::domain::tenancy::{Organization, Team};
use crate::domain::user::{
    Email, ExternalPerson, ExternalSignIn, NewSession, Refresh, Refreshed, User, password_problem,
};
use crate::http::auth::address_of;
use crate::http::boundary::Arrival;
use crate::http::management::Management;
use crate::http::management::problem::Refusal;
use crate::secrets::management_token::{Bearer, Session};
use crate::secrets::oidc::claims::Claimed;
use crate::secrets::oidc::{self, Oidc, OidcError, Start};
use crate::secrets::password::PasswordError;

/// What is said to whoever cannot sign in.
const WRONG: &str = "the e-mail address or the password is wrong, or this user may not sign in";

/// Anybody.
pub struct Visitor {
    management: Arc<Management>,
    address: Option<IpAddr>,
    request: RequestId,
    /// What a browser keeps of the sign-in it began.
    cookie: Option<String>,
}

/// A session as its user gets it.
pub struct SignedIn {
    /// Who.
    pub user: User,
    /// The access token.
    pub access: String,
    /// How long that is good for.
    pub access_lifetime: Duration,
    /// What the next one is got by; `None`: the one before stays good.
    pub refresh: Option<(SecretString, DateTime<Utc>)>,
    /// Whom tokens of the session are for.
    pub bearer: Bearer,
}

/// Who somebody is.
pub struct Identity {
    /// As their token says.
    pub bearer: Bearer,
    /// How they proved it.
    pub via: Via,
    /// The organization it is about.
    pub organization: Organization,
    /// Their team.
    pub team: Option<Team>,
    /// Their account, if they are a user.
    pub user: Option<User>,
}

impl<'a> FromRequest<'a> for Visitor {
    async fn from_request(request: &'a Request, _body: &mut RequestBody) -> poem::Result<Self> {
        let management: &Arc<Management> = request.data().expect("the endpoint carries it");
        Ok(Self::of(management.clone(), request))
    }
}

impl Visitor {
    /// Whoever sends a request.
    pub fn of(management: Arc<Management>, request: &Request) -> Self {
        Self {
            address: address_of(request, &management.people.trusted_proxies),
            request: Arrival::of(request).id,
            cookie: sent_cookie(request.headers(), oidc::COOKIE).map(str::to_owned),
            management,
        }
    }

    /// Whether an issuer outside vouches for people here.
    pub fn knows_an_issuer(&self) -> bool {
        self.management.people.oidc.is_some()
    }

    /// Signs somebody in by their password.
    pub async fn sign_in(&self, email: &str, password: SecretString) -> Result<SignedIn, Refusal> {
        let email = Email::parse(email).map_err(|problem| Refusal::field("/email", problem))?;
        let people = &self.management.people;
        let attempt = people.gate.enter(&email, self.address).map_err(too_often)?;
        let account = people.sign_ins.account(&email).await;
        let account = account.map_err(|error| Refusal::unavailable(&error))?;
        let hash = account.as_ref().and_then(|account| account.password_hash.clone());
        let matches = people.passwords.matches(password, hash).await.map_err(busy)?;
        let user = account
            .map(|account| account.user)
            .filter(|user| matches && !user.disabled);
        let user = user.ok_or_else(|| Refusal::wrong_credentials(WRONG))?;
        let signed_in = self.begin(&user, Via::Password).await?;
        attempt.succeeded();
        Ok(signed_in)
    }

    /// Exchanges a refresh token for the next one.
    pub async fn refresh(&self, token: &str) -> Result<SignedIn, Refusal> {
        let wrong = || Refusal::wrong_credentials("this refresh token is not good, or not any more; sign in again");
        let people = &self.management.people;
        let presented = people.refresh_tokens.recognise(token).ok_or_else(wrong)?;
        let next_generation = presented.generation.checked_add(1).ok_or_else(wrong)?;
        let next = people.refresh_tokens.make(presented.session, next_generation);
        let now = Utc::now();
        let expires_at = after(now, people.lifetimes.refresh);
        let refresh = Refresh {
            session: presented.session,
            generation: presented.generation,
            hash: presented.hash,
            next_hash: next.hash,
            now,
            expires_at,
        };
        let by = self.author("a refresh token", Via::Password);
        let refreshed = people.sign_ins.refresh(&refresh, &by).await;
        match refreshed.map_err(|error| Refusal::unavailable(&error))? {
            Refreshed::Good { user, via } => {
                let session = Session {
                    id: presented.session,
                    revision: user.revision,
                    via,
                };
                let (bearer, access) = self.management.access_token(&user, session)?;
                Ok(SignedIn {
                    user,
                    access,
                    access_lifetime: people.lifetimes.access,
                    refresh: Some((next.token, expires_at)),
                    bearer,
                })
            }
            Refreshed::Reused => {
                tracing::warn!(session = %presented.session, "a refresh token was used twice; its session is over");
                Err(wrong())
            }
            Refreshed::Unknown => Err(wrong()),
        }
    }

    async fn begin(&self, user: &User, via: Via) -> Result<SignedIn, Refusal> {
        let people = &self.management.people;
        let (session, token) = self.new_session(user.id, via);
        let (id, expires_at) = (session.id, session.expires_at);
        let by = Author {
            role: Some(user.role),
            ..self.author(user.email.as_str(), via)
        };
        let begun = people.sign_ins.begin(session, &by).await;
        let begun = begun.map_err(|error| Refusal::unavailable(&error))?;
        let user = begun.ok_or_else(|| Refusal::wrong_credentials(WRONG))?;
        self.signed_in(user, id, via, token, expires_at)
    }

    /// A session that is not begun yet, with its first refresh token.
    fn new_session(&self, user: UserId, via: Via) -> (NewSession, SecretString) {
        let people = &self.management.people;
        let (id, now) = (Uuid::now_v7(), Utc::now());
        let made = people.refresh_tokens.make(id, 0);
        let ends_at = after(now, people.lifetimes.session);
        let session = NewSession {
            id,
            user,
            via,
            hash: made.hash,
            now,
            expires_at: after(now, people.lifetimes.refresh).min(ends_at),
            ends_at,
        };
        (session, made.token)
    }

    fn signed_in(
        &self,
        user: User,
        session: Uuid,
        via: Via,
        token: SecretString,
        expires_at: DateTime<Utc>,
    ) -> Result<SignedIn, Refusal> {
        let session = Session {
            id: session,
            revision: user.revision,
            via,
        };
        let (bearer, access) = self.management.access_token(&user, session)?;
        Ok(SignedIn {
            user,
            access,
            access_lifetime: self.management.people.lifetimes.access,
            refresh: Some((token, expires_at)),
            bearer,
        })
    }

    fn author(&self, subject: &str, via: Via) -> Author {
        Author {
            subject: subject.to_owned(),
            role: None,
            via,
            address: self.address,
            request: Some(self.request),
        }
    }
}

impl Visitor {
    /// Sends a browser to the issuer outside.
    pub async fn start_externally(&self) -> Result<Start, Refusal> {
        let oidc = self.issuer()?;
        oidc.start(Utc::now()).await.map_err(refused)
    }

    /// Signs somebody in whom the issuer outside has sent back.
    pub async fn finish_externally(&self, code: &str, state: &str) -> Result<(SignedIn, String), Refusal> {
        let (oidc, people) = (self.issuer()?, &self.management.people);
        people.gate.enter_from(self.address).map_err(too_often)?;
        let kept = self.cookie.as_deref().unwrap_or_default();
        let claimed = oidc.finish(code, state, kept, Utc::now()).await.map_err(refused)?;
        let (organization, team) = self.management.place_of(&claimed).await?;
        let email = claimed.email.ok_or_else(|| {
            Refusal::forbidden("the issuer says no e-mail address of you, by which people are known here")
        })?;
        let person = ExternalPerson {
            external_id: claimed.external_id,
            name: claimed
                .name
                .unwrap_or_else(|| email.as_str().chars().take(128).collect()),
            email,
            email_verified: claimed.email_verified,
            organization,
            team,
            role: claimed.role,
        };
        let (session, token) = self.new_session(UserId(Uuid::nil()), Via::Oidc);
        let (id, expires_at) = (session.id, session.expires_at);
        let by = Author {
            role: Some(person.role),
            ..self.author(person.email.as_str(), Via::Oidc)
        };
        let signed_in = people.sign_ins.begin_externally(&person, session, &by).await;
        let user = match signed_in.map_err(|error| Refusal::unavailable(&error))? {
            ExternalSignIn::SignedIn(user) => user,
            ExternalSignIn::Disabled => return Err(Refusal::forbidden("this user may not sign in")),
            ExternalSignIn::EmailTaken => {
                let detail = "somebody else is known here by this e-mail address, or the issuer has not verified it";
                return Err(Refusal::conflict(detail));
            }
            ExternalSignIn::NoSuchTeam => return Err(no_place()),
        };
        Ok((self.signed_in(user, id, Via::Oidc, token, expires_at)?, oidc.forget()))
    }

    fn issuer(&self) -> Result<&Oidc, Refusal> {
        let issuer = self.management.people.oidc.as_ref();
        issuer.ok_or_else(|| Refusal::not_found("way to sign in: oidc.issuer is not set"))
    }
}

impl Management {
    /// Who a token of the issuer outside is for.
    pub(super) async fn identify_externally(&self, token: &str) -> Result<(Bearer, Via), Refusal> {
        let Some(oidc) = &self.people.oidc else {
            return Err(Refusal::unauthorized());
        };
        let claimed = oidc.bearer(token).await.map_err(refused)?;
        let claimed = claimed.ok_or_else(Refusal::unauthorized)?;
        let known = self.people.sessions.external_user(&claimed.external_id).await;
        let known = known.map_err(|error| Refusal::unavailable(&error))?;
        if known.as_ref().is_some_and(|user| user.disabled) {
            return Err(Refusal::unauthorized());
        }
        let (organization, team) = self.place_of(&claimed).await?;
        let subject = claimed.email.map_or(claimed.subject, |email| email.as_str().to_owned());
        let bearer = Bearer {
            subject,
            role: claimed.role,
            organization,
            team,
            user: known.map(|user| user.id),
            session: None,
        };
        Ok((bearer, Via::Oidc))
    }

    /// Where the issuer says that somebody belongs.
    async fn place_of(&self, claimed: &Claimed) -> Result<(OrganizationId, Option<TeamId>), Refusal> {
        let unavailable = |error| Refusal::unavailable(&error);
        let tenants = &self.people.tenants;
        let organization = tenants
            .tenant_by_slug(&claimed.organization)
            .await
            .map_err(unavailable)?;
        let organization = organization.ok_or_else(no_place)?;
        let team = match &claimed.team {
            None => None,
            Some(slug) => {
                let found = tenants.team_by_slug(organization, slug).await.map_err(unavailable)?;
                Some(found.ok_or_else(no_place)?)
            }
        };
        if claimed.role == Role::TeamAdmin && team.is_none() {
            return Err(Refusal::forbidden(
                "the issuer says that you are a team_admin, and of no team",
            ));
        }
        Ok((organization, team))
    }
}

/// The issuer names an organization or a team that is not here.
fn no_place() -> Refusal {
    Refusal::forbidden("the issuer says that you are of an organization or a team that is not here")
}

fn refused(error: OidcError) -> Refusal {
    match error {
        OidcError::Unavailable(_) => {
            tracing::warn!(%error, "somebody cannot sign in by the issuer");
            Refusal::unavailable_because("the issuer does not answer right now, or not as it must; the log says why")
        }
        OidcError::Rejected(why) => Refusal::wrong_credentials(why),
        OidcError::NotAllowed(why) => Refusal::forbidden(why),
    }
}

impl Management {
    /// An access token of a session, and whom it is for.
    fn access_token(&self, user: &User, session: Session) -> Result<(Bearer, String), Refusal> {
        let bearer = Bearer {
            subject: user.email.as_str().to_owned(),
            role: user.role,
            organization: user.organization,
            team: user.team,
            user: Some(user.id),
            session: Some(session),
        };
        let signed = self.tokens.sign(&bearer, Utc::now(), self.people.lifetimes.access);
        let signed = signed.map_err(|error| Refusal::unavailable(&error.into()))?;
        Ok((bearer, signed))
    }
}

impl May<OwnAccount> {
    /// Who is calling.
    pub async fn identity(&self) -> Result<Identity, Refusal> {
        let unavailable = |error| Refusal::unavailable(&error);
        let people = &self.management.people;
        let organization = people.tenants.tenant(self.organization).await.map_err(unavailable)?;
        let team = match self.bearer.team {
            None => None,
            Some(team) => people
                .tenants
                .team(self.bearer.organization, team)
                .await
                .map_err(unavailable)?,
        };
        let user = match self.bearer.user {
            None => None,
            Some(user) => {
                let account = people.sign_ins.account_of(user).await.map_err(unavailable)?;
                account.map(|account| account.user)
            }
        };
        Ok(Identity {
            bearer: self.bearer.clone(),
            via: self.author.via,
            organization: organization.ok_or_else(|| Refusal::not_found("organization"))?,
            team,
            user,
        })
    }

    /// Ends the session the caller came with.
    pub async fn sign_out(&self) -> Result<(), Refusal> {
        let (user, session) = self.session()?;
        let people = &self.management.people;
        let ended = people.sign_ins.end(user, session.id, &self.author).await;
        ended.map_err(|error| Refusal::unavailable(&error))?;
        people.sessions.forget(user, session.id).await;
        Ok(())
    }

    /// Gives the caller another password. Their other sessions end, and the token they came with is replaced.
    pub async fn change_password(&self, current: SecretString, new: SecretString) -> Result<SignedIn, Refusal> {
        let (id, session) = self.session()?;
        let people = &self.management.people;
        let account = people.sign_ins.account_of(id).await;
        let account = account.map_err(|error| Refusal::unavailable(&error))?;
        let account = account.ok_or_else(Refusal::unauthorized)?;
        // Whoever has found an open session must not find out the password by it.
        let attempt = people
            .gate
            .enter(&account.user.email, self.author.address)
            .map_err(too_often)?;
        let same = people
            .passwords
            .matches(current, account.password_hash)
            .await
            .map_err(busy)?;
        if !same {
            return Err(Refusal::field("/current_password", "is not your password"));
        }
        attempt.succeeded();
        let hash = self
            .management
            .hash_new(&account.user.email, new, "/new_password")
            .await?;
        let changed = people
            .sign_ins
            .set_password(id, &hash, false, Some(session.id), &self.author)
            .await;
        let changed = changed.map_err(|error| Refusal::unavailable(&error))?;
        let user = changed.ok_or_else(Refusal::unauthorized)?;
        people.sessions.forget(id, session.id).await;
        let session = Session {
            revision: user.revision,
            ..session
        };
        let (bearer, access) = self.management.access_token(&user, session)?;
        Ok(SignedIn {
            user,
            access,
            access_lifetime: people.lifetimes.access,
            refresh: None,
            bearer,
        })
    }

    fn session(&self) -> Result<(UserId, Session), Refusal> {
        let detail = "this token is not of a user who signed in here";
        self.bearer
            .user
            .zip(self.bearer.session)
            .ok_or_else(|| Refusal::conflict(detail))
    }
}

impl Management {
    /// The hash of a new password, if it is one that may be had.
    pub(super) async fn hash_new(&self, email: &Email, new: SecretString, at: &str) -> Result<String, Refusal> {
        if let Some(problem) = password_problem(secrecy::ExposeSecret::expose_secret(&new), email) {
            return Err(Refusal::field(at, problem));
        }
        self.people.passwords.hash(new).await.map_err(busy)
    }
}

fn too_often(wait: Duration) -> Refusal {
    Refusal::too_many("too many attempts to sign in failed; try again later", wait)
}

pub(super) fn busy(error: PasswordError) -> Refusal {
    Refusal::unavailable(&error.into())
}

fn after(now: DateTime<Utc>, time: Duration) -> DateTime<Utc> {
    TimeDelta::from_std(time)
        .ok()
        .and_then(|time| now.checked_add_signed(time))
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}
