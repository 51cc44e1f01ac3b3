//! `/api/organizations`: the tenants.

use chrono::{DateTime, Utc};
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::types::MaybeUndefined;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use uuid::Uuid;

use super::Section;
use super::auth::{ManageOrganizations, May, ReadOrganization, WriteOrganization};
use super::examples::example;
use super::page::page;
use super::problem::{Act, Read, Refusal, Refused, Write};
use super::sign_in::Done;
use crate::domain::call::ParameterPolicy;
use crate::domain::ids::OrganizationId;
use crate::domain::scope;
use crate::domain::tenancy::{
    self, DEFAULT_RATE_LIMIT_CEILING, NewOrganization, OrganizationChange, name_problem, slug_problem,
};

/// Things of one page.
const PAGE: u64 = 50;
/// Entries of one list of a scope.
const MAX_SCOPE_ENTRIES: usize = 1_000;
/// Longest entry of a scope, in bytes.
const MAX_SCOPE_ENTRY_BYTES: usize = 256;

/// The handlers.
pub struct OrganizationsApi;

/// What may be used: names, aliases or globs. A list that is missing or empty restricts nothing.
#[derive(Object, Default)]
#[oai(deny_unknown_fields, default)]
pub(super) struct ScopeLists {
    /// Models: `gpt-4o`, `claude-*`, `azure/*`.
    models: Option<Vec<String>>,
    /// Providers: `openai`, `aws`.
    providers: Option<Vec<String>>,
}

/// What becomes of parameters that a provider cannot express.
#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "snake_case")]
enum Inexpressible {
    /// The request is refused.
    Reject,
    /// They are left out.
    Drop,
    /// They are left out, and the answer names them.
    Warn,
}

/// An organization.
#[derive(Object)]
#[oai(example)]
struct Organization {
    /// Its id.
    id: Uuid,
    /// Its short name, which stays.
    slug: String,
    /// Its name for people.
    name: String,
    /// What its keys may use at most.
    allowed_models: ScopeLists,
    /// What becomes of parameters that a provider cannot express; absent: what the gateway's setting says.
    #[oai(skip_serializing_if_is_none)]
    parameter_policy: Option<Inexpressible>,
    /// Whether it may use the credentials that all organizations share.
    shared_credentials: bool,
    /// The most requests per minute that a key of it may have.
    rate_limit_ceiling: u32,
    /// When it was created.
    created_at: DateTime<Utc>,
    /// When it last changed.
    updated_at: DateTime<Utc>,
    /// What is not wrong with a scope that was just written, and more often than not a slip: names of models and providers
    /// that nobody serves.
    #[oai(default, skip_serializing_if_is_empty)]
    warnings: Vec<String>,
}

example!(Organization, {
    "id": "0199e1c2-1a02-7d19-a6e0-4b8f7c2d3e95", "slug": "default", "name": "Default",
    "allowed_models": {"models": [], "providers": []}, "shared_credentials": true, "rate_limit_ceiling": 10000,
    "created_at": "2026-11-02T09:00:00Z", "updated_at": "2026-11-02T09:00:00Z"
});

/// Organizations.
#[derive(Object)]
struct Organizations {
    /// The organizations, oldest first.
    data: Vec<Organization>,
    /// Where the next page begins, for `cursor`; absent on the last page.
    #[oai(skip_serializing_if_is_none)]
    next_cursor: Option<Uuid>,
}

/// An organization to be created.
#[derive(Object)]
#[oai(deny_unknown_fields, example)]
struct OrganizationToBe {
    /// Its short name: lower-case letters, digits and hyphens. It stays, since paths of credentials hold it.
    slug: String,
    /// Its name for people. Default: the short name.
    name: Option<String>,
    /// What its keys may use at most. Default: everything.
    allowed_models: Option<ScopeLists>,
    /// What becomes of parameters that a provider cannot express. Default: what the gateway's setting says.
    parameter_policy: Option<Inexpressible>,
    /// Whether it may use the credentials that all organizations share. Default: false.
    shared_credentials: Option<bool>,
    /// The most requests per minute that a key of it may have. Default: 10000.
    #[oai(validator(minimum(value = "1"), maximum(value = "10000000")))]
    rate_limit_ceiling: Option<u32>,
}

example!(OrganizationToBe, {"slug": "acme", "name": "Acme", "shared_credentials": false});

/// What is to be changed about an organization. What is left out stays.
#[derive(Object)]
#[oai(deny_unknown_fields, example)]
struct OrganizationPatch {
    /// Its name for people.
    name: Option<String>,
    /// What its keys may use at most; null: everything.
    allowed_models: MaybeUndefined<ScopeLists>,
    /// What becomes of parameters that a provider cannot express; null: what the gateway's setting says.
    parameter_policy: MaybeUndefined<Inexpressible>,
    /// Whether it may use the credentials that all organizations share. For a platform_admin to give.
    shared_credentials: Option<bool>,
    /// The most requests per minute that a key of it may have; null: 10000. For a platform_admin to give.
    #[oai(validator(minimum(value = "1"), maximum(value = "10000000")))]
    rate_limit_ceiling: MaybeUndefined<u32>,
}

example!(OrganizationPatch, {"name": "Acme Corporation", "parameter_policy": "warn"});

/// What was created.
#[derive(ApiResponse)]
enum Created {
    /// It is there.
    #[oai(status = 201)]
    Created(Json<Organization>),
}

#[OpenApi(prefix_path = "/api/organizations", tag = "Section::Organizations")]
impl OrganizationsApi {
    /// List organizations
    ///
    /// A platform admin sees all, everybody else their own.
    #[oai(path = "/", method = "get", operation_id = "listOrganizations")]
    async fn list(
        &self,
        may: May<ReadOrganization>,
        /// Organizations of one page.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<Uuid>>,
    ) -> Result<Json<Organizations>, Refused<Read>> {
        let limit = limit.0.unwrap_or(PAGE);
        let (found, next_cursor) = page(
            may.organizations(cursor.0.map(OrganizationId), limit + 1).await?,
            limit,
            |last| last.id.0,
        );
        Ok(Json(Organizations {
            next_cursor,
            data: found.into_iter().map(|one| shown((one, Vec::new()))).collect(),
        }))
    }

    /// Create an organization
    ///
    /// For a platform admin. It has nobody and nothing in it: users of it are created by naming it in
    /// `x-bonito-organization`.
    #[oai(path = "/", method = "post", operation_id = "createOrganization")]
    async fn create(
        &self,
        may: May<ManageOrganizations>,
        organization: Json<OrganizationToBe>,
    ) -> Result<Created, Refused<Write>> {
        let new = organization.0;
        check("/slug", slug_problem(&new.slug))?;
        let name = new.name.unwrap_or_else(|| new.slug.clone());
        check("/name", name_problem(&name))?;
        let created = may.create(NewOrganization {
            id: OrganizationId(Uuid::now_v7()),
            slug: new.slug,
            name,
            scope: read_scope(new.allowed_models.unwrap_or_default())?,
            parameter_policy: new.parameter_policy.map(Into::into),
            shared_credentials: new.shared_credentials.unwrap_or(false),
            rate_limit_ceiling: new.rate_limit_ceiling,
        });
        Ok(Created::Created(Json(shown(created.await?))))
    }

    /// One organization
    ///
    /// One's own, or any for a platform admin. Another one's answers as one that does not exist.
    #[oai(path = "/:id", method = "get", operation_id = "getOrganization")]
    async fn get(
        &self,
        may: May<ReadOrganization>,
        /// Its id.
        id: Path<Uuid>,
    ) -> Result<Json<Organization>, Refused<Read>> {
        let found = may.organization_of(OrganizationId(id.0)).await?;
        Ok(Json(shown((found, Vec::new()))))
    }

    /// Change an organization
    ///
    /// For its owners. What all organizations share, a platform admin gives. Names of models and providers that nobody serves
    /// yet are taken into a scope, with a warning.
    #[oai(path = "/:id", method = "patch", operation_id = "updateOrganization")]
    async fn update(
        &self,
        may: May<WriteOrganization>,
        /// Its id.
        id: Path<Uuid>,
        change: Json<OrganizationPatch>,
    ) -> Result<Json<Organization>, Refused<Write>> {
        let patch = change.0;
        if let Some(name) = &patch.name {
            check("/name", name_problem(name))?;
        }
        let change = OrganizationChange {
            name: patch.name,
            scope: changed(patch.allowed_models)
                .map(|lists| read_scope(lists.unwrap_or_default()))
                .transpose()?,
            parameter_policy: changed(patch.parameter_policy).map(|policy| policy.map(Into::into)),
            shared_credentials: patch.shared_credentials,
            rate_limit_ceiling: changed(patch.rate_limit_ceiling),
        };
        Ok(Json(shown(may.change(OrganizationId(id.0), &change).await?)))
    }

    /// Delete an organization
    ///
    /// For a platform admin of another one. It is refused while it has teams, keys that are not revoked, limits or
    /// budgets. Its users, their sessions and its configs go with it; the record of its requests and the audit log stay.
    #[oai(path = "/:id", method = "delete", operation_id = "deleteOrganization")]
    async fn delete(
        &self,
        may: May<ManageOrganizations>,
        /// Its id.
        id: Path<Uuid>,
    ) -> Result<Done, Refused<Act>> {
        may.delete(OrganizationId(id.0)).await?;
        Ok(Done::Done)
    }
}

/// A field that is wrong, if it is.
pub(super) fn check(pointer: &str, problem: Option<&str>) -> Result<(), Refusal> {
    problem.map_or(Ok(()), |problem| Err(Refusal::field(pointer, problem)))
}

/// What is to be changed: a value, or none any more; `None`: nothing.
pub(super) fn changed<T>(field: MaybeUndefined<T>) -> Option<Option<T>> {
    match field {
        MaybeUndefined::Undefined => None,
        MaybeUndefined::Null => Some(None),
        MaybeUndefined::Value(value) => Some(Some(value)),
    }
}

/// The scope of two lists.
pub(super) fn read_scope(lists: ScopeLists) -> Result<scope::Scope, Refusal> {
    let (models, providers) = (lists.models.unwrap_or_default(), lists.providers.unwrap_or_default());
    for (name, list) in [("models", &models), ("providers", &providers)] {
        if list.len() > MAX_SCOPE_ENTRIES {
            return Err(Refusal::field(
                &format!("/allowed_models/{name}"),
                "must have at most 1000 entries",
            ));
        }
        let wrong = |entry: &String| {
            entry.trim().is_empty() || entry.len() > MAX_SCOPE_ENTRY_BYTES || entry.chars().any(char::is_control)
        };
        if let Some(place) = list.iter().position(wrong) {
            let pointer = format!("/allowed_models/{name}/{place}");
            return Err(Refusal::field(&pointer, "must have 1 to 256 printable characters"));
        }
    }
    Ok(scope::Scope::new(models, providers))
}

/// The two lists of a scope.
pub(super) fn lists(scope: &scope::Scope) -> ScopeLists {
    ScopeLists {
        models: Some(scope.models().to_vec()),
        providers: Some(scope.providers().to_vec()),
    }
}

fn shown((organization, warnings): (tenancy::Organization, Vec<String>)) -> Organization {
    Organization {
        id: organization.id.0,
        slug: organization.slug,
        name: organization.name,
        allowed_models: lists(&organization.scope),
        parameter_policy: organization.parameter_policy.map(Into::into),
        shared_credentials: organization.shared_credentials,
        rate_limit_ceiling: organization.rate_limit_ceiling.unwrap_or(DEFAULT_RATE_LIMIT_CEILING),
        created_at: organization.created_at,
        updated_at: organization.updated_at,
        warnings,
    }
}

impl From<Inexpressible> for ParameterPolicy {
    fn from(policy: Inexpressible) -> Self {
        match policy {
            Inexpressible::Reject => Self::Reject,
            Inexpressible::Drop => Self::Drop,
            Inexpressible::Warn => Self::Warn,
        }
    }
}

impl From<ParameterPolicy> for Inexpressible {
    fn from(policy: ParameterPolicy) -> Self {
        match policy {
            ParameterPolicy::Reject => Self::Reject,
            ParameterPolicy::Drop => Self::Drop,
            ParameterPolicy::Warn => Self::Warn,
        }
    }
}
