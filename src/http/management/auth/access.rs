//! What each proof is good for.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::{May, ReadConfig, ReadProviders, WriteConfig, endpoints};
use crate::domain::config::{ConfigVersion, NewConfig, Saved};
use crate::domain::ids::{KeyId, ProviderId};
use crate::domain::key::RoutedKey;
use crate::domain::measurement::Measured;
use crate::domain::watched::Spot;
use crate::gates::control::OrganizationFacts;
use crate::gates::policies::Published;
use crate::http::management::problem::Refusal;
use crate::pipeline::route::{Asker, WatchedCredential};
use crate::routing::catalog::Deployment;
use crate::routing::document::{self, Policy};
use crate::routing::explain::Reasons;
use crate::routing::facts::{Caller, Facts, tags_of};
use crate::routing::own::OwnProvider;
use crate::routing::plan::{Readiness, Situation};
use crate::routing::simulate::{self, Report};
use crate::upstream::endpoints::Tenant;

/// A provider as an organization sees it.
pub struct ProviderState {
    /// Its id.
    pub id: String,
    /// Whether the organization has not switched it off.
    pub enabled: bool,
    /// How it is doing.
    pub readiness: Readiness,
    /// Until when it is out of the rotation, if it is.
    pub ejected_until: Option<DateTime<Utc>>,
    /// The credentials that the organization's requests go with, its own first.
    pub credentials: Vec<WatchedCredential>,
    /// Its deployments in the catalogue.
    pub deployments: usize,
    /// Those of them that were asked since the start, with what was measured.
    pub measured: BTreeMap<String, Measured>,
    /// Whether requests can go there: there is a credential for it, or it wants none.
    pub usable: bool,
    /// What the organization says of it, where it is an endpoint of its own.
    pub own: Option<OwnProvider>,
}

/// For whom a decision is asked about.
pub struct About {
    organization: OrganizationFacts,
    key: Option<RoutedKey>,
}

/// A document that was read and found to be right.
pub struct Checked {
    text: String,
    policy: Policy,
}

/// Reads a document and checks it against the catalogue, and what it says of endpoints against what may be one.
fn checked(may: &super::Management, document: &serde_json::Value, at: &str) -> Result<Checked, Refusal> {
    let text = document.to_string();
    if text.len() > document::MAX_DOCUMENT_BYTES {
        let detail = format!(
            "the config is {} bytes long; at most {} are allowed",
            text.len(),
            document::MAX_DOCUMENT_BYTES
        );
        return Err(Refusal::bad_request(detail));
    }
    let strategy = may.pipeline.policies.default_policy().strategy;
    let policy = document::read(document, strategy).map_err(|faults| Refusal::faults(faults, at))?;
    let shared = may.pipeline.catalog.load();
    let mut faults = document::check_references(&policy, &policy.catalog(&shared))
        .err()
        .unwrap_or_default();
    faults.extend(endpoints::faults(may, &policy, &shared));
    if !faults.is_empty() {
        return Err(Refusal::faults(faults, at));
    }
    Ok(Checked { text, policy })
}

impl May<ReadConfig> {
    /// The config in force.
    pub async fn config(&self) -> Result<Option<ConfigVersion>, Refusal> {
        let found = self.management.configs.current(self.organization).await;
        found.map_err(|error| Refusal::unavailable(&error))
    }

    /// One version of it.
    pub async fn version(&self, version: i64) -> Result<ConfigVersion, Refusal> {
        let found = self.management.configs.version(self.organization, version).await;
        let found = found.map_err(|error| Refusal::unavailable(&error))?;
        found.ok_or_else(|| Refusal::not_found("version"))
    }

    /// Versions, newest first, before one of them.
    pub async fn versions(&self, before: Option<i64>, most: u64) -> Result<Vec<ConfigVersion>, Refusal> {
        let found = self.management.configs.versions(self.organization, before, most).await;
        found.map_err(|error| Refusal::unavailable(&error))
    }

    /// The organization, and one of its keys.
    pub async fn about(&self, key: Option<KeyId>) -> Result<About, Refusal> {
        let organization = self.facts().await?;
        let key = match key {
            None => None,
            Some(id) => {
                let found = self.management.directory.keys(self.organization, &[id]).await;
                let found = found.map_err(|error| Refusal::unavailable(&error))?.pop();
                Some(found.ok_or_else(|| Refusal::not_found("key"))?)
            }
        };
        Ok(About { organization, key })
    }

    /// Where a request would go, by the config in force or by a draft.
    pub fn explain(
        &self,
        facts: Facts<'_>,
        about: &About,
        draft: Option<&serde_json::Value>,
        budget_exhausted: bool,
    ) -> Result<Reasons, Refusal> {
        let pipeline = &self.management.pipeline;
        let draft = draft
            .map(|draft| checked(&self.management, draft, "/config"))
            .transpose()?;
        let current = pipeline.policies.of(self.organization);
        let policy = draft.as_ref().map_or(&*current, |draft| &draft.policy);
        let own = [about.organization.scope.clone().into()];
        let scopes = about.key.as_ref().map_or(&own[..], |key| &key.scopes);
        let asker = Asker {
            tenant: Tenant {
                organization: &about.organization.slug,
                shared: about.organization.shared_credentials,
            },
            scopes,
            measured: None,
        };
        let mut facts = facts;
        if let Some(key) = &about.key {
            facts.caller = caller(key);
        }
        let asked: std::collections::BTreeSet<&str> = policy.wanted_headers().collect();
        let visible: Vec<(String, String)> = facts
            .headers
            .iter()
            .filter(|(name, _)| asked.contains(name.as_str()))
            .cloned()
            .collect();
        let facts = Facts {
            headers: &visible,
            ..facts
        };
        Ok(pipeline.decide(&facts, &asker, policy, budget_exhausted, |decision| {
            Reasons::of(&decision)
        }))
    }

    /// What a draft would have done with the last requests.
    pub async fn simulate(&self, draft: &serde_json::Value, last: u64) -> Result<Report, Refusal> {
        let draft = checked(&self.management, draft, "/config")?.policy;
        let organization = self.facts().await?;
        let unavailable = |error| Refusal::unavailable(&error);
        let recorded = self
            .management
            .directory
            .last_requests(self.organization, last)
            .await
            .map_err(unavailable)?;
        let mut ids: Vec<KeyId> = recorded.iter().map(|(key, _)| *key).collect();
        ids.sort_unstable();
        ids.dedup();
        let keys = self
            .management
            .directory
            .keys(self.organization, &ids)
            .await
            .map_err(unavailable)?;
        let current = self.management.pipeline.policies.of(self.organization);
        let pipeline = self.management.pipeline.clone();
        // Ten thousand decisions take a tenth of a second, in which this thread's other requests must not wait.
        let simulated = tokio::task::spawn_blocking(move || {
            let keys: HashMap<KeyId, &RoutedKey> = keys.iter().map(|key| (key.id, key)).collect();
            let asker = Asker {
                tenant: Tenant {
                    organization: &organization.slug,
                    shared: organization.shared_credentials,
                },
                scopes: &[],
                measured: None,
            };
            let of_draft = draft.catalog(&pipeline.catalog.load());
            pipeline.situated(&asker, &current, |situation| {
                let about = |key: &KeyId| {
                    let key = *keys.get(key)?;
                    let by = |policy, catalog| Situation {
                        policy,
                        catalog,
                        scopes: &key.scopes,
                        ..*situation
                    };
                    Some((caller(key), [by(&*current, situation.catalog), by(&draft, &*of_draft)]))
                };
                simulate::replay(recorded.into_iter().map(|(key, request)| (request, about(&key))))
            })
        });
        simulated.await.map_err(|error| Refusal::unavailable(&error.into()))
    }
}

impl May<WriteConfig> {
    /// Checks a config and puts it into force, if the one in force is still the one its author saw.
    pub async fn save(&self, document: &serde_json::Value, replaces: Option<i64>) -> Result<ConfigVersion, Refusal> {
        self.save_as("config.replace", document, replaces).await
    }

    async fn save_as(
        &self,
        action: &'static str,
        document: &serde_json::Value,
        replaces: Option<i64>,
    ) -> Result<ConfigVersion, Refusal> {
        let checked = checked(&self.management, document, "")?;
        let organization = self.facts().await?;
        let saved = self.management.configs.save(NewConfig {
            organization: self.organization,
            document: checked.text,
            by: self.author.clone(),
            action,
            replaces,
        });
        match saved.await.map_err(|error| Refusal::unavailable(&error))? {
            Saved::Changed { version } => Err(Refusal::changed(version)),
            Saved::NoSuchOrganization => Err(Refusal::not_found("organization")),
            Saved::Saved(saved) => {
                // The other replicas hear of it; this one need not wait for that.
                let policy = Policy {
                    version: saved.version,
                    ..checked.policy
                };
                self.management.pipeline.policies.publish([Published {
                    organization: self.organization,
                    slug: organization.slug.into(),
                    policy: policy.into(),
                }]);
                Ok(saved)
            }
        }
    }

    /// Puts an earlier version into force again, as a new one.
    pub async fn restore(&self, version: i64, replaces: Option<i64>) -> Result<ConfigVersion, Refusal> {
        let found = self.management.configs.version(self.organization, version).await;
        let found = found.map_err(|error| Refusal::unavailable(&error))?;
        let found = found.ok_or_else(|| Refusal::not_found("version"))?;
        let document = serde_json::from_str(&found.document)
            .map_err(|_| Refusal::bad_request("this version cannot be read any more"))?;
        self.save_as("config.restore", &document, replaces).await
    }
}

impl May<ReadProviders> {
    /// The providers of the organization.
    pub async fn providers(&self) -> Result<Vec<ProviderState>, Refusal> {
        let organization = self.facts().await?;
        let pipeline = &self.management.pipeline;
        let (catalog, endpoints) = (pipeline.catalog_of(self.organization), pipeline.endpoints.now());
        let policy = pipeline.policies.of(self.organization);
        let measured = pipeline.measurements.snapshot();
        let tenant = Tenant {
            organization: &organization.slug,
            shared: organization.shared_credentials,
        };
        let mut providers = BTreeMap::new();
        // Others' own providers are nobody's business. An endpoint of one's own is there before it has a credential.
        let own_ids = policy.own.providers.iter().map(|own| ProviderId::from(own.id.as_str()));
        for id in endpoints
            .providers()
            .filter(|id| endpoints.may_use(tenant, id))
            .chain(own_ids)
        {
            // Nor are models that others made up where a provider forwards everything.
            let listed = || catalog.deployments().filter(|deployment| deployment.provider == id);
            let of = |deployment: &Arc<Deployment>| {
                let measured = measured.get(deployment.measured_as(tenant.organization).as_str())?;
                Some((deployment.id.to_string(), *measured))
            };
            let own = policy.own.provider(id.as_str()).cloned();
            let watched = endpoints.credentials(tenant, &id);
            let watched: Vec<_> = watched
                .into_iter()
                .map(|one| pipeline.watch_over(tenant, one))
                .collect();
            let health = |spot: &Spot| pipeline.board.readiness(tenant.organization, spot);
            let readiness = endpoints.readiness(tenant, &id, None, Instant::now(), &health);
            let soonest = watched.iter().filter_map(|one| one.ejected_until).min();
            let state = ProviderState {
                id: id.to_string(),
                enabled: !policy.providers_off.contains(id.as_str()),
                readiness,
                ejected_until: soonest.filter(|_| readiness == Readiness::Ejected),
                credentials: watched,
                deployments: listed().count(),
                measured: listed().filter_map(of).collect(),
                usable: endpoints.may_use(tenant, &id),
                own,
            };
            providers.insert(state.id.clone(), state);
        }
        Ok(providers.into_values().collect())
    }
}

/// What rules may know of a key.
fn caller(key: &RoutedKey) -> Caller<'_> {
    Caller {
        key_id: key.id.to_string(),
        key_name: &key.name,
        team: key.team.as_deref().unwrap_or_default(),
        tags: tags_of(&key.metadata),
    }
}
