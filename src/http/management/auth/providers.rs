//! What the proofs about providers and prices are good for, besides seeing them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::access::ProviderState;
use super::{Grant, May, ReadPayloads, ReadProviders, WriteConfig, WriteProviders};
use crate::config::{CredentialPath, Fields, ORIGIN_FIELD, Settings, Stored, origin_of};
use crate::domain::audit::Deed;
use crate::domain::authority::FieldFault;
use crate::domain::health::PastChange;
use crate::domain::ids::{ProviderId, RequestId};
use crate::domain::pricing::Price;
use crate::domain::report::hour::Hour;
use crate::domain::scope::canonical_provider;
use crate::gates::control::{KeptPayload, OrganizationFacts};
use crate::http::management::problem::Refusal;
use crate::pipeline::probe::{NotProbed, Probed};
use crate::routing::catalog_file::Capabilities;
use crate::secrets::source::{SecretSource, SourceError, tenant};
use crate::upstream::endpoints::Tenant;

/// How long a new credential is waited for here; other replicas have it within `secrets.refresh_ms`.
const IN_FORCE: Duration = Duration::from_secs(5);
/// How often a config is read again that somebody else changes at the same moment.
const MAX_TRIES: usize = 5;

/// Changes of a provider's health that are shown.
const MOST_CHANGES: u64 = 200;

/// What handlers of credentials work with.
pub struct CredentialDesk {
    /// Where credentials are.
    pub source: Arc<SecretSource>,
    /// The settings with the providers there are now.
    pub settings: Arc<arc_swap::ArcSwap<Settings>>,
}

/// Which credential somebody means.
pub struct Which {
    /// The provider's id.
    pub provider: String,
    /// Which of several; `None`: the one without a name.
    pub name: Option<String>,
    /// Whether it is the one that is shared by all who were granted it.
    pub shared: bool,
}

/// What a deployment costs an organization.
pub struct PricedDeployment {
    /// The deployment.
    pub id: String,
    /// Its provider.
    pub provider: String,
    /// Its model.
    pub model: String,
    /// What it costs now; `None`: nobody has said.
    pub price: Option<Arc<Price>>,
    /// What it would cost if the organization said nothing.
    pub usual: Option<Arc<Price>>,
    /// Whether the organization says what it costs.
    pub own: bool,
    /// Tokens a prompt may have.
    pub context_tokens: Option<u64>,
    /// Tokens an answer may have.
    pub max_output_tokens: Option<u64>,
    /// What it can do.
    pub capabilities: Capabilities,
    /// The day on which its provider will stop serving it.
    pub retires: Option<NaiveDate>,
}

impl<G: Grant> May<G> {
    /// The organization it is about.
    pub(super) async fn facts(&self) -> Result<OrganizationFacts, Refusal> {
        let found = self.management.directory.organization(self.organization).await;
        let found = found.map_err(|error| Refusal::unavailable(&error))?;
        found.ok_or_else(|| Refusal::not_found("organization"))
    }

    /// Takes away every credential that the organization has at a provider, where the store can be written to. In Vault
    /// they stay, and go nowhere.
    async fn remove_all_credentials(&self, organization: &str, provider: &str) -> Result<(), Refusal> {
        let expected = [provider.to_owned()];
        let stored = self.management.credentials.source.read(&expected).await;
        let stored = stored.map_err(|error| Refusal::unavailable(&error.into()))?.stored;
        let own = stored.of(provider).map(|(path, _)| path.clone());
        let own: Vec<CredentialPath> = own
            .filter(|path| path.organization.as_deref() == Some(organization))
            .collect();
        for path in own {
            match self.write(&path, |stored| drop(std::mem::take(stored))).await {
                Ok(()) => {
                    let deed = Deed::new("credential.delete", &path).before(json!({"path": path.to_string()}));
                    self.record(deed).await?;
                }
                Err(Refusal::Conflict(_)) => return Ok(()),
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(())
    }

    /// Changes what is stored, beside the threads that serve.
    async fn write<T: Send + 'static>(
        &self,
        path: &CredentialPath,
        change: impl FnOnce(&mut Fields) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let (source, path) = (self.management.credentials.source.clone(), path.clone());
        let written = tokio::task::spawn_blocking(move || source.change(&path, change)).await;
        match written.map_err(|error| Refusal::unavailable(&error.into()))? {
            Ok(done) => Ok(done),
            Err(error @ SourceError::ReadOnly(_)) => Err(Refusal::conflict(error.to_string())),
            Err(error) => Err(Refusal::unavailable(&error.into())),
        }
    }
}

pub(super) fn tenant_of(organization: &OrganizationFacts) -> Tenant<'_> {
    Tenant {
        organization: &organization.slug,
        shared: organization.shared_credentials,
    }
}

impl May<ReadProviders> {
    /// One provider, with the credentials the organization uses there.
    pub async fn provider(&self, id: &str) -> Result<ProviderState, Refusal> {
        let id = canonical_provider(id);
        let found = self.providers().await?.into_iter().find(|state| state.id == id);
        found.ok_or_else(|| Refusal::not_found("provider"))
    }

    /// The last changes of a provider's health as the organization's requests met it, newest first, as every replica saw
    /// them.
    pub async fn health_history(&self, state: &ProviderState) -> Result<Vec<PastChange>, Refusal> {
        // Whoever has no credential of their own meets what everybody meets who has none.
        let shared = state.credentials.is_empty() || state.credentials.iter().any(|one| one.credential.shared);
        let analytics = &self.management.analytics;
        let found = analytics
            .health_history(self.organization, shared, &state.id, MOST_CHANGES)
            .await;
        found.map_err(|error| Refusal::unavailable(&error.into()))
    }

    /// How many attempts at a provider failed in each hour of a time.
    pub async fn failed_attempts(
        &self,
        provider: &str,
        (from, to): (Hour, Hour),
    ) -> Result<BTreeMap<DateTime<Utc>, i64>, Refusal> {
        let analytics = &self.management.analytics;
        let found = analytics.failed_attempts(self.organization, provider, from, to).await;
        found.map_err(|error| Refusal::unavailable(&error.into()))
    }

    /// What the organization's deployments cost it, by their ids, after one of them.
    pub async fn prices(&self, after: Option<&str>, most: usize) -> Result<Vec<PricedDeployment>, Refusal> {
        let organization = self.facts().await?;
        let (pipeline, now) = (&self.management.pipeline, Utc::now());
        let (catalog, endpoints) = (pipeline.catalog_of(self.organization), pipeline.endpoints.now());
        let policy = pipeline.policies.of(self.organization);
        let mut deployments: Vec<_> = catalog
            .deployments()
            .filter(|deployment| after.is_none_or(|after| deployment.id.as_str() > after))
            .filter(|deployment| endpoints.may_use(tenant_of(&organization), &deployment.provider))
            .collect();
        deployments.sort_by(|one, other| one.id.cmp(&other.id));
        let priced = deployments.into_iter().take(most).map(|deployment| {
            let own = policy.terms.price(deployment, now);
            PricedDeployment {
                id: deployment.id.to_string(),
                provider: deployment.provider.to_string(),
                model: deployment.model.to_string(),
                own: own.is_some(),
                price: own.or_else(|| deployment.price.clone()),
                usual: deployment.price.clone(),
                context_tokens: deployment.context_tokens,
                max_output_tokens: deployment.max_output_tokens,
                capabilities: deployment.capabilities,
                retires: deployment.retires,
            }
        });
        Ok(priced.collect())
    }
}

impl May<ReadPayloads> {
    /// What was asked and answered.
    pub async fn payload(&self, request: RequestId) -> Result<KeptPayload, Refusal> {
        let found = self.management.payloads.payload(self.organization, request).await;
        let found = found.map_err(|error| Refusal::unavailable(&error))?;
        found.ok_or_else(|| Refusal::not_found("payload"))
    }
}

impl May<WriteConfig> {
    /// Changes one member of the config and leaves the others as they are, whatever somebody else does meanwhile; or only
    /// if the config is still the one that `replaces` names. Answers the new version.
    pub async fn change_member(
        &self,
        name: &str,
        replaces: Option<i64>,
        change: impl Fn(Option<&Value>) -> Result<Option<Value>, Refusal>,
    ) -> Result<i64, Refusal> {
        for _ in 0..MAX_TRIES {
            let found = self.management.configs.current(self.organization).await;
            let found = found.map_err(|error| Refusal::unavailable(&error))?;
            let version = found.as_ref().map_or(0, |config| config.version);
            let mut document: Value = match &found {
                None => json!({}),
                Some(config) => serde_json::from_str(&config.document)
                    .map_err(|_| Refusal::conflict("the config in force cannot be read; replace it as a whole"))?,
            };
            let Some(members) = document.as_object_mut() else {
                return Err(Refusal::conflict(
                    "the config in force cannot be read; replace it as a whole",
                ));
            };
            match change(members.get(name))? {
                Some(value) => drop(members.insert(name.to_owned(), value)),
                None => drop(members.remove(name)),
            }
            match self.save(&document, Some(replaces.unwrap_or(version))).await {
                Err(Refusal::PreconditionFailed(_)) if replaces.is_none() => {}
                saved => return saved.map(|saved| saved.version),
            }
        }
        Err(Refusal::conflict(
            "the config changes faster than it can be read; try again",
        ))
    }
}

impl May<WriteConfig> {
    /// Puts an endpoint of the organization's own into its config, in the place of what is said of that id.
    pub async fn put_endpoint(&self, id: &str, said: &Value, replaces: Option<i64>) -> Result<i64, Refusal> {
        let change = |before: Option<&Value>| {
            let mut providers = without(before, id);
            providers.insert(id.to_owned(), said.clone());
            Ok(Some(providers.into()))
        };
        let place = format!("/providers/{id}");
        let changed = self.change_member("providers", replaces, change).await;
        let version = changed.map_err(|refusal| refusal.seen_from(&place))?;
        self.management.pipeline.endpoints.read_soon(IN_FORCE).await;
        Ok(version)
    }

    /// Takes an endpoint of the organization's own away, with its credentials.
    pub async fn delete_endpoint(&self, id: &str) -> Result<(), Refusal> {
        let policy = self.management.pipeline.policies.of(self.organization);
        if policy.own.provider(id).is_none() {
            return Err(Refusal::not_found("endpoint of the organization's own"));
        }
        let change = |before: Option<&Value>| {
            let providers = without(before, id);
            Ok((!providers.is_empty()).then(|| providers.into()))
        };
        let changed = self.change_member("providers", None, change).await;
        changed.map_err(|refusal| still_named(refusal, &format!("what is at {id}")))?;
        let organization = self.facts().await?;
        self.remove_all_credentials(&organization.slug, id).await?;
        self.management.pipeline.endpoints.read_soon(IN_FORCE).await;
        Ok(())
    }
}

/// Why something cannot be taken away that the rest of the config needs.
pub(super) fn still_named(refusal: Refusal, what: &str) -> Refusal {
    let Refusal::Unprocessable(problem) = refusal else {
        return refusal;
    };
    let places: Vec<&str> = problem.0.errors.iter().map(|error| error.pointer.as_str()).collect();
    let places = places.join(", ");
    Refusal::conflict(format!("the config still names {what}: {places}; change these first"))
}

/// What is said of providers, but of one.
fn without(before: Option<&Value>, id: &str) -> serde_json::Map<String, Value> {
    let mut providers = before.and_then(Value::as_object).cloned().unwrap_or_default();
    // It may stand there by its other name.
    providers.retain(|name, _| canonical_provider(name) != id);
    providers
}

impl May<WriteProviders> {
    /// Stores a credential. What it says is checked as a start of the gateway would check it.
    pub async fn set_credential(&self, which: &Which, values: BTreeMap<String, String>) -> Result<(), Refusal> {
        let path = self.path(which).await?;
        let mut fields: Fields = values
            .into_iter()
            .map(|(name, value)| (name, SecretString::from(value)))
            .collect();
        if fields.is_empty() {
            return Err(Refusal::field("/values", "must have a value such as api_key"));
        }
        let faults: Vec<FieldFault> = tenant::faults(&path.provider, &fields)
            .into_iter()
            .map(|(name, problem)| FieldFault::new(format!("/values/{name}"), problem))
            .collect();
        if !faults.is_empty() {
            return Err(Refusal::fields(faults));
        }
        let desk = &self.management.credentials;
        // A credential of an endpoint of one's own is bound to where that is now.
        let policy = self.management.pipeline.policies.of(self.organization);
        let own = policy
            .own
            .provider(&path.provider)
            .filter(|_| path.organization.is_some());
        let endpoint = own.map(|own| {
            fields.set(ORIGIN_FIELD, origin_of(&own.base_url));
            own.clone()
                .endpoint_of(path.organization.as_deref().unwrap_or_default())
        });
        let only = Stored {
            credentials: [(path.clone(), fields.clone())].into(),
        };
        let reading = desk.settings.load().reader.read(&only, endpoint.as_slice());
        if endpoint.is_some() && reading.own.iter().all(|own| own.path != path) {
            return Err(Refusal::field(
                "/values/api_key",
                "must be there, in visible ASCII without spaces",
            ));
        }
        let mut problems = reading
            .problems
            .into_iter()
            .filter(|problem| problem.credential.as_ref() == Some(&path))
            .map(|problem| FieldFault::new("/values", problem.fault.to_string()));
        if let Some(problem) = problems.next() {
            return Err(Refusal::fields(std::iter::once(problem).chain(problems).collect()));
        }
        let names: Vec<String> = fields
            .names()
            .filter(|name| *name != ORIGIN_FIELD)
            .map(ToOwned::to_owned)
            .collect();
        // What is there goes: a credential is stored as a whole.
        self.write(&path, move |stored| *stored = fields).await?;
        let deed = Deed::new("credential.set", &path).after(json!({"path": path.to_string(), "fields": names}));
        self.record(deed).await?;
        self.management.pipeline.endpoints.read_soon(IN_FORCE).await;
        Ok(())
    }

    /// Takes a credential away.
    pub async fn remove_credential(&self, which: &Which) -> Result<(), Refusal> {
        let path = self.path(which).await?;
        let removed = self.write(&path, |stored| !std::mem::take(stored).is_empty()).await?;
        if !removed {
            return Err(Refusal::not_found("credential"));
        }
        let deed = Deed::new("credential.delete", &path).before(json!({"path": path.to_string()}));
        self.record(deed).await?;
        self.management.pipeline.endpoints.read_soon(IN_FORCE).await;
        Ok(())
    }

    /// Makes one small real call.
    pub async fn test(&self, provider: &str, model: Option<&str>) -> Result<Probed, Refusal> {
        let organization = self.facts().await?;
        let provider = ProviderId::from(canonical_provider(provider));
        let tenant = tenant_of(&organization);
        if !self.management.pipeline.endpoints.now().may_use(tenant, &provider) {
            return Err(Refusal::not_found("provider"));
        }
        let probed = self
            .management
            .pipeline
            .probe(self.organization, tenant, &provider, model)
            .await
            .map_err(|why| match why {
                NotProbed::NoCredential => Refusal::not_found("provider"),
                NotProbed::NoModel => {
                    Refusal::field("/model", "there is no model here that the provider could be asked for")
                }
            })?;
        let deed = Deed::new("provider.test", &provider).after(json!({
            "deployment": probed.deployment.as_str(),
            "ok": probed.failure.is_none(),
        }));
        self.record(deed).await?;
        Ok(probed)
    }

    async fn path(&self, which: &Which) -> Result<CredentialPath, Refusal> {
        if which.shared && !self.bearer.role.everywhere() {
            return Err(Refusal::forbidden(
                "shared credentials belong to whoever runs the gateway: only a platform admin may change them",
            ));
        }
        let organization = self.facts().await?;
        let path = CredentialPath {
            organization: (!which.shared).then_some(organization.slug),
            provider: canonical_provider(&which.provider).to_owned(),
            name: which.name.clone(),
        };
        match path.is_plain() {
            true => Ok(path),
            false => Err(Refusal::bad_request(
                "the provider and the name of a credential hold lower-case letters, digits, _ and - only",
            )),
        }
    }
}
