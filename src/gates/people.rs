//! What management asks of the database about people: users, teams, organizations and sessions.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use moka::future::Cache;
use uuid::Uuid;

use crate::domain::audit::Author;
use crate::domain::error::BoxError;
use crate::domain::ids::{OrganizationId, TeamId, UserId};
use crate::domain::key::NewTeam;
use crate::domain::role::Role;
use crate::domain::tenancy::{
    NewOrganization, Organization, OrganizationChange, OrganizationChanged, Team, TeamChange, TeamChanged,
};
use crate::domain::user::{
    Account, Email, ExternalPerson, ExternalSignIn, NewSession, NewUser, Refresh, Refreshed, SessionState, User,
    UserChange, UserChanged, UserCreated,
};

/// Sessions that are remembered for a moment.
const MAX_SESSIONS: u64 = 20_000;

/// Knows who signs in, and their sessions. Every error means that it cannot be found out or written right now.
#[async_trait::async_trait]
pub trait SignIns: Send + Sync {
    /// The user with an address.
    async fn account(&self, email: &Email) -> Result<Option<Account>, BoxError>;
    /// The user with an id.
    async fn account_of(&self, id: UserId) -> Result<Option<Account>, BoxError>;
    /// Begins a session, unless its user may not have one.
    async fn begin(&self, session: NewSession, by: &Author) -> Result<Option<User>, BoxError>;
    /// Begins a session of somebody an external issuer vouches for.
    async fn begin_externally(
        &self,
        person: &ExternalPerson,
        session: NewSession,
        by: &Author,
    ) -> Result<ExternalSignIn, BoxError>;
    /// The user an external issuer vouches for, if they have signed in here.
    async fn external_user(&self, external_id: &str) -> Result<Option<User>, BoxError>;
    /// Exchanges a refresh token for the next one.
    async fn refresh(&self, presented: &Refresh, by: &Author) -> Result<Refreshed, BoxError>;
    /// Lets a session go on until a time. Says whether it is there.
    async fn renew(
        &self,
        user: UserId,
        session: Uuid,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<bool, BoxError>;
    /// Ends a session. Says whether there was one.
    async fn end(&self, user: UserId, session: Uuid, by: &Author) -> Result<bool, BoxError>;
    /// How a session stands; `None`: it is over.
    async fn state(&self, user: UserId, session: Uuid) -> Result<Option<SessionState>, BoxError>;
    /// Gives a user another password and ends their sessions but the one that is kept.
    async fn set_password(
        &self,
        user: UserId,
        hash: &str,
        must_change: bool,
        kept: Option<Uuid>,
        by: &Author,
    ) -> Result<Option<User>, BoxError>;
}

/// Keeps the users of organizations. Every error means that it cannot be found out or written right now.
#[async_trait::async_trait]
pub trait Users: Send + Sync {
    /// A user.
    async fn user(&self, organization: OrganizationId, id: UserId) -> Result<Option<User>, BoxError>;
    /// Users, oldest first, after one of them.
    async fn users(
        &self,
        organization: OrganizationId,
        team: Option<TeamId>,
        after: Option<UserId>,
        most: u64,
    ) -> Result<Vec<User>, BoxError>;
    /// Creates a user.
    async fn create_user(&self, new: NewUser, by: &Author) -> Result<UserCreated, BoxError>;
    /// Changes a user, if somebody of the role may.
    async fn change_user(
        &self,
        organization: OrganizationId,
        id: UserId,
        change: &UserChange,
        actor: Role,
        by: &Author,
    ) -> Result<UserChanged, BoxError>;
    /// Deletes a user, if somebody of the role may.
    async fn delete_user(
        &self,
        organization: OrganizationId,
        id: UserId,
        actor: Role,
        by: &Author,
    ) -> Result<UserChanged, BoxError>;
}

/// Keeps organizations and their teams. Every error means that it cannot be found out or written right now.
#[async_trait::async_trait]
pub trait Tenants: Send + Sync {
    /// An organization.
    async fn tenant(&self, id: OrganizationId) -> Result<Option<Organization>, BoxError>;
    /// The organization with a short name.
    async fn tenant_by_slug(&self, slug: &str) -> Result<Option<OrganizationId>, BoxError>;
    /// Organizations, oldest first, after one of them.
    async fn tenants(&self, after: Option<OrganizationId>, most: u64) -> Result<Vec<Organization>, BoxError>;
    /// Creates an organization.
    async fn create_tenant(&self, new: NewOrganization, by: &Author) -> Result<OrganizationChanged, BoxError>;
    /// Changes an organization.
    async fn change_tenant(
        &self,
        id: OrganizationId,
        change: &OrganizationChange,
        by: &Author,
    ) -> Result<OrganizationChanged, BoxError>;
    /// Deletes an organization that nothing needs any more.
    async fn delete_tenant(&self, id: OrganizationId, by: &Author) -> Result<OrganizationChanged, BoxError>;
    /// A team.
    async fn team(&self, organization: OrganizationId, id: TeamId) -> Result<Option<Team>, BoxError>;
    /// The team of an organization with a short name.
    async fn team_by_slug(&self, organization: OrganizationId, slug: &str) -> Result<Option<TeamId>, BoxError>;
    /// Teams, oldest first, after one of them.
    async fn teams(
        &self,
        organization: OrganizationId,
        after: Option<TeamId>,
        most: u64,
    ) -> Result<Vec<Team>, BoxError>;
    /// Creates a team.
    async fn create_team(&self, new: NewTeam, by: &Author) -> Result<TeamChanged, BoxError>;
    /// Changes a team.
    async fn change_team(
        &self,
        organization: OrganizationId,
        id: TeamId,
        change: &TeamChange,
        by: &Author,
    ) -> Result<TeamChanged, BoxError>;
    /// Deletes a team that nothing needs any more.
    async fn delete_team(&self, organization: OrganizationId, id: TeamId, by: &Author)
    -> Result<TeamChanged, BoxError>;
}

/// The sessions that requests came in with lately, so that not each of them asks the database. What is done to a session
/// or its user is noticed after `recheck` at the latest, on every replica.
pub struct Sessions {
    sign_ins: Arc<dyn SignIns>,
    states: Cache<(UserId, Uuid), Option<SessionState>>,
    external: Cache<Arc<str>, Option<User>>,
}

impl Sessions {
    /// Sessions that are looked at again after a time.
    pub fn new(sign_ins: Arc<dyn SignIns>, recheck: Duration) -> Self {
        let states = Cache::builder().max_capacity(MAX_SESSIONS).time_to_live(recheck);
        let external = Cache::builder().max_capacity(MAX_SESSIONS).time_to_live(recheck);
        Self {
            sign_ins,
            states: states.build(),
            external: external.build(),
        }
    }

    /// How a session stands; `None`: it is over.
    ///
    /// # Errors
    /// It cannot be found out right now.
    pub async fn state(&self, user: UserId, session: Uuid) -> Result<Option<SessionState>, Arc<BoxError>> {
        self.states
            .try_get_with((user, session), self.sign_ins.state(user, session))
            .await
    }

    /// The user an external issuer vouches for, if they have signed in here.
    ///
    /// # Errors
    /// It cannot be found out right now.
    pub async fn external_user(&self, external_id: &str) -> Result<Option<User>, Arc<BoxError>> {
        self.external
            .try_get_with(external_id.into(), self.sign_ins.external_user(external_id))
            .await
    }

    /// Has a session looked at again by its next request here.
    pub async fn forget(&self, user: UserId, session: Uuid) {
        self.states.invalidate(&(user, session)).await;
    }
}
