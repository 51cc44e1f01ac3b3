//! `/api/auth`: signing in and out, staying signed in, and who one is.

use chrono::{DateTime, Utc};
use poem_openapi::param::Query;
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};
use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;

use super::Section;
use super::auth::sign_in::{SignedIn, Visitor};
use super::auth::{May, OwnAccount};
use super::examples::example;
use super::problem::{Act, Read, Refusal, Refused, SignIn, SignInByLink};
use super::users::{RoleName, User};

/// The handlers.
pub struct SignInApi;

/// An address and a password.
#[derive(Object)]
#[oai(deny_unknown_fields, example)]
struct Login {
    /// The address.
    #[oai(validator(max_length = 320))]
    email: String,
    /// The password.
    #[oai(validator(max_length = 1024))]
    password: String,
}

example!(Login, {"email": "ada@example.com", "password": "correct horse battery"});

/// A refresh token.
#[derive(Object)]
#[oai(deny_unknown_fields, example)]
struct RefreshToken {
    /// The token, as the last answer had it.
    #[oai(validator(max_length = 1024))]
    refresh_token: String,
}

example!(RefreshToken, {"refresh_token": "bnr_…"});

/// A password and the one it takes the place of.
#[derive(Object)]
#[oai(deny_unknown_fields, example)]
struct PasswordChange {
    /// The one there is.
    #[oai(validator(max_length = 1024))]
    current_password: String,
    /// The new one: at least 12 characters.
    #[oai(validator(max_length = 1024))]
    new_password: String,
}

example!(PasswordChange, {"current_password": "correct horse battery", "new_password": "a longer horse battery"});

/// A session.
#[derive(Object)]
#[oai(example)]
struct Session {
    /// Opens the management API, as `Authorization: Bearer …`.
    access_token: String,
    /// Always `Bearer`.
    token_type: String,
    /// Seconds until the access token is over.
    expires_in: u64,
    /// Gets the next access token, once; absent where the one there is stays good.
    #[oai(skip_serializing_if_is_none)]
    refresh_token: Option<String>,
    /// When the refresh token is over.
    #[oai(skip_serializing_if_is_none)]
    refresh_expires_at: Option<DateTime<Utc>>,
    /// Whether the password must be changed before anything else can be done.
    must_change_password: bool,
    /// Who signed in.
    user: User,
}

example!(Session, {
    "access_token": "eyJhbGciOiJIUzI1NiJ9.…", "token_type": "Bearer", "expires_in": 900, "refresh_token": "bnr_…",
    "refresh_expires_at": "2026-12-01T00:00:00Z", "must_change_password": false,
    "user": {"id": "0199e1c2-40c8-7f65-b1d7-9e3a52c4f018", "email": "ada@example.com", "name": "Ada Ferreira",
    "role": "admin", "disabled": false, "has_password": true, "must_change_password": false, "external": false,
    "last_sign_in_at": "2026-11-30T08:15:42Z", "created_at": "2026-11-02T09:00:00Z",
    "updated_at": "2026-11-02T09:00:00Z"}
});

/// Who somebody is.
#[derive(Object)]
#[oai(example)]
struct Me {
    /// The subject of the token, as the audit log names it.
    subject: String,
    /// What they are.
    role: RoleName,
    /// How they proved who they are: `password`, `oidc` or `token`.
    via: String,
    /// The organization it is about.
    organization: Named,
    /// Their team.
    #[oai(skip_serializing_if_is_none)]
    team: Option<Named>,
    /// Their account; absent where the token is a script's.
    #[oai(skip_serializing_if_is_none)]
    user: Option<User>,
}

example!(Me, {
    "subject": "ada@example.com", "role": "admin", "via": "password",
    "organization": {"id": "0199e1c2-1a02-7d19-a6e0-4b8f7c2d3e95", "slug": "default", "name": "Default"},
    "user": {"id": "0199e1c2-40c8-7f65-b1d7-9e3a52c4f018", "email": "ada@example.com", "name": "Ada Ferreira",
    "role": "admin", "disabled": false, "has_password": true, "must_change_password": false, "external": false,
    "last_sign_in_at": "2026-11-30T08:15:42Z", "created_at": "2026-11-02T09:00:00Z",
    "updated_at": "2026-11-02T09:00:00Z"}
});

/// Something with a name.
#[derive(Object)]
struct Named {
    /// Its id.
    id: Uuid,
    /// Its short name.
    slug: String,
    /// Its name for people.
    name: String,
}

/// It is done, and there is nothing to say.
#[derive(ApiResponse)]
pub(super) enum Done {
    /// It is done.
    #[oai(status = 204)]
    Done,
}

/// The issuer outside.
#[derive(ApiResponse)]
enum Onward {
    /// The way to the issuer.
    #[oai(status = 302)]
    Found(
        /// Where.
        #[oai(header = "Location")]
        String,
        /// What ties the issuer's answer to this browser.
        #[oai(header = "Set-Cookie")]
        String,
    ),
}

/// A session that an issuer outside vouches for.
#[derive(ApiResponse)]
enum ExternalSession {
    /// The session.
    #[oai(status = 200)]
    Session(
        Json<Session>,
        /// Takes back what tied the issuer's answer to this browser.
        #[oai(header = "Set-Cookie")]
        String,
    ),
}

#[OpenApi(prefix_path = "/api/auth", tag = "Section::SignIn")]
impl SignInApi {
    /// Sign in
    ///
    /// Whether the address or the password is wrong is not said. Attempts that fail are counted, for the address that is
    /// asked for and for where they come from; too many of them answer 429 for a while.
    #[oai(path = "/login", method = "post", operation_id = "login")]
    async fn login(&self, visitor: Visitor, login: Json<Login>) -> Result<Json<Session>, Refused<SignIn>> {
        let password = SecretString::from(login.0.password);
        Ok(Json(shown(visitor.sign_in(&login.0.email, password).await?)))
    }

    /// Begin to sign in by the external issuer
    ///
    /// Sends a browser to the OpenID Connect issuer of the gateway's settings, with the authorization code flow and PKCE.
    /// It comes back to `/api/auth/oidc/callback`.
    #[oai(path = "/oidc/start", method = "get", operation_id = "startOidc")]
    async fn start_oidc(&self, visitor: Visitor) -> Result<Onward, Refused<SignInByLink>> {
        let start = visitor.start_externally().await?;
        Ok(Onward::Found(start.location, start.cookie))
    }

    /// Finish signing in by the external issuer
    ///
    /// Where the issuer sends the browser back to, which must be the one that began. Somebody who has not been here is
    /// made a user; what the issuer says of them is what they are from then on.
    #[oai(path = "/oidc/callback", method = "get", operation_id = "finishOidc")]
    async fn finish_oidc(
        &self,
        visitor: Visitor,
        /// The issuer's code.
        #[oai(validator(max_length = 4096))]
        code: Query<Option<String>>,
        /// What the issuer was told to give back.
        #[oai(validator(max_length = 512))]
        state: Query<Option<String>>,
        /// Why the issuer refuses.
        #[oai(validator(max_length = 512))]
        error: Query<Option<String>>,
    ) -> Result<ExternalSession, Refused<SignInByLink>> {
        let (Some(code), Some(state), None) = (&code.0, &state.0, &error.0) else {
            return Err(Refusal::wrong_credentials("the issuer has not let you in").into());
        };
        let (signed_in, cookie) = visitor.finish_externally(code, state).await?;
        Ok(ExternalSession::Session(Json(shown(signed_in)), cookie))
    }

    /// Get the next tokens
    ///
    /// A refresh token is good once. One that is used a second time ends its session, because somebody else has a copy.
    #[oai(path = "/refresh", method = "post", operation_id = "refresh")]
    async fn refresh(&self, visitor: Visitor, token: Json<RefreshToken>) -> Result<Json<Session>, Refused<SignIn>> {
        Ok(Json(shown(visitor.refresh(&token.0.refresh_token).await?)))
    }

    /// Sign out
    ///
    /// Ends the session of the token it is called with, on every replica within seconds.
    #[oai(path = "/logout", method = "post", operation_id = "logout")]
    async fn logout(&self, may: May<OwnAccount>) -> Result<Done, Refused<Act>> {
        may.sign_out().await?;
        Ok(Done::Done)
    }

    /// Who one is
    ///
    /// The subject, the role and the organization of the token that is sent, and the user if it is one's.
    #[oai(path = "/me", method = "get", operation_id = "getMe")]
    async fn me(&self, may: May<OwnAccount>) -> Result<Json<Me>, Refused<Read>> {
        let identity = may.identity().await?;
        Ok(Json(Me {
            subject: identity.bearer.subject,
            role: identity.bearer.role.into(),
            via: identity.via.as_str().to_owned(),
            organization: Named {
                id: identity.organization.id.0,
                slug: identity.organization.slug,
                name: identity.organization.name,
            },
            team: identity.team.map(|team| Named {
                id: team.id.0,
                slug: team.slug,
                name: team.name,
            }),
            user: identity.user.map(Into::into),
        }))
    }

    /// Change one's password
    ///
    /// Ends all other sessions of the user. The access token it is called with is over too: the answer has another one,
    /// and the refresh token stays good.
    #[oai(path = "/password", method = "post", operation_id = "changePassword")]
    async fn password(
        &self,
        may: May<OwnAccount>,
        change: Json<PasswordChange>,
    ) -> Result<Json<Session>, Refused<SignIn>> {
        let (current, new) = (change.0.current_password.into(), change.0.new_password.into());
        Ok(Json(shown(may.change_password(current, new).await?)))
    }
}

fn shown(signed_in: SignedIn) -> Session {
    let (refresh_token, refresh_expires_at) = signed_in.refresh.unzip();
    Session {
        access_token: signed_in.access,
        token_type: "Bearer".to_owned(),
        expires_in: signed_in.access_lifetime.as_secs(),
        refresh_token: refresh_token.map(|token| token.expose_secret().to_owned()),
        refresh_expires_at,
        must_change_password: signed_in.user.must_change_password,
        user: signed_in.user.into(),
    }
}
