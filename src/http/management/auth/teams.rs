//! What the proofs about teams are good for.

use super::{Grant, May, ReadTeams, WriteTeams};
use crate::domain::ids::TeamId;
use crate::domain::key::NewTeam;
use crate::domain::role::Role;
use crate::domain::tenancy::{Team, TeamChange, TeamChanged, in_words};
use crate::http::management::problem::Refusal;

impl<G: Grant> May<G> {
    /// The team to which the caller's role is confined; `None`: it is not confined to one.
    ///
    /// # Errors
    /// It is, and they have none.
    pub(super) fn confined_to(&self) -> Result<Option<TeamId>, Refusal> {
        if self.bearer.role != Role::TeamAdmin {
            return Ok(None);
        }
        let detail = "the role team_admin is good for a team, and this token names none";
        self.bearer.team.map(Some).ok_or_else(|| Refusal::forbidden(detail))
    }
}

impl May<ReadTeams> {
    /// The teams the caller may see, oldest first, after one of them.
    pub async fn teams(&self, after: Option<TeamId>, most: u64) -> Result<Vec<Team>, Refusal> {
        let tenants = &self.management.people.tenants;
        let found = match self.confined_to()? {
            None => tenants.teams(self.organization, after, most).await,
            Some(own) => {
                let own = tenants.team(self.organization, own).await;
                own.map(|own| Vec::from_iter(own.filter(|own| after.is_none_or(|after| own.id > after))))
            }
        };
        found.map_err(|error| Refusal::unavailable(&error))
    }

    /// One of them.
    pub async fn team(&self, id: TeamId) -> Result<Team, Refusal> {
        if self.confined_to()?.is_some_and(|own| own != id) {
            return Err(Refusal::not_found("team"));
        }
        let found = self.management.people.tenants.team(self.organization, id).await;
        let found = found.map_err(|error| Refusal::unavailable(&error))?;
        found.ok_or_else(|| Refusal::not_found("team"))
    }
}

impl May<WriteTeams> {
    /// Creates a team. Gives it with what its scope names and nobody serves.
    pub async fn create(&self, team: NewTeam) -> Result<(Team, Vec<String>), Refusal> {
        let warnings = self.warnings(&team.scope).await?;
        let created = self.management.people.tenants.create_team(team, &self.author).await;
        let team = done(created.map_err(|error| Refusal::unavailable(&error))?)?;
        Ok((team, warnings))
    }

    /// Changes a team. Gives it with what a scope that it gets names and nobody serves.
    pub async fn change(&self, id: TeamId, change: &TeamChange) -> Result<(Team, Vec<String>), Refusal> {
        let warnings = match &change.scope {
            Some(scope) => self.warnings(scope).await?,
            None => Vec::new(),
        };
        let tenants = &self.management.people.tenants;
        let changed = tenants.change_team(self.organization, id, change, &self.author).await;
        let team = done(changed.map_err(|error| Refusal::unavailable(&error))?)?;
        Ok((team, warnings))
    }

    /// Deletes a team.
    pub async fn delete(&self, id: TeamId) -> Result<(), Refusal> {
        let tenants = &self.management.people.tenants;
        let deleted = tenants.delete_team(self.organization, id, &self.author).await;
        done(deleted.map_err(|error| Refusal::unavailable(&error))?).map(drop)
    }
}

fn done(changed: TeamChanged) -> Result<Team, Refusal> {
    match changed {
        TeamChanged::Done(team) => Ok(team),
        TeamChanged::NoSuchTeam => Err(Refusal::not_found("team")),
        TeamChanged::NoSuchOrganization => Err(Refusal::not_found("organization")),
        TeamChanged::SlugTaken => Err(Refusal::conflict(
            "slug: another team of the organization has this short name",
        )),
        TeamChanged::Needed(needed) => Err(Refusal::conflict(format!(
            "the team still has {}; move, delete or revoke them first",
            in_words(&needed)
        ))),
    }
}
