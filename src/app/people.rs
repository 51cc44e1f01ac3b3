//! What the management API asks of the database about people, answered by the store within a time.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::control::{Control, TIMEOUT};
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
use crate::gates::people::{SignIns, Tenants, Users};
use crate::store::within;

#[async_trait::async_trait]
impl SignIns for Control {
    async fn account(&self, email: &Email) -> Result<Option<Account>, BoxError> {
        Ok(within(TIMEOUT, self.store.account(email)).await?)
    }

    async fn account_of(&self, id: UserId) -> Result<Option<Account>, BoxError> {
        Ok(within(TIMEOUT, self.store.account_of(id)).await?)
    }

    async fn begin(&self, session: NewSession, by: &Author) -> Result<Option<User>, BoxError> {
        Ok(within(TIMEOUT, self.store.begin_session(session, by)).await?)
    }

    async fn begin_externally(
        &self,
        person: &ExternalPerson,
        session: NewSession,
        by: &Author,
    ) -> Result<ExternalSignIn, BoxError> {
        Ok(within(TIMEOUT, self.store.sign_in_externally(person, session, by)).await?)
    }

    async fn external_user(&self, external_id: &str) -> Result<Option<User>, BoxError> {
        Ok(within(TIMEOUT, self.store.external_user(external_id)).await?)
    }

    async fn refresh(&self, presented: &Refresh, by: &Author) -> Result<Refreshed, BoxError> {
        Ok(within(TIMEOUT, self.store.refresh(presented, by)).await?)
    }

    async fn renew(
        &self,
        user: UserId,
        session: Uuid,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<bool, BoxError> {
        Ok(within(TIMEOUT, self.store.renew_session(user, session, now, until)).await?)
    }

    async fn end(&self, user: UserId, session: Uuid, by: &Author) -> Result<bool, BoxError> {
        Ok(within(TIMEOUT, self.store.end_session(user, session, by)).await?)
    }

    async fn state(&self, user: UserId, session: Uuid) -> Result<Option<SessionState>, BoxError> {
        Ok(within(TIMEOUT, self.store.session_state(user, session, Utc::now())).await?)
    }

    async fn set_password(
        &self,
        user: UserId,
        hash: &str,
        must_change: bool,
        kept: Option<Uuid>,
        by: &Author,
    ) -> Result<Option<User>, BoxError> {
        Ok(within(TIMEOUT, self.store.set_password(user, hash, must_change, kept, by)).await?)
    }
}

#[async_trait::async_trait]
impl Users for Control {
    async fn user(&self, organization: OrganizationId, id: UserId) -> Result<Option<User>, BoxError> {
        Ok(within(TIMEOUT, self.store.user(organization, id)).await?)
    }

    async fn users(
        &self,
        organization: OrganizationId,
        team: Option<TeamId>,
        after: Option<UserId>,
        most: u64,
    ) -> Result<Vec<User>, BoxError> {
        Ok(within(TIMEOUT, self.store.users(organization, team, after, most)).await?)
    }

    async fn create_user(&self, new: NewUser, by: &Author) -> Result<UserCreated, BoxError> {
        Ok(within(TIMEOUT, self.store.create_user(new, by)).await?)
    }

    async fn change_user(
        &self,
        organization: OrganizationId,
        id: UserId,
        change: &UserChange,
        actor: Role,
        by: &Author,
    ) -> Result<UserChanged, BoxError> {
        Ok(within(TIMEOUT, self.store.change_user(organization, id, change, actor, by)).await?)
    }

    async fn delete_user(
        &self,
        organization: OrganizationId,
        id: UserId,
        actor: Role,
        by: &Author,
    ) -> Result<UserChanged, BoxError> {
        Ok(within(TIMEOUT, self.store.delete_user(organization, id, actor, by)).await?)
    }
}

#[async_trait::async_trait]
impl Tenants for Control {
    async fn tenant(&self, id: OrganizationId) -> Result<Option<Organization>, BoxError> {
        Ok(within(TIMEOUT, self.store.organization(id)).await?)
    }

    async fn tenant_by_slug(&self, slug: &str) -> Result<Option<OrganizationId>, BoxError> {
        Ok(within(TIMEOUT, self.store.organization_by_slug(slug)).await?)
    }

    async fn tenants(&self, after: Option<OrganizationId>, most: u64) -> Result<Vec<Organization>, BoxError> {
        Ok(within(TIMEOUT, self.store.organizations(after, most)).await?)
    }

    async fn create_tenant(&self, new: NewOrganization, by: &Author) -> Result<OrganizationChanged, BoxError> {
        Ok(within(TIMEOUT, self.store.create_tenant(new, by)).await?)
    }

    async fn change_tenant(
        &self,
        id: OrganizationId,
        change: &OrganizationChange,
        by: &Author,
    ) -> Result<OrganizationChanged, BoxError> {
        Ok(within(TIMEOUT, self.store.change_tenant(id, change, by)).await?)
    }

    async fn delete_tenant(&self, id: OrganizationId, by: &Author) -> Result<OrganizationChanged, BoxError> {
        Ok(within(TIMEOUT, self.store.delete_tenant(id, by)).await?)
    }

    async fn team(&self, organization: OrganizationId, id: TeamId) -> Result<Option<Team>, BoxError> {
        Ok(within(TIMEOUT, self.store.team(organization, id)).await?)
    }

    async fn team_by_slug(&self, organization: OrganizationId, slug: &str) -> Result<Option<TeamId>, BoxError> {
        Ok(within(TIMEOUT, self.store.team_by_slug(organization, slug)).await?)
    }

    async fn teams(
        &self,
        organization: OrganizationId,
        after: Option<TeamId>,
        most: u64,
    ) -> Result<Vec<Team>, BoxError> {
        Ok(within(TIMEOUT, self.store.teams(organization, after, most)).await?)
    }

    async fn create_team(&self, new: NewTeam, by: &Author) -> Result<TeamChanged, BoxError> {
        Ok(within(TIMEOUT, self.store.add_team(new, by)).await?)
    }

    async fn change_team(
        &self,
        organization: OrganizationId,
        id: TeamId,
        change: &TeamChange,
        by: &Author,
    ) -> Result<TeamChanged, BoxError> {
        Ok(within(TIMEOUT, self.store.change_team(organization, id, change, by)).await?)
    }

    async fn delete_team(
        &self,
        organization: OrganizationId,
        id: TeamId,
        by: &Author,
    ) -> Result<TeamChanged, BoxError> {
        Ok(within(TIMEOUT, self.store.delete_team(organization, id, by)).await?)
    }
}
