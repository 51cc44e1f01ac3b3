//! What the proofs about organizations are good for.

use super::{Grant, ManageOrganizations, May, ReadOrganization, WriteOrganization};
use crate::domain::ids::OrganizationId;
use crate::domain::tenancy::{NewOrganization, Organization, OrganizationChange, OrganizationChanged, in_words};
use crate::http::management::problem::Refusal;

impl<G: Grant> May<G> {
    /// The organization of an id in a path: the caller's own, or any where their rights hold everywhere.
    fn reach(&self, id: OrganizationId) -> Result<OrganizationId, Refusal> {
        if id == self.organization || self.bearer.role.everywhere() {
            Ok(id)
        } else {
            Err(Refusal::not_found("organization"))
        }
    }
}

impl May<ReadOrganization> {
    /// The organizations the caller may see, oldest first, after one of them.
    pub async fn organizations(&self, after: Option<OrganizationId>, most: u64) -> Result<Vec<Organization>, Refusal> {
        if self.bearer.role.everywhere() {
            let found = self.management.people.tenants.tenants(after, most).await;
            return found.map_err(|error| Refusal::unavailable(&error));
        }
        let own = self.organization_of(self.organization).await?;
        Ok(Vec::from_iter(
            Some(own).filter(|own| after.is_none_or(|after| own.id > after)),
        ))
    }

    /// One of them.
    pub async fn organization_of(&self, id: OrganizationId) -> Result<Organization, Refusal> {
        let found = self.management.people.tenants.tenant(self.reach(id)?).await;
        let found = found.map_err(|error| Refusal::unavailable(&error))?;
        found.ok_or_else(|| Refusal::not_found("organization"))
    }
}

impl May<WriteOrganization> {
    /// Changes an organization. What is shared by all is for those to give whose rights hold everywhere. Gives it with what a
    /// scope that it gets names and nobody serves.
    pub async fn change(
        &self,
        id: OrganizationId,
        change: &OrganizationChange,
    ) -> Result<(Organization, Vec<String>), Refusal> {
        let id = self.reach(id)?;
        let shared = [
            (change.shared_credentials.is_some(), "shared_credentials"),
            (change.rate_limit_ceiling.is_some(), "rate_limit_ceiling"),
        ];
        if let Some((_, field)) = shared.into_iter().find(|(wanted, _)| *wanted)
            && !self.bearer.role.everywhere()
        {
            let detail =
                format!("{field} is for a platform_admin to give, since all organizations share what it is about");
            return Err(Refusal::forbidden(detail));
        }
        let changed = self
            .management
            .people
            .tenants
            .change_tenant(id, change, &self.author)
            .await;
        let organization = done(changed.map_err(|error| Refusal::unavailable(&error))?)?;
        let warnings = match &change.scope {
            Some(scope) => self.warnings_in(id, scope).await?,
            None => Vec::new(),
        };
        Ok((organization, warnings))
    }
}

impl May<ManageOrganizations> {
    /// Creates an organization. Gives it with what its scope names and nobody serves.
    pub async fn create(&self, new: NewOrganization) -> Result<(Organization, Vec<String>), Refusal> {
        let created = self.management.people.tenants.create_tenant(new, &self.author).await;
        let organization = done(created.map_err(|error| Refusal::unavailable(&error))?)?;
        let warnings = self.warnings_in(organization.id, &organization.scope).await?;
        Ok((organization, warnings))
    }

    /// Deletes an organization.
    pub async fn delete(&self, id: OrganizationId) -> Result<(), Refusal> {
        if id == self.bearer.organization {
            return Err(Refusal::conflict(
                "this is the organization you are in; somebody of another one can delete it",
            ));
        }
        let deleted = self
            .management
            .people
            .tenants
            .delete_tenant(self.reach(id)?, &self.author)
            .await;
        done(deleted.map_err(|error| Refusal::unavailable(&error))?).map(drop)
    }
}

fn done(changed: OrganizationChanged) -> Result<Organization, Refusal> {
    match changed {
        OrganizationChanged::Done(organization) => Ok(organization),
        OrganizationChanged::NoSuchOrganization => Err(Refusal::not_found("organization")),
        OrganizationChanged::SlugTaken => Err(Refusal::conflict("slug: another organization has this short name")),
        OrganizationChanged::Needed(needed) => Err(Refusal::conflict(format!(
            "the organization still has {}; delete or revoke them first",
            in_words(&needed)
        ))),
    }
}
