//! The catalogue: every model a client may ask for, and the deployments that serve it.
//!
//! Built from the configured providers and the catalogue files, published as one immutable snapshot. A request looks a
//! name up and holds on to what it found; a rebuilt catalogue never changes a request under way.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chrono::NaiveDate;

use super::catalog_file::{self, Capabilities, Mode, ModelRow, price_version};
use super::families::traits_of;
use crate::config::{DeploymentMode, DeploymentSettings, ProviderSettings, Settings, Timeouts, Unlisted};
use crate::domain::call::Operation;
use crate::domain::ids::{DeploymentId, ModelName, ProviderId};
use crate::domain::model::{Family, ModelTraits};
use crate::domain::money::NanoUsd;
use crate::domain::pricing::{Price, Rates};
use crate::domain::scope::canonical_provider;

/// One model as one provider serves it.
#[derive(Debug)]
pub struct Deployment {
    /// `provider/model`, or `provider/model/name` where the provider calls it otherwise.
    pub id: DeploymentId,
    /// Who serves it.
    pub provider: ProviderId,
    /// The name clients use.
    pub model: ModelName,
    /// The name the provider uses.
    pub wire_name: Arc<str>,
    /// What it can be asked for.
    pub mode: Mode,
    /// What it costs; `None` where nobody has said.
    pub price: Option<Arc<Price>>,
    /// Tokens a prompt may have.
    pub context_tokens: Option<u64>,
    /// Tokens an answer may have.
    pub max_output_tokens: Option<u64>,
    /// What it can do.
    pub capabilities: Capabilities,
    /// What its adapter has to know of it.
    pub traits: Arc<ModelTraits>,
    /// How long it may take.
    pub timeouts: Timeouts,
    /// The day on which its provider will stop serving it.
    pub retires: Option<NaiveDate>,
}

impl Deployment {
    /// Whether it can be asked for this.
    pub fn serves(&self, operation: Operation) -> bool {
        match (self.mode, operation) {
            (Mode::Any, _)
            | (Mode::Chat, Operation::Chat)
            | (Mode::Completion, Operation::Completion)
            | (Mode::Embedding, Operation::Embedding) => true,
            (Mode::Chat | Mode::Completion | Mode::Embedding | Mode::Responses, _) => false,
        }
    }
}

/// A provider as the catalogue knows it.
#[derive(Clone, Debug)]
pub struct ProviderEntry {
    /// Its id.
    pub id: ProviderId,
    /// What happens to models that are not listed for it.
    pub unlisted: Unlisted,
}

/// The immutable catalogue.
#[derive(Default, Debug)]
pub struct Catalog {
    by_model: BTreeMap<String, Vec<Arc<Deployment>>>,
    providers: HashMap<String, ProviderEntry>,
    timeouts: HashMap<String, Timeouts>,
    default_timeouts: Timeouts,
}

/// What a requested name stands for.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The model's name without a provider in front.
    pub model: ModelName,
    /// The deployments that serve it, in the order of their providers' ids. Never empty.
    pub deployments: Vec<Arc<Deployment>>,
}

impl Catalog {
    /// The catalogue of a configuration.
    pub fn build(settings: &Settings) -> Self {
        let mut catalog = Self {
            default_timeouts: settings.timeouts,
            ..Self::default()
        };
        for model in settings.models.keys() {
            catalog.timeouts.insert(model.clone(), settings.timeouts_for(model));
        }
        for provider in settings.providers.iter().filter(|provider| provider.enabled) {
            catalog.add(provider);
        }
        catalog
    }

    fn add(&mut self, provider: &ProviderSettings) {
        let id = ProviderId::from(provider.id.as_str());
        self.providers.insert(
            provider.id.clone(),
            ProviderEntry {
                id: id.clone(),
                unlisted: provider.unlisted_models,
            },
        );
        let file = catalog_file::of_provider(&provider.id).expect("the catalogue files are compiled in and tested");
        let rows = file.map(|file| file.models).unwrap_or_default();
        for configured in &provider.deployments {
            // A deployment is usually named by the customer; what is known of its model still holds.
            let known = rows.iter().find(|row| row.name == configured.model);
            let own_price = own_price(&provider.id, configured);
            let mode = configured.mode.map(|mode| match mode {
                DeploymentMode::Chat => Mode::Chat,
                DeploymentMode::Completion => Mode::Completion,
                DeploymentMode::Embedding => Mode::Embedding,
            });
            let deployment = Deployment {
                id: deployment_id(&provider.id, &configured.model, &configured.name),
                provider: id.clone(),
                model: configured.model.as_str().into(),
                wire_name: configured.name.as_str().into(),
                mode: mode.or(known.map(|row| row.mode)).unwrap_or(Mode::Any),
                price: own_price
                    .or_else(|| known.and_then(|row| row.price(&provider.id).ok()))
                    .map(Arc::new),
                context_tokens: configured.context_tokens.or(known.and_then(|row| row.context_tokens)),
                max_output_tokens: configured
                    .max_output_tokens
                    .or(known.and_then(|row| row.max_output_tokens)),
                capabilities: known.map(|row| row.capabilities).unwrap_or_default(),
                traits: traits(&provider.id, &configured.model, &configured.name),
                timeouts: self.timeouts_for(&configured.model),
                retires: known.and_then(ModelRow::retires),
            };
            self.insert(deployment);
        }
        // Where an administrator named the deployments, those are all there are: Azure serves nothing else.
        if !provider.deployments.is_empty() && provider.unlisted_models == Unlisted::Refuse {
            return;
        }
        for row in rows
            .iter()
            .filter(|row| provider.deployments.iter().all(|own| own.model != row.name))
        {
            let deployment = Deployment {
                id: deployment_id(&provider.id, &row.name, &row.name),
                provider: id.clone(),
                model: row.name.as_str().into(),
                wire_name: row.name.as_str().into(),
                mode: row.mode,
                price: row.price(&provider.id).ok().map(Arc::new),
                context_tokens: row.context_tokens,
                max_output_tokens: row.max_output_tokens,
                capabilities: row.capabilities,
                traits: traits(&provider.id, &row.name, &row.name),
                timeouts: self.timeouts_for(&row.name),
                retires: row.retires(),
            };
            self.insert(deployment);
        }
    }

    fn insert(&mut self, deployment: Deployment) {
        self.by_model
            .entry(deployment.model.as_str().to_owned())
            .or_default()
            .push(Arc::new(deployment));
    }

    fn timeouts_for(&self, model: &str) -> Timeouts {
        self.timeouts.get(model).copied().unwrap_or(self.default_timeouts)
    }

    /// The deployments behind a name a client sent: a model, or a provider and a model (`azure/gpt-4o`).
    pub fn resolve(&self, requested: &str, operation: Operation) -> Option<Resolved> {
        if let Some(deployments) = self.by_model.get(requested) {
            let serving: Vec<_> = deployments.iter().filter(|d| d.serves(operation)).cloned().collect();
            return Resolved::of(serving);
        }
        let (provider, model) = requested.split_once('/')?;
        let provider = self.providers.get(canonical_provider(provider))?;
        let listed = self.listed_by(provider.id.as_str(), model);
        if !listed.is_empty() {
            return Resolved::of(listed.into_iter().filter(|d| d.serves(operation)).collect());
        }
        match provider.unlisted {
            Unlisted::Forward if !model.is_empty() => Resolved::of(vec![Arc::new(self.unlisted(provider, model))]),
            Unlisted::Forward | Unlisted::Refuse => None,
        }
    }

    /// The listed deployments behind a model's name, with or without its provider in front, whatever they serve.
    pub fn listed(&self, name: &str) -> Option<Vec<Arc<Deployment>>> {
        if let Some(deployments) = self.by_model.get(name) {
            return Some(deployments.clone());
        }
        let (provider, model) = name.split_once('/')?;
        let listed = self.listed_by(canonical_provider(provider), model);
        (!listed.is_empty()).then_some(listed)
    }

    fn listed_by(&self, provider: &str, model: &str) -> Vec<Arc<Deployment>> {
        let all = self.by_model.get(model).map(Vec::as_slice).unwrap_or_default();
        all.iter()
            .filter(|deployment| deployment.provider.as_str() == provider)
            .cloned()
            .collect()
    }

    /// A deployment that nobody listed: it is forwarded under its own name, and what it costs is not known.
    fn unlisted(&self, provider: &ProviderEntry, model: &str) -> Deployment {
        Deployment {
            id: deployment_id(provider.id.as_str(), model, model),
            provider: provider.id.clone(),
            model: model.into(),
            wire_name: model.into(),
            mode: Mode::Any,
            price: None,
            context_tokens: None,
            max_output_tokens: None,
            capabilities: Capabilities::default(),
            traits: traits(provider.id.as_str(), model, model),
            timeouts: self.timeouts_for(model),
            retires: None,
        }
    }

    /// Every model with its deployments, by name.
    pub fn models(&self) -> impl Iterator<Item = (&str, &[Arc<Deployment>])> {
        self.by_model
            .iter()
            .map(|(name, deployments)| (name.as_str(), deployments.as_slice()))
    }

    /// Every deployment.
    pub fn deployments(&self) -> impl Iterator<Item = &Arc<Deployment>> {
        self.by_model.values().flatten()
    }
}

impl Resolved {
    fn of(deployments: Vec<Arc<Deployment>>) -> Option<Self> {
        let model = deployments.first()?.model.clone();
        Some(Self { model, deployments })
    }
}

/// `provider/model`, and the deployment's own name where it has another: one model may have several at one provider.
fn deployment_id(provider: &str, model: &str, name: &str) -> DeploymentId {
    if name == model {
        format!("{provider}/{model}").into()
    } else {
        format!("{provider}/{model}/{name}").into()
    }
}

/// The traits of a deployment: by the provider's own name for it, or else by the one that clients use.
///
/// On Azure it is the other way round, because there people name deployments as they like.
fn traits(provider: &str, model: &str, wire_name: &str) -> Arc<ModelTraits> {
    let (first, second) = match provider {
        "azure" => (model, wire_name),
        _ => (wire_name, model),
    };
    let traits = traits_of(provider, first);
    if traits.family != Family::Other || first == second {
        return Arc::new(traits);
    }
    Arc::new(traits_of(provider, second))
}

/// The price an administrator set. Without an input price there is none: half a price would be a wrong one.
fn own_price(provider: &str, configured: &DeploymentSettings) -> Option<Price> {
    let rates = Rates {
        input: NanoUsd(configured.input_nanousd?),
        output: NanoUsd(configured.output_nanousd.unwrap_or(0)),
        cache_read: configured.cache_read_nanousd.map(NanoUsd),
        cache_write: configured.cache_write_nanousd.map(NanoUsd),
        cache_write_1h: None,
    };
    let version = price_version(&format!("config/{provider}/{}", configured.model), &rates, None);
    Some(Price {
        version,
        rates,
        long_prompt: None,
    })
}
