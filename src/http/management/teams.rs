//! `/api/teams`: groups of keys and people inside an organization.

use chrono::{DateTime, Utc};
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::types::MaybeUndefined;
use poem_openapi::{ApiResponse, Object, OpenApi};
use uuid::Uuid;

use super::Section;
use super::auth::{May, ReadTeams, WriteTeams};
use super::examples::example;
use super::organizations::{ScopeLists, changed, check, lists, read_scope};
use super::page::page;
use super::problem::{Act, Read, Refused, Write};
use super::sign_in::Done;
use crate::domain::ids::TeamId;
use crate::domain::key::NewTeam;
use crate::domain::tenancy::{self, TeamChange, name_problem, slug_problem};

/// Things of one page.
const PAGE: u64 = 50;

/// The handlers.
pub struct TeamsApi;

/// A team.
#[derive(Object)]
#[oai(example)]
struct Team {
    /// Its id.
    id: Uuid,
    /// Its short name, unique in the organization, which stays.
    slug: String,
    /// Its name for people.
    name: String,
    /// What its keys may use at most, within what the organization's may.
    allowed_models: ScopeLists,
    /// When it was created.
    created_at: DateTime<Utc>,
    /// When it last changed.
    updated_at: DateTime<Utc>,
    /// What is not wrong with a scope that was just written, and more often than not a slip: names of models and providers
    /// that nobody serves.
    #[oai(default, skip_serializing_if_is_empty)]
    warnings: Vec<String>,
}

example!(Team, {
    "id": "0199e1c2-5d11-7b0a-8c3e-61f0a9d2e7b4", "slug": "search", "name": "Search",
    "allowed_models": {"models": ["gpt-5*"], "providers": []}, "created_at": "2026-11-02T09:00:00Z",
    "updated_at": "2026-11-02T09:00:00Z"
});

/// Teams.
#[derive(Object)]
struct Teams {
    /// The teams, oldest first.
    data: Vec<Team>,
    /// Where the next page begins, for `cursor`; absent on the last page.
    #[oai(skip_serializing_if_is_none)]
    next_cursor: Option<Uuid>,
}

/// A team to be created.
#[derive(Object)]
#[oai(deny_unknown_fields, example)]
struct TeamToBe {
    /// Its short name: lower-case letters, digits and hyphens. It stays, since rules hold it.
    slug: String,
    /// Its name for people. Default: the short name.
    name: Option<String>,
    /// What its keys may use at most. Default: what the organization's may.
    allowed_models: Option<ScopeLists>,
}

example!(TeamToBe, {
    "slug": "search", "name": "Search", "allowed_models": {"models": ["gpt-5*"], "providers": []}
});

/// What is to be changed about a team. What is left out stays.
#[derive(Object)]
#[oai(deny_unknown_fields, example)]
struct TeamPatch {
    /// Its name for people.
    name: Option<String>,
    /// What its keys may use at most; null: what the organization's may.
    allowed_models: MaybeUndefined<ScopeLists>,
}

example!(TeamPatch, {"name": "Search and ranking"});

/// What was created.
#[derive(ApiResponse)]
enum Created {
    /// It is there.
    #[oai(status = 201)]
    Created(Json<Team>),
}

#[OpenApi(prefix_path = "/api/teams", tag = "Section::Teams")]
impl TeamsApi {
    /// List teams
    ///
    /// A team admin sees their own.
    #[oai(path = "/", method = "get", operation_id = "listTeams")]
    async fn list(
        &self,
        may: May<ReadTeams>,
        /// Teams of one page.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<Uuid>>,
    ) -> Result<Json<Teams>, Refused<Read>> {
        let limit = limit.0.unwrap_or(PAGE);
        let (found, next_cursor) = page(may.teams(cursor.0.map(TeamId), limit + 1).await?, limit, |last| {
            last.id.0
        });
        Ok(Json(Teams {
            next_cursor,
            data: found.into_iter().map(|team| shown((team, Vec::new()))).collect(),
        }))
    }

    /// Create a team
    ///
    /// Its short name is unique in the organization and stays. Its keys may use what itself and the organization allow. Names of
    /// models and providers that nobody serves yet are taken, with a warning.
    #[oai(path = "/", method = "post", operation_id = "createTeam")]
    async fn create(&self, may: May<WriteTeams>, team: Json<TeamToBe>) -> Result<Created, Refused<Write>> {
        let new = team.0;
        check("/slug", slug_problem(&new.slug))?;
        let name = new.name.unwrap_or_else(|| new.slug.clone());
        check("/name", name_problem(&name))?;
        let created = may.create(NewTeam {
            id: TeamId(Uuid::now_v7()),
            organization: may.organization(),
            slug: new.slug,
            name,
            scope: read_scope(new.allowed_models.unwrap_or_default())?,
        });
        Ok(Created::Created(Json(shown(created.await?))))
    }

    /// One team
    ///
    /// A team admin sees their own alone.
    #[oai(path = "/:id", method = "get", operation_id = "getTeam")]
    async fn get(
        &self,
        may: May<ReadTeams>,
        /// Its id.
        id: Path<Uuid>,
    ) -> Result<Json<Team>, Refused<Read>> {
        Ok(Json(shown((may.team(TeamId(id.0)).await?, Vec::new()))))
    }

    /// Change a team
    ///
    /// What is left out stays. Another scope holds for its keys at once, those that exist included.
    #[oai(path = "/:id", method = "patch", operation_id = "updateTeam")]
    async fn update(
        &self,
        may: May<WriteTeams>,
        /// Its id.
        id: Path<Uuid>,
        change: Json<TeamPatch>,
    ) -> Result<Json<Team>, Refused<Write>> {
        let patch = change.0;
        if let Some(name) = &patch.name {
            check("/name", name_problem(name))?;
        }
        let change = TeamChange {
            name: patch.name,
            scope: changed(patch.allowed_models)
                .map(|lists| read_scope(lists.unwrap_or_default()))
                .transpose()?,
        };
        Ok(Json(shown(may.change(TeamId(id.0), &change).await?)))
    }

    /// Delete a team
    ///
    /// It is refused while it has users, keys that are not revoked, limits or budgets. Its revoked keys stay, without a
    /// team.
    #[oai(path = "/:id", method = "delete", operation_id = "deleteTeam")]
    async fn delete(
        &self,
        may: May<WriteTeams>,
        /// Its id.
        id: Path<Uuid>,
    ) -> Result<Done, Refused<Act>> {
        may.delete(TeamId(id.0)).await?;
        Ok(Done::Done)
    }
}

fn shown((team, warnings): (tenancy::Team, Vec<String>)) -> Team {
    Team {
        id: team.id.0,
        slug: team.slug,
        name: team.name,
        allowed_models: lists(&team.scope),
        created_at: team.created_at,
        updated_at: team.updated_at,
        warnings,
    }
}
