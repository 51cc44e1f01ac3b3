//! `/api/gateway/models`: what the organization's requests can ask for, and the models it has added itself.
//!
//! Its own models are the member `models` of its gateway config, so they have versions and authors, are in force on every
//! replica together with it, and can be gone back to. Ids are those of deployments: `provider/model`, or
//! `provider/model/name` where the provider calls it otherwise; in a path their slashes are percent-encoded.

use poem_openapi::param::{Header, Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::types::{ParseFromJSON as _, ToJSON as _};
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde_json::Value;

use super::Section;
use super::auth::models::ListedModel;
use super::auth::{May, ReadProviders, WriteConfig};
use super::config::{replaced, tag};
use super::examples::example;
use super::limits::Deleted;
use super::prices::{TokenPrices, figures};
use super::problem::{Act, Read, ReadWritten, Refusal, Refused, Write, WriteIf};
use super::schema::{ModelCapabilities, ModelMode, ModelTerms};
use crate::http::percent::percent_decoded;
use crate::routing::catalog_file::Mode;

/// Models of one page.
const PAGE: u64 = 100;

/// The handlers.
pub struct ModelsApi;

/// A model, as one provider serves it.
#[derive(Object)]
#[oai(example)]
struct ServedModel {
    /// The deployment's id: `provider/model`, or `provider/model/name`.
    id: String,
    /// Its provider.
    provider: String,
    /// What clients ask for.
    model: String,
    /// What the provider calls it.
    name: String,
    /// Every name that leads to it and that scopes may write, each alone and with the provider in front.
    names: Vec<String>,
    /// Which endpoint serves it; absent: any.
    #[oai(skip_serializing_if_is_none)]
    mode: Option<ModelMode>,
    /// Tokens of a prompt and its answer together.
    #[oai(skip_serializing_if_is_none)]
    context_tokens: Option<u64>,
    /// Tokens of an answer.
    #[oai(skip_serializing_if_is_none)]
    max_output_tokens: Option<u64>,
    /// What it can do, as far as that is known.
    capabilities: ModelCapabilities,
    /// What it costs the organization now. Absent: nobody has said, so its calls are recorded without a cost.
    #[oai(skip_serializing_if_is_none)]
    price: Option<TokenPrices>,
    /// Whether it is the organization's own.
    own: bool,
}

example!(ServedModel, {
    "id": "openai/gpt-5-mini", "provider": "openai", "model": "gpt-5-mini", "name": "gpt-5-mini",
    "names": ["gpt-5-mini"], "mode": "chat", "context_tokens": 400000, "max_output_tokens": 128000,
    "capabilities": {"vision": true, "tools": true}, "price": {"version": "list#2026-11-01", "input_usd": "0.25",
    "output_usd": "2", "cache_read_usd": "0.025"}, "own": false
});

/// Models.
#[derive(Object)]
struct ServedModels {
    /// The deployments, by their ids.
    data: Vec<ServedModel>,
    /// Where the next page begins, for `cursor`; absent on the last page.
    #[oai(skip_serializing_if_is_none)]
    next_cursor: Option<String>,
}

/// A page of models.
#[derive(ApiResponse)]
enum Listing {
    /// The page.
    #[oai(status = 200)]
    Page(
        Json<ServedModels>,
        /// Names the version of the gateway config, for `If-Match`.
        #[oai(header = "ETag")]
        String,
    ),
}

/// The models that an organization has added itself.
#[derive(Object)]
#[oai(deny_unknown_fields, example)]
struct OwnModels {
    /// All of them; none: only those of the catalogue and of the gateway's configuration.
    models: Vec<ModelTerms>,
}

example!(OwnModels, {
    "models": [{"provider": "house", "model": "butler", "name": "butler-v2", "aliases": ["assistant"],
    "context_tokens": 32000, "max_output_tokens": 4000, "capabilities": {"tools": true}, "input_usd": "0.5",
    "output_usd": "1.5"}]
});

/// A model of the organization's own that was written.
#[derive(ApiResponse)]
enum Written {
    /// It is in force on every replica within a second.
    #[oai(status = 200)]
    Put(
        Json<ModelTerms>,
        /// Names the new version of the gateway config, for `If-Match`.
        #[oai(header = "ETag")]
        String,
    ),
}

/// A model of the organization's own that was added.
#[derive(ApiResponse)]
enum Added {
    /// It is in force on every replica within a second.
    #[oai(status = 201)]
    Model(
        Json<ModelTerms>,
        /// Names the new version of the gateway config, for `If-Match`.
        #[oai(header = "ETag")]
        String,
    ),
}

/// All models of the organization's own, replaced.
#[derive(ApiResponse)]
enum ReplacedModels {
    /// They are in force on every replica within a second.
    #[oai(status = 200)]
    Models(
        Json<OwnModels>,
        /// Names the new version of the gateway config, for `If-Match`.
        #[oai(header = "ETag")]
        String,
    ),
}

#[OpenApi(prefix_path = "/api/gateway/models", tag = "Section::Providers")]
impl ModelsApi {
    /// List models
    ///
    /// What the organization's requests can go to: the catalogue's models at its providers, those of the gateway's
    /// configuration, and its own.
    #[oai(path = "/", method = "get", operation_id = "listModels")]
    async fn list(
        &self,
        may: May<ReadProviders>,
        /// Whether only the organization's own are listed.
        own: Query<Option<bool>>,
        /// Models of one page.
        #[oai(validator(minimum(value = "1"), maximum(value = "500")))]
        limit: Query<Option<u64>>,
        /// `next_cursor` of the page before.
        #[oai(validator(max_length = 1024))]
        cursor: Query<Option<String>>,
    ) -> Result<Listing, Refused<Read>> {
        let limit = usize::try_from(limit.0.unwrap_or(PAGE)).unwrap_or(usize::MAX);
        let own = own.0.unwrap_or(false);
        let (mut found, version) = may.models(cursor.0.as_deref(), own, limit.saturating_add(1)).await?;
        let more = found.len() > limit;
        found.truncate(limit);
        let page = ServedModels {
            next_cursor: found.last().filter(|_| more).map(|last| last.deployment.id.to_string()),
            data: found.into_iter().map(shown).collect(),
        };
        Ok(Listing::Page(Json(page), tag(version)))
    }

    /// Replace the organization's own models
    ///
    /// All of them, by a new version of the gateway config. They are checked as the gateway's own configuration is: names,
    /// prices and sizes, and that there is the provider.
    #[oai(path = "/", method = "put", operation_id = "putModels")]
    async fn replace(
        &self,
        may: May<WriteConfig>,
        /// The `ETag` of the config that this changes; without it, whatever there is.
        #[oai(name = "If-Match")]
        if_match: Header<Option<String>>,
        body: Json<OwnModels>,
    ) -> Result<ReplacedModels, Refused<WriteIf>> {
        let replaces = if_match.0.as_deref().map(replaced).transpose()?.flatten();
        let models: Vec<Value> = body.0.models.iter().map(document_of).collect();
        let version = may.replace_models(&models, replaces).await?;
        Ok(ReplacedModels::Models(body, tag(version)))
    }

    /// Add a model of the organization's own
    ///
    /// A deployment at one of its providers, by a new version of the gateway config. Only the organization's requests can
    /// use it. One of the same id must not be there.
    #[oai(path = "/", method = "post", operation_id = "createModel")]
    async fn add(&self, may: May<WriteConfig>, body: Json<ModelTerms>) -> Result<Added, Refused<Write>> {
        let version = may.add_model(&document_of(&body.0)).await?;
        Ok(Added::Model(body, tag(version)))
    }

    /// A model of the organization's own
    ///
    /// As it was written.
    #[oai(path = "/:id", method = "get", operation_id = "getModel")]
    async fn get(
        &self,
        may: May<ReadProviders>,
        /// Its id, with slashes percent-encoded: `llm%2Fhouse`.
        id: Path<String>,
    ) -> Result<Json<ModelTerms>, Refused<ReadWritten>> {
        let written = may.own_model(&percent_decoded(&id.0)).await?;
        let read = ModelTerms::parse_from_json(Some(written));
        let read = read.map_err(|_| Refusal::conflict("this model cannot be read; replace it"))?;
        Ok(Json(read))
    }

    /// Put a model of the organization's own
    ///
    /// In the place of the one of its id, or as another one, by a new version of the gateway config.
    #[oai(path = "/:id", method = "put", operation_id = "putModel")]
    async fn put(
        &self,
        may: May<WriteConfig>,
        /// Its id, with slashes percent-encoded: `llm%2Fhouse`. It is made of the body's provider, model and name.
        id: Path<String>,
        body: Json<ModelTerms>,
    ) -> Result<Written, Refused<Write>> {
        let version = may.put_model(&percent_decoded(&id.0), &document_of(&body.0)).await?;
        Ok(Written::Put(body, tag(version)))
    }

    /// Take a model of the organization's own away
    ///
    /// By a new version of the gateway config. As long as the config names it elsewhere, the answer is 409 and says where.
    #[oai(path = "/:id", method = "delete", operation_id = "deleteModel")]
    async fn delete(
        &self,
        may: May<WriteConfig>,
        /// Its id, with slashes percent-encoded.
        id: Path<String>,
    ) -> Result<Deleted, Refused<Act>> {
        may.delete_model(&percent_decoded(&id.0)).await?;
        Ok(Deleted::Done)
    }
}

/// A model as the config has it: without what is not said.
fn document_of(model: &ModelTerms) -> Value {
    let mut document = model.to_json().unwrap_or_default();
    if let Some(members) = document.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    document
}

fn shown(listed: ListedModel) -> ServedModel {
    let (deployment, own) = (listed.deployment, listed.own);
    let capabilities = &deployment.capabilities;
    ServedModel {
        id: deployment.id.to_string(),
        provider: deployment.provider.to_string(),
        model: deployment.model.to_string(),
        name: deployment.wire_name.to_string(),
        names: deployment.names.to_vec(),
        mode: match deployment.mode {
            Mode::Chat => Some(ModelMode::Chat),
            Mode::Completion => Some(ModelMode::Completion),
            Mode::Embedding => Some(ModelMode::Embedding),
            Mode::Any | Mode::Responses => None,
        },
        context_tokens: deployment.context_tokens,
        max_output_tokens: deployment.max_output_tokens,
        capabilities: ModelCapabilities {
            vision: capabilities.vision,
            tools: capabilities.tools,
            json_schema: capabilities.json_schema,
            reasoning: capabilities.reasoning,
            prompt_cache: capabilities.prompt_cache,
            sampling_params: capabilities.sampling_params,
        },
        price: deployment.price.as_deref().map(figures),
        own,
    }
}
