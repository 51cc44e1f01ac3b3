//! `/api/users`: people who manage the gateway.

use chrono::{DateTime, Utc};
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::types::MaybeUndefined;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;

use super::Section;
use super::auth::users::{UserToBe, WayIn};
use super::auth::{May, ReadUsers, WriteUsers};
use super::examples::example;
use super::organizations::{changed, check};
use super::page::page;
use super::problem::{Act, Read, Refusal, Refused, Write};
use super::sign_in::Done;
use crate::domain::ids::{TeamId, UserId};
use crate::domain::role::Role;
use crate::domain::tenancy::name_problem;
use crate::domain::user::{self, Email, UserChange};

/// Things of one page.
const PAGE: u64 = 50;

/// The handlers.
pub struct UsersApi;

/// What somebody is in an organization.
#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "snake_case")]
pub(super) enum RoleName {
    /// Everything, in every organization.
    PlatformAdmin,
    /// Everything in the organization, members and roles included.
    Owner,
    /// Keys, config, providers, limits, budgets, webhooks, teams, and users who are not owners.
    Admin,
    /// Keys, limits and budgets inside the team.
    TeamAdmin,
    /// Own keys and own usage.
    Member,
    /// Reads everything in the organization except secrets and payloads.
    Viewer,
}

/// A user.
#[derive(Object)]
#[oai(example)]
pub(super) struct User {
    /// Their id.
    id: Uuid,
    /// What they sign in with, in lower case.
    email: String,
    /// Their name for people.
    name: String,
    /// What they are.
    role: RoleName,
    /// Their team.
    #[oai(skip_serializing_if_is_none)]
    team_id: Option<Uuid>,
    /// Whether they may not sign in for the time being.
    disabled: bool,
    /// Whether they have a password.
    has_password: bool,
    /// Whether they must change it before they do anything else.
    must_change_password: bool,
    /// Whether the external issuer vouches for them, and says what they are.
    external: bool,
    /// When they last signed in.
    #[oai(skip_serializing_if_is_none)]
    last_sign_in_at: Option<DateTime<Utc>>,
    /// When they were created.
    created_at: DateTime<Utc>,
    /// When they last changed.
    updated_at: DateTime<Utc>,
}

example!(User, {
    "id": "0199e1c2-40c8-7f65-b1d7-9e3a52c4f018", "email": "ada@example.com", "name": "Ada Ferreira",
    "role": "admin", "disabled": false, "has_password": true, "must_change_password": false, "external": false,
    "last_sign_in_at": "2026-11-30T08:15:42Z", "created_at": "2026-11-02T09:00:00Z",
    "updated_at": "2026-11-02T09:00:00Z"
});

/// Users.
#[derive(Object)]
struct Users {
    /// The users, oldest first.
    data: Vec<User>,
    /// Where the next page begins, for `cursor`; absent on the last page.
    #[oai(skip_serializing_if_is_none)]
    next_cursor: Option<Uuid>,
}

/// A user and, where one was made up, their password.
#[derive(Object)]
#[oai(example)]
struct UserAndPassword {
    /// The user.
    #[oai(flatten)]
    user: User,
    /// The password that was made up for them, shown this once. They must change it.
    #[oai(skip_serializing_if_is_none)]
    password: Option<String>,
}

example!(UserAndPassword, {
    "id": "0199e1c2-40c8-7f65-b1d7-9e3a52c4f018", "email": "ada@example.com", "name": "Ada Ferreira",
    "role": "admin", "disabled": false, "has_password": true, "must_change_password": true, "external": false,
    "last_sign_in_at": "2026-11-30T08:15:42Z", "created_at": "2026-11-02T09:00:00Z",
    "updated_at": "2026-11-02T09:00:00Z", "password": "Kq7m-…"
});

/// A user to be created.
#[derive(Object)]
#[oai(deny_unknown_fields, example)]
struct NewUser {
    /// What they sign in with; nobody else of this installation may have it.
    email: String,
    /// Their name for people. Default: the address.
    name: Option<String>,
    /// What they are: nothing more than whoever creates them is.
    role: RoleName,
    /// Their team, which a team_admin must have.
    team_id: Option<Uuid>,
    /// A password to begin with, which they must change. Without one it is made up and answered once.
    #[oai(validator(max_length = 1024))]
    password: Option<String>,
    /// Whether they sign in by the external issuer alone and have no password. Default: false.
    external: Option<bool>,
}

example!(NewUser, {"email": "ada@example.com", "name": "Ada Ferreira", "role": "admin"});

/// What is to be changed about a user. What is left out stays.
#[derive(Object)]
#[oai(deny_unknown_fields, example)]
struct UserPatch {
    /// Their name for people.
    name: Option<String>,
    /// What they are: nothing more than whoever changes them is.
    role: Option<RoleName>,
    /// Their team; null: none any more.
    team_id: MaybeUndefined<Uuid>,
    /// Whether they may not sign in. It ends their sessions.
    disabled: Option<bool>,
    /// Whether they get another password, which is answered once. It ends their sessions. Default: false.
    reset_password: Option<bool>,
}

example!(UserPatch, {"role": "viewer", "disabled": false});

/// What was created.
#[derive(ApiResponse)]
enum Created {
    /// They are there.
    #[oai(status = 201)]
    Created(Json<UserAndPassword>),
}

#[OpenApi(prefix_path = "/api/users", tag = "Section::Users")]
impl UsersApi {
    /// List users
    ///
    /// A team admin sees those of their team.
    #[oai(path = "/", method = "get", operation_id = "listUsers")]
    async fn list(
        &self,
        may: May<ReadUsers>,
        /// Only those of this team.
        team_id: Query<Option<Uuid>>,
        /// Users of one page.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<Uuid>>,
    ) -> Result<Json<Users>, Refused<Read>> {
        let limit = limit.0.unwrap_or(PAGE);
        let (team, after) = (team_id.0.map(TeamId), cursor.0.map(UserId));
        let (found, next_cursor) = page(may.users(team, after, limit + 1).await?, limit, |last| last.id.0);
        Ok(Json(Users {
            next_cursor,
            data: found.into_iter().map(Into::into).collect(),
        }))
    }

    /// Create a user
    ///
    /// With a password that is made up and answered once, unless one is given or the external issuer vouches for them.
    /// Nobody creates somebody who is more than they are.
    #[oai(path = "/", method = "post", operation_id = "createUser")]
    async fn create(&self, may: May<WriteUsers>, user: Json<NewUser>) -> Result<Created, Refused<Write>> {
        let new = user.0;
        let email = Email::parse(&new.email).map_err(|problem| Refusal::field("/email", problem))?;
        let name = new.name.unwrap_or_else(|| email.as_str().chars().take(128).collect());
        check("/name", name_problem(&name))?;
        let way_in = match (new.password, new.external.unwrap_or(false)) {
            (Some(_), true) => {
                return Err(Refusal::field("/password", "must be left out where external is true").into());
            }
            (Some(password), false) => WayIn::Chosen(password.into()),
            (None, true) => WayIn::External,
            (None, false) => WayIn::Generated,
        };
        let created = may.create(UserToBe {
            email,
            name,
            role: new.role.into(),
            team: new.team_id.map(TeamId),
            way_in,
        });
        Ok(Created::Created(Json(shown(created.await?))))
    }

    /// One user
    ///
    /// With their role, and how they sign in. A team admin sees the people of their team.
    #[oai(path = "/:id", method = "get", operation_id = "getUser")]
    async fn get(
        &self,
        may: May<ReadUsers>,
        /// Their id.
        id: Path<Uuid>,
    ) -> Result<Json<User>, Refused<Read>> {
        Ok(Json(may.user(UserId(id.0)).await?.into()))
    }

    /// Change a user
    ///
    /// Nobody changes somebody who is more than they are, or makes somebody more than that. The last owner of an
    /// organization stays one. Their tokens say what they were and end with the change, on every replica within seconds;
    /// a refresh token gets one that says what they are.
    #[oai(path = "/:id", method = "patch", operation_id = "updateUser")]
    async fn update(
        &self,
        may: May<WriteUsers>,
        /// Their id.
        id: Path<Uuid>,
        change: Json<UserPatch>,
    ) -> Result<Json<UserAndPassword>, Refused<Write>> {
        let patch = change.0;
        if let Some(name) = &patch.name {
            check("/name", name_problem(name))?;
        }
        let change = UserChange {
            name: patch.name,
            role: patch.role.map(Into::into),
            team: changed(patch.team_id).map(|team| team.map(TeamId)),
            disabled: patch.disabled,
            password_hash: None,
        };
        let reset = patch.reset_password.unwrap_or(false);
        Ok(Json(shown(may.change(UserId(id.0), change, reset).await?)))
    }

    /// Delete a user
    ///
    /// Their sessions end, on every replica within seconds. It is refused while keys that are not revoked are theirs, and
    /// for the last owner of an organization.
    #[oai(path = "/:id", method = "delete", operation_id = "deleteUser")]
    async fn delete(
        &self,
        may: May<WriteUsers>,
        /// Their id.
        id: Path<Uuid>,
    ) -> Result<Done, Refused<Act>> {
        may.delete(UserId(id.0)).await?;
        Ok(Done::Done)
    }
}

fn shown((user, password): (user::User, Option<SecretString>)) -> UserAndPassword {
    UserAndPassword {
        user: user.into(),
        password: password.map(|password| password.expose_secret().to_owned()),
    }
}

impl From<user::User> for User {
    fn from(user: user::User) -> Self {
        Self {
            id: user.id.0,
            email: user.email.as_str().to_owned(),
            name: user.name,
            role: user.role.into(),
            team_id: user.team.map(|team| team.0),
            disabled: user.disabled,
            has_password: user.has_password,
            must_change_password: user.must_change_password,
            external: user.external,
            last_sign_in_at: user.last_sign_in_at,
            created_at: user.created_at,
            updated_at: user.updated_at,
        }
    }
}

impl From<RoleName> for Role {
    fn from(role: RoleName) -> Self {
        match role {
            RoleName::PlatformAdmin => Self::PlatformAdmin,
            RoleName::Owner => Self::Owner,
            RoleName::Admin => Self::Admin,
            RoleName::TeamAdmin => Self::TeamAdmin,
            RoleName::Member => Self::Member,
            RoleName::Viewer => Self::Viewer,
        }
    }
}

impl From<Role> for RoleName {
    fn from(role: Role) -> Self {
        match role {
            Role::PlatformAdmin => Self::PlatformAdmin,
            Role::Owner => Self::Owner,
            Role::Admin => Self::Admin,
            Role::TeamAdmin => Self::TeamAdmin,
            Role::Member => Self::Member,
            Role::Viewer => Self::Viewer,
        }
    }
}
