//! What the proofs about providers and prices are good for, besides seeing them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{NaiveDate, Utc};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::access::ProviderState;
use super::{Grant, May, ReadPayloads, ReadProviders, WriteConfig, WriteProviders};
use crate::config::{CredentialPath, Fields, Settings, Stored};
use crate::domain::audit::Deed;
use crate::domain::authority::FieldFault;
use crate::domain::ids::{ProviderId, RequestId};
use crate::domain::pricing::Price;
use crate::domain::scope::canonical_provider;
use crate::gates::control::{KeptPayload, OrganizationFacts};
use crate::http::management::problem::Refusal;
use crate::pipeline::probe::{NotProbed, Probed};
use crate::routing::catalog_file::Capabilities;
use crate::secrets::source::{SecretSource, SourceError, tenant};
use crate::upstream::endpoints::{CredentialState, Tenant};

/// How long a new credential is waited for here; other replicas have it within `secrets.refresh_ms`.
const IN_FORCE: Duration = Duration::from_secs(5);
/// How often a config is read again that somebody else changes at the same moment.
const MAX_TRIES: usize = 5;

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
    async fn facts(&self) -> Result<OrganizationFacts, Refusal> {
        let found = self.management.directory.organization(self.organization).await;
        let found = found.map_err(|error| Refusal::unavailable(&error))?;
        found.ok_or_else(|| Refusal::not_found("organization"))
    }
}

fn tenant_of(organization: &OrganizationFacts) -> Tenant<'_> {
    Tenant {
        organization: &organization.slug,
        shared: organization.shared_credentials,
    }
}

impl May<ReadProviders> {
    /// One provider, with the credentials the organization uses there.
    pub async fn provider(&self, id: &str) -> Result<(ProviderState, Vec<CredentialState>), Refusal> {
        let id = canonical_provider(id);
        let found = self.providers().await?.into_iter().find(|state| state.id == id);
        let state = found.ok_or_else(|| Refusal::not_found("provider"))?;
        let organization = self.facts().await?;
        let endpoints = self.management.pipeline.endpoints.now();
        let credentials = endpoints.credentials(tenant_of(&organization), &ProviderId::from(id));
        Ok((state, credentials))
    }

    /// What the organization's deployments cost it, by their ids, after one of them.
    pub async fn prices(&self, after: Option<&str>, most: usize) -> Result<Vec<PricedDeployment>, Refusal> {
        let organization = self.facts().await?;
        let (pipeline, now) = (&self.management.pipeline, Utc::now());
        let (catalog, endpoints) = (pipeline.catalog.load(), pipeline.endpoints.now());
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
                price: own.or(deployment.price.as_ref()).cloned(),
                usual: deployment.price.clone(),
                own: own.is_some(),
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
    /// Changes one member of the config and leaves the others as they are, whatever somebody else does meanwhile.
    pub async fn change_member(
        &self,
        name: &str,
        change: impl Fn(Option<&Value>) -> Option<Value>,
    ) -> Result<(), Refusal> {
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
            match change(members.get(name)) {
                Some(value) => drop(members.insert(name.to_owned(), value)),
                None => drop(members.remove(name)),
            }
            match self.save(&document, Some(version)).await {
                Err(Refusal::PreconditionFailed(_)) => {}
                saved => return saved.map(drop),
            }
        }
        Err(Refusal::conflict(
            "the config changes faster than it can be read; try again",
        ))
    }
}

impl May<WriteProviders> {
    /// Stores a credential. What it says is checked as a start of the gateway would check it.
    pub async fn set_credential(&self, which: &Which, values: BTreeMap<String, String>) -> Result<(), Refusal> {
        let path = self.path(which).await?;
        let fields: Fields = values
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
        let only = Stored {
            credentials: [(path.clone(), fields.clone())].into(),
        };
        let reading = desk.settings.load().reader.read(&only);
        let mut problems = reading
            .problems
            .into_iter()
            .filter(|problem| problem.credential.as_ref() == Some(&path))
            .map(|problem| FieldFault::new("/values", problem.fault.to_string()));
        if let Some(problem) = problems.next() {
            return Err(Refusal::fields(std::iter::once(problem).chain(problems).collect()));
        }
        let names: Vec<String> = fields.names().map(ToOwned::to_owned).collect();
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
            .probe(tenant, &provider, model)
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
