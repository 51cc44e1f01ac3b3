//! What the proofs about models are good for.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::Utc;
use serde_json::Value;

use super::providers::{still_named, tenant_of};
use super::{May, ReadProviders, WriteConfig};
use crate::domain::scope::canonical_provider;
use crate::http::management::problem::Refusal;
use crate::routing::catalog::{Belongs, Deployment, deployment_id};

/// A model as an organization can ask for it.
pub struct ListedModel {
    /// What serves it, with what it costs the organization.
    pub deployment: Arc<Deployment>,
    /// Whether it is the organization's own.
    pub own: bool,
}

impl May<ReadProviders> {
    /// The deployments that the organization's requests can go to, by their ids, after one of them; or only its own. With
    /// that the version of the config in force.
    pub async fn models(
        &self,
        after: Option<&str>,
        own_only: bool,
        most: usize,
    ) -> Result<(Vec<ListedModel>, i64), Refusal> {
        let organization = self.facts().await?;
        let (pipeline, now) = (&self.management.pipeline, Utc::now());
        let policy = pipeline.policies.of(self.organization);
        let (catalog, endpoints) = (policy.catalog(&pipeline.catalog.load()), pipeline.endpoints.now());
        let is_own = |deployment: &Deployment| deployment.belongs != Belongs::Gateway;
        let mut deployments: Vec<_> = catalog
            .deployments()
            .filter(|deployment| after.is_none_or(|after| deployment.id.as_str() > after))
            // What is one's own is shown before there is a credential for it.
            .filter(|deployment| {
                is_own(deployment) || !own_only && endpoints.may_use(tenant_of(&organization), &deployment.provider)
            })
            .collect();
        deployments.sort_by(|one, other| one.id.cmp(&other.id));
        let listed = deployments.into_iter().take(most).map(|deployment| ListedModel {
            own: is_own(deployment),
            deployment: policy.terms.priced(deployment, now),
        });
        Ok((listed.collect(), policy.version))
    }

    /// What the organization wrote of its own models, by their ids.
    pub async fn own_models(&self) -> Result<BTreeMap<String, Value>, Refusal> {
        let found = self.management.configs.current(self.organization).await;
        let found = found.map_err(|error| Refusal::unavailable(&error))?;
        let document = found.and_then(|config| serde_json::from_str::<Value>(&config.document).ok());
        let models = document.as_ref().and_then(|document| document["models"].as_array());
        let written = models.into_iter().flatten();
        Ok(written.map(|model| (id_of(model), model.clone())).collect())
    }

    /// What the organization wrote of a model of its own.
    pub async fn own_model(&self, id: &str) -> Result<Value, Refusal> {
        let written = self.own_models().await?.remove(id);
        written.ok_or_else(|| Refusal::not_found("model of the organization's own"))
    }
}

impl May<WriteConfig> {
    /// Replaces all models of the organization's own.
    pub async fn replace_models(&self, models: &[Value], replaces: Option<i64>) -> Result<i64, Refusal> {
        let replaced = |_: Option<&Value>| Ok((!models.is_empty()).then(|| models.to_vec().into()));
        self.change_member("models", replaces, replaced).await
    }

    /// Adds a model of the organization's own; one of the same id must not be there.
    pub async fn add_model(&self, model: &Value) -> Result<i64, Refusal> {
        let id = id_of(model);
        self.change_models(&id, |models, place| match place {
            Some(_) => Err(Refusal::conflict(format!("there is {id} already; PUT replaces it"))),
            None => {
                models.push(model.clone());
                Ok(models.len() - 1)
            }
        })
        .await
    }

    /// Puts a model of the organization's own in the place of the one of its id, or adds it.
    pub async fn put_model(&self, id: &str, model: &Value) -> Result<i64, Refusal> {
        let its_own = id_of(model);
        if its_own != id {
            let problem = format!("provider, model and name of this one make it {its_own}, and the path names {id}");
            return Err(Refusal::field("/model", problem));
        }
        self.change_models(id, |models, place| {
            let place = place.unwrap_or(models.len());
            if place == models.len() {
                models.push(model.clone());
            } else {
                models[place] = model.clone();
            }
            Ok(place)
        })
        .await
    }

    /// Takes a model of the organization's own away.
    pub async fn delete_model(&self, id: &str) -> Result<i64, Refusal> {
        let removed = self
            .change_models(id, |models, place| {
                let place = place.ok_or_else(|| Refusal::not_found("model of the organization's own"))?;
                models.remove(place);
                // Nothing is checked at the place of what is gone.
                Ok(usize::MAX)
            })
            .await;
        removed.map_err(|refusal| still_named(refusal, id))
    }

    /// Changes the list of models. `change` gets the place of the one that is meant, and says which place is checked, so
    /// that what is wrong there is said of the body.
    async fn change_models(
        &self,
        id: &str,
        change: impl Fn(&mut Vec<Value>, Option<usize>) -> Result<usize, Refusal>,
    ) -> Result<i64, Refusal> {
        let checked = std::sync::atomic::AtomicUsize::new(0);
        let changed = |before: Option<&Value>| {
            let mut models = before.and_then(Value::as_array).cloned().unwrap_or_default();
            let place = models.iter().position(|model| id_of(model) == id);
            checked.store(change(&mut models, place)?, std::sync::atomic::Ordering::Relaxed);
            Ok((!models.is_empty()).then(|| models.into()))
        };
        let done = self.change_member("models", None, changed).await;
        let place = checked.load(std::sync::atomic::Ordering::Relaxed);
        done.map_err(|refusal| refusal.seen_from(&format!("/models/{place}")))
    }
}

/// The id of the deployment that an entry of the config makes.
fn id_of(model: &Value) -> String {
    let text = |name: &str| model[name].as_str().map(str::trim);
    let (provider, asked) = (text("provider").unwrap_or_default(), text("model").unwrap_or_default());
    deployment_id(canonical_provider(provider), asked, text("name").unwrap_or(asked)).to_string()
}
