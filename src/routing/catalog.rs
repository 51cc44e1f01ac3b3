//! The catalogue: every model a client may ask for, and the deployments that serve it.
//!
//! Built from the configured providers and the catalogue files, published as one immutable snapshot. A request looks a
//! name up and holds on to what it found; a rebuilt catalogue never changes a request under way.
//!
//! One model has many names: its public one (`claude-sonnet-4-5`), what each provider calls it, dated names, aliases of
//! the catalogue files and aliases people made up in `[aliases]`. Each leads to every deployment it stands for, in the
//! order of the providers' ids; within one provider first what people listed themselves, in their order, and then the
//! catalogue's row. Where the catalogue has several rows for one model at one provider, as for Bedrock's `global.` and
//! `us.` profiles, the cheapest is the one, or at the same price the one in the geography of the provider's region; the
//! others are spares and come after every provider's first choice, because failing over to another provider is worth
//! more than to a dearer door of the same one.
//!
//! An organization that has models or endpoints of its own has a catalogue of its own: a thin one, with what is its own,
//! laid over the one that all share ([`Catalog::over`]). Nobody else ever sees it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use chrono::NaiveDate;

use super::catalog_file::{self, Capabilities, CatalogFile, Mode, ModelRow, completed, versioned};
use super::families::traits_of;
use super::geography;
use super::own::{OwnModel, OwnProvider};
use crate::config::{DeploymentMode, DeploymentSettings, ProviderKind, ProviderSettings, Settings, Timeouts, Unlisted};
use crate::domain::call::Operation;
use crate::domain::ids::{DeploymentId, ModelName, ProviderId};
use crate::domain::model::{Family, ModelTraits};
use crate::domain::pricing::{Price, Rates};
use crate::domain::scope::{Scope, canonical_provider};
use crate::domain::service::Surcharges;

/// One model as one provider serves it.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// `provider/model`, or `provider/model/name` where the provider calls it otherwise.
    pub id: DeploymentId,
    /// Who serves it.
    pub provider: ProviderId,
    /// The name clients use.
    pub model: ModelName,
    /// The name the provider uses.
    pub wire_name: Arc<str>,
    /// Every name a scope may know it by, each alone and with the provider in front.
    pub names: Arc<[String]>,
    /// Whether its provider has a better deployment of the same model, so that it is tried after all first choices.
    pub spare: bool,
    /// What it can be asked for.
    pub mode: Mode,
    /// What it costs; `None` where nobody has said.
    pub price: Option<Arc<Price>>,
    /// What the catalogue says it costs, whether or not that is what counts.
    pub list_price: Option<Arc<ListPrice>>,
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
    /// Where it works: a region, a geography or `global`. `None`: its provider does not say.
    pub place: Option<Arc<str>>,
    /// Who wrote it down, and who its provider.
    pub belongs: Belongs,
}

/// Whose a deployment is. What is an organization's own is watched and measured apart from everybody else's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Belongs {
    /// The gateway's: the catalogue's, or that of whoever runs it.
    Gateway,
    /// A model of an organization's own, at a provider of the gateway.
    Organization,
    /// A model at an endpoint of an organization's own.
    OwnProvider,
}

/// A price of the catalogue, with its age.
#[derive(Debug)]
pub struct ListPrice {
    /// The price.
    pub price: Price,
    /// When somebody last looked.
    pub as_of: Option<NaiveDate>,
}

impl Deployment {
    /// Whether it can be asked for this.
    pub fn serves(&self, operation: Operation) -> bool {
        match (self.mode, operation) {
            (Mode::Any, _)
            // A legacy completion of a chat model is a chat with one turn.
            | (Mode::Chat, Operation::Chat | Operation::Completion)
            | (Mode::Completion, Operation::Completion)
            | (Mode::Embedding, Operation::Embedding) => true,
            (Mode::Chat | Mode::Completion | Mode::Embedding | Mode::Responses, _) => false,
        }
    }

    /// Whether a scope lets it serve a request; `alias` is the alias of `[aliases]` by which it was asked, if any.
    ///
    /// Any of its names will do, so a key for `claude-sonnet-4-5` may be served by Bedrock, where it is called
    /// otherwise. An entry for an alias of `[aliases]` is good for requests by that alias alone: the models behind it
    /// may change without the key's owner hearing of it.
    pub fn allowed_by(&self, scope: &Scope, alias: Option<&str>) -> bool {
        scope.allows_provider(self.provider.as_str())
            && scope.allows_model(self.names.iter().map(String::as_str).chain(alias))
    }
}

/// A provider as the catalogue knows it.
#[derive(Clone, Debug)]
pub struct ProviderEntry {
    /// Its id.
    pub id: ProviderId,
    /// What happens to models that are not listed for it.
    pub unlisted: Unlisted,
    /// Where it works, as [`Deployment::place`].
    pub place: Option<Arc<str>>,
    /// Whether it is this process.
    local: bool,
    /// A region of AWS or a location of Google, if it has one.
    region: Option<Arc<str>>,
    belongs: Belongs,
}

/// The immutable catalogue.
#[derive(Default, Debug)]
pub struct Catalog {
    /// What is in it besides: the one that it is laid over.
    base: Option<Arc<Catalog>>,
    /// Every deployment once, but for those by dated names, in the order in which they are tried.
    all: Vec<Arc<Deployment>>,
    /// What each name stands for, aliases of `[aliases]` apart.
    by_name: BTreeMap<String, Vec<Arc<Deployment>>>,
    /// What each alias of `[aliases]` stands for; never empty.
    by_alias: BTreeMap<String, Vec<Arc<Deployment>>>,
    /// The names that are shown to people: one for each model.
    public: BTreeSet<String>,
    providers: HashMap<String, ProviderEntry>,
    timeouts: HashMap<String, Timeouts>,
    default_timeouts: Timeouts,
}

/// What a requested name stands for.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The model's name without a provider in front; where an alias stands for several, that of the first.
    pub model: ModelName,
    /// The alias of `[aliases]` that was asked for, if it was one.
    pub alias: Option<String>,
    /// The deployments that serve it, in the order in which they are tried. Never empty.
    pub deployments: Vec<Arc<Deployment>>,
}

/// A deployment of a provider that is being added, and the names that lead to it.
struct Listed {
    deployment: Deployment,
    leads: Vec<String>,
    /// Whether it is another deployment of the catalogue under a dated name.
    dated: bool,
}

/// A provider whose models are being added, and where they run.
struct Place<'a> {
    id: &'a str,
    /// Whether that is this process.
    local: bool,
    /// A region of AWS or a location of Google. `None`: it has none, or nobody knows.
    place: Option<&'a str>,
    /// Whose the models are.
    belongs: Belongs,
}

impl Place<'_> {
    /// Where a deployment of this name works.
    fn of(&self, wire_name: &str) -> Option<Arc<str>> {
        if self.local {
            return Some(geography::LOCAL.into());
        }
        self.place.map(|place| geography::place_of(wire_name, place).into())
    }

    fn list_price(&self, row: &ModelRow) -> Option<Arc<ListPrice>> {
        let percent = match (row.regional_percent, self.place) {
            (Some(percent), Some(place)) if place != "global" => percent,
            _ => 100,
        };
        let price = row.price(self.id, percent).ok()?;
        Some(Arc::new(ListPrice {
            price,
            as_of: row.as_of(),
        }))
    }
}

impl Catalog {
    /// The catalogue of a configuration.
    ///
    /// Aliases that stand for nothing are left out; [`super::aliases::check`] reports them.
    pub fn build(settings: &Settings) -> Self {
        Self::build_at(settings, place)
    }

    /// [`build`](Self::build) with the places of the providers handed in.
    fn build_at(settings: &Settings, place: impl Fn(&ProviderSettings) -> Option<&str>) -> Self {
        let mut catalog = Self {
            default_timeouts: settings.timeouts,
            ..Self::default()
        };
        for model in settings.models.keys() {
            catalog.timeouts.insert(model.clone(), settings.timeouts_for(model));
        }
        for provider in settings.providers.iter().filter(|provider| provider.enabled) {
            let at = Place {
                id: &provider.id,
                local: matches!(provider.kind, ProviderKind::Echo),
                place: place(provider),
                belongs: Belongs::Gateway,
            };
            catalog.add(provider, &at);
        }
        for deployments in catalog.by_name.values_mut() {
            deployments.sort_by_key(|deployment| deployment.spare);
        }
        for (alias, models) in &settings.aliases {
            let deployments = catalog.behind(models);
            if !deployments.is_empty() && !catalog.by_name.contains_key(alias) {
                catalog.by_alias.insert(alias.clone(), deployments);
            }
        }
        catalog
    }

    /// An organization's catalogue: what is its own, laid over the one that all share.
    ///
    /// A model at a provider that there is not any more is left out. An endpoint of its own hides a provider of the same
    /// id, which somebody may have configured later: its requests must not begin to go elsewhere.
    pub fn over(base: &Arc<Self>, models: &[OwnModel], providers: &[OwnProvider]) -> Self {
        let mut catalog = Self {
            base: Some(base.clone()),
            timeouts: base.timeouts.clone(),
            default_timeouts: base.default_timeouts,
            ..Self::default()
        };
        for provider in providers {
            catalog.providers.insert(
                provider.id.clone(),
                ProviderEntry {
                    id: provider.id.as_str().into(),
                    unlisted: provider.unlisted,
                    place: None,
                    local: false,
                    region: None,
                    belongs: Belongs::OwnProvider,
                },
            );
        }
        for model in models {
            let Some(provider) = catalog.provider(&model.provider).cloned() else {
                continue;
            };
            let at = Place {
                id: &model.provider,
                local: provider.local,
                place: provider.region.as_deref(),
                belongs: match provider.belongs {
                    Belongs::OwnProvider => Belongs::OwnProvider,
                    Belongs::Gateway | Belongs::Organization => Belongs::Organization,
                },
            };
            let file = match provider.belongs {
                Belongs::OwnProvider => None,
                _ => {
                    catalog_file::of_provider(&model.provider).expect("the catalogue files are compiled in and tested")
                }
            };
            let rows = file.map(|file| file.models).unwrap_or_default();
            let listed = catalog.configured(&at, &model.deployment, &rows);
            catalog.insert(listed);
        }
        catalog
    }

    fn provider(&self, id: &str) -> Option<&ProviderEntry> {
        let of_base = || self.base.as_ref()?.provider(id);
        self.providers.get(id).or_else(of_base)
    }

    /// Whether a deployment of the catalogue below still counts: nothing of the organization's own is in its place.
    fn leaves(&self, deployment: &Deployment) -> bool {
        !self.providers.contains_key(deployment.provider.as_str()) && self.all.iter().all(|own| own.id != deployment.id)
    }

    /// The deployments of an alias's models, in their order, each once.
    fn behind(&self, models: &[String]) -> Vec<Arc<Deployment>> {
        let mut seen = BTreeSet::new();
        models
            .iter()
            .flat_map(|model| {
                self.listed_as(model)
                    .unwrap_or_else(|| self.forwarded(model).into_iter().collect())
            })
            .filter(|deployment| seen.insert(deployment.id.as_str().to_owned()))
            .collect()
    }

    fn add(&mut self, provider: &ProviderSettings, at: &Place<'_>) {
        let id = ProviderId::from(provider.id.as_str());
        self.providers.insert(
            provider.id.clone(),
            ProviderEntry {
                id,
                unlisted: provider.unlisted_models,
                place: at.of(""),
                local: at.local,
                region: at.place.map(Arc::from),
                belongs: at.belongs,
            },
        );
        let file = catalog_file::of_provider(&provider.id).expect("the catalogue files are compiled in and tested");
        let rows = file.map(|file| file.models).unwrap_or_default();
        for configured in &provider.deployments {
            let listed = self.configured(at, configured, &rows);
            self.insert(listed);
        }
        // Where an administrator named the deployments, those are all there are: Azure serves nothing else.
        if !provider.deployments.is_empty() && provider.unlisted_models == Unlisted::Refuse {
            return;
        }
        let mut listed: Vec<(&ModelRow, Vec<Listed>)> = rows
            .iter()
            .filter(|row| provider.deployments.iter().all(|own| !replaces(own, row)))
            .map(|row| (row, self.of_row(at, row)))
            .collect();
        listed.sort_by_cached_key(|(row, listed)| {
            let price = listed.first().and_then(|listed| listed.deployment.price.clone());
            let usual = price.map_or(i64::MAX, |price| {
                price.rates.input.0.saturating_add(price.rates.output.0)
            });
            (
                usual,
                Reverse(at.place.is_some_and(|place| geography::is_near(&row.name, place))),
            )
        });
        let mut chosen = BTreeSet::new();
        for (row, listed) in listed {
            let spare = chosen.contains(row.public_name());
            for mut one in listed {
                one.deployment.spare = spare;
                if one.leads.iter().any(|lead| lead == row.public_name()) {
                    chosen.insert(row.public_name());
                }
                self.insert(one);
            }
        }
    }

    /// A deployment that people listed. It is usually named by them; what is known of its model still holds.
    fn configured(&self, at: &Place<'_>, configured: &DeploymentSettings, rows: &[ModelRow]) -> Listed {
        let id = at.id;
        let known = known_row(configured, rows);
        let list_price = known_price(at, configured, rows);
        let own_price = own_price(at, configured).map(|own| match &list_price {
            Some(list) => Arc::new(completed(&own, &list.price)),
            None => Arc::new(own),
        });
        let mode = configured.mode.map(|mode| match mode {
            DeploymentMode::Chat => Mode::Chat,
            DeploymentMode::Completion => Mode::Completion,
            DeploymentMode::Embedding => Mode::Embedding,
        });
        let mut leads = vec![configured.model.clone()];
        if let Some(row) = known.filter(|row| row.public_name() == configured.model || row.name == configured.model) {
            // The catalogue's other names hold too, but for its own id if this is another deployment of the model.
            let others = row.names().filter(|&name| name != row.name || name == configured.name);
            leads.extend(others.filter(|&name| name != configured.model).map(str::to_owned));
        }
        for alias in &configured.aliases {
            if !leads.contains(alias) {
                leads.push(alias.clone());
            }
        }
        let deployment = Deployment {
            id: deployment_id(id, &configured.model, &configured.name),
            provider: id.into(),
            model: configured.model.as_str().into(),
            wire_name: configured.name.as_str().into(),
            names: scope_names(id, leads.iter().map(String::as_str)),
            spare: false,
            mode: mode.or(known.map(|row| row.mode)).unwrap_or(Mode::Any),
            price: own_price.or_else(|| Some(Arc::new(list_price.as_ref()?.price.clone()))),
            list_price,
            context_tokens: configured.context_tokens.or(known.and_then(|row| row.context_tokens)),
            max_output_tokens: configured
                .max_output_tokens
                .or(known.and_then(|row| row.max_output_tokens)),
            capabilities: configured
                .capabilities
                .or(known.map(|row| row.capabilities).unwrap_or_default()),
            traits: traits(id, configured),
            timeouts: self.timeouts_for(leads.iter().map(String::as_str)),
            retires: known.and_then(ModelRow::retires),
            place: at.of(&configured.name),
            belongs: at.belongs,
        };
        Listed {
            deployment,
            leads,
            dated: false,
        }
    }

    /// The deployments of a catalogue row: itself, and one for each dated name.
    fn of_row(&self, at: &Place<'_>, row: &ModelRow) -> Vec<Listed> {
        let id = at.id;
        let list_price = at.list_price(row);
        let deployment = Deployment {
            id: deployment_id(id, row.public_name(), &row.name),
            provider: id.into(),
            model: row.public_name().into(),
            wire_name: row.name.as_str().into(),
            names: scope_names(id, row.names()),
            spare: false,
            mode: row.mode,
            price: list_price.as_ref().map(|list| Arc::new(list.price.clone())),
            list_price,
            context_tokens: row.context_tokens,
            max_output_tokens: row.max_output_tokens,
            capabilities: row.capabilities,
            traits: Arc::new(traits_of(id, &row.name)),
            timeouts: self.timeouts_for(row.names()),
            retires: row.retires(),
            place: at.of(&row.name),
            belongs: at.belongs,
        };
        let reachable = at.place.is_none_or(|place| geography::is_reachable(&row.name, place));
        let leads = match reachable {
            true => row.names().map(str::to_owned).collect(),
            // Bedrock refuses it from there. Whoever asks for it by its full name shall hear so from Bedrock.
            false => vec![row.name.clone()],
        };
        let snapshots: Vec<Listed> = row
            .snapshots
            .iter()
            .map(|snapshot| Listed {
                deployment: Deployment {
                    id: deployment_id(id, row.public_name(), snapshot),
                    wire_name: snapshot.as_str().into(),
                    names: scope_names(id, row.names().chain([snapshot.as_str()])),
                    ..deployment.clone()
                },
                leads: vec![snapshot.clone()],
                dated: true,
            })
            .collect();
        let mut listed = vec![Listed {
            deployment,
            leads,
            dated: false,
        }];
        listed.extend(snapshots);
        listed
    }

    fn insert(&mut self, listed: Listed) {
        let deployment = Arc::new(listed.deployment);
        if listed.leads.iter().any(|lead| lead == deployment.model.as_str()) {
            self.public.insert(deployment.model.as_str().to_owned());
        }
        for lead in listed.leads {
            self.by_name.entry(lead).or_default().push(deployment.clone());
        }
        if !listed.dated {
            self.all.push(deployment);
        }
    }

    fn timeouts_for<'a>(&self, mut names: impl Iterator<Item = &'a str>) -> Timeouts {
        names
            .find_map(|name| self.timeouts.get(name).copied())
            .unwrap_or(self.default_timeouts)
    }

    /// The deployments behind a name a client sent: a model, an alias, or a provider and a model (`azure/gpt-4o`).
    pub fn resolve(&self, requested: &str, operation: Operation) -> Option<Resolved> {
        let mut resolved = self.lookup(requested)?;
        resolved.deployments.retain(|deployment| deployment.serves(operation));
        resolved.model = resolved.deployments.first()?.model.clone();
        Some(resolved)
    }

    /// The listed deployments behind a name, with or without its provider in front, whatever they serve.
    pub fn listed(&self, name: &str) -> Option<Resolved> {
        // A name of the organization's own goes before an alias of the gateway's, which may be younger.
        if let Some(deployments) = self.base.as_ref().and_then(|_| self.own_as(name)) {
            let below = self.below_as(name);
            return Resolved::of(deployments.into_iter().chain(below).collect(), None);
        }
        match self.alias(name) {
            Some(deployments) => Resolved::of(deployments, Some(name)),
            None => Resolved::of(self.listed_as(name)?, None),
        }
    }

    /// What an alias of `[aliases]` stands for.
    fn alias(&self, name: &str) -> Option<Vec<Arc<Deployment>>> {
        let Some(base) = &self.base else {
            return self.by_alias.get(name).cloned();
        };
        let kept: Vec<_> = base.alias(name)?.into_iter().filter(|one| self.leaves(one)).collect();
        (!kept.is_empty()).then_some(kept)
    }

    fn lookup(&self, name: &str) -> Option<Resolved> {
        self.listed(name)
            .or_else(|| Resolved::of(vec![self.forwarded(name)?], None))
    }

    /// The listed deployments behind a name that is no alias of `[aliases]`: what is one's own first.
    fn listed_as(&self, name: &str) -> Option<Vec<Arc<Deployment>>> {
        let mut listed = self.own_as(name).unwrap_or_default();
        listed.extend(self.below_as(name));
        (!listed.is_empty()).then_some(listed)
    }

    /// What the catalogue below has for a name.
    fn below_as(&self, name: &str) -> Vec<Arc<Deployment>> {
        let listed = self.base.as_ref().and_then(|base| base.listed_as(name));
        let listed = listed.into_iter().flatten();
        listed.filter(|deployment| self.leaves(deployment)).collect()
    }

    fn own_as(&self, name: &str) -> Option<Vec<Arc<Deployment>>> {
        if let Some(deployments) = self.by_name.get(name) {
            return Some(deployments.clone());
        }
        let (provider, model) = name.split_once('/')?;
        let provider = canonical_provider(provider);
        let of_model = self.by_name.get(model)?.iter();
        let listed: Vec<_> = of_model
            .filter(|deployment| deployment.provider.as_str() == provider)
            .cloned()
            .collect();
        (!listed.is_empty()).then_some(listed)
    }

    /// The deployment behind `provider/model` where nobody listed it and the provider takes what it is given.
    fn forwarded(&self, name: &str) -> Option<Arc<Deployment>> {
        let (provider, model) = name.split_once('/')?;
        let provider = self.provider(canonical_provider(provider))?;
        match provider.unlisted {
            Unlisted::Forward if !model.is_empty() => Some(Arc::new(self.unlisted(provider, model))),
            Unlisted::Forward | Unlisted::Refuse => None,
        }
    }

    /// A deployment that nobody listed: it is forwarded under its own name, and what it costs is not known.
    fn unlisted(&self, provider: &ProviderEntry, model: &str) -> Deployment {
        let id = provider.id.as_str();
        Deployment {
            id: deployment_id(id, model, model),
            provider: provider.id.clone(),
            model: model.into(),
            wire_name: model.into(),
            names: scope_names(id, std::iter::once(model)),
            spare: false,
            mode: Mode::Any,
            price: None,
            list_price: None,
            context_tokens: None,
            max_output_tokens: None,
            capabilities: Capabilities::default(),
            traits: Arc::new(traits_of(id, model)),
            timeouts: self.timeouts_for(std::iter::once(model)),
            retires: None,
            place: provider
                .place
                .as_ref()
                .map(|place| geography::place_of(model, place).into()),
            belongs: provider.belongs,
        }
    }

    /// Every provider that has an entry, by its id.
    pub fn has_provider(&self, id: &str) -> bool {
        self.provider(id).is_some()
    }

    /// Whether a provider is an endpoint of the organization's own.
    pub fn is_own_provider(&self, id: &str) -> bool {
        self.provider(id)
            .is_some_and(|provider| provider.belongs == Belongs::OwnProvider)
    }

    /// Every model and every alias once, by its public name.
    pub fn models(&self) -> impl Iterator<Item = (&str, Resolved)> {
        let mut names = BTreeSet::new();
        self.public_names(&mut names);
        names.into_iter().filter_map(|name| Some((name, self.listed(name)?)))
    }

    fn public_names<'c>(&'c self, into: &mut BTreeSet<&'c str>) {
        into.extend(self.public.iter().chain(self.by_alias.keys()).map(String::as_str));
        if let Some(base) = &self.base {
            base.public_names(into);
        }
    }

    /// Every name a listed deployment can be asked for by, without a provider in front.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let mut names: BTreeSet<&str> = self.by_name.keys().map(String::as_str).collect();
        names.extend(
            self.base
                .iter()
                .flat_map(|base| base.by_name.keys())
                .map(String::as_str),
        );
        names.into_iter()
    }

    /// Whether a name leads to a deployment.
    pub fn stands_for_something(&self, name: &str) -> bool {
        self.lookup(name).is_some()
    }

    /// Every listed deployment; what is reached by dated names only is not counted apart.
    pub fn deployments(&self) -> impl Iterator<Item = &Arc<Deployment>> {
        let below = self.base.iter().flat_map(|base| &base.all);
        self.all
            .iter()
            .chain(below.filter(|deployment| self.leaves(deployment)))
    }
}

impl Resolved {
    fn of(deployments: Vec<Arc<Deployment>>, alias: Option<&str>) -> Option<Self> {
        let model = deployments.first()?.model.clone();
        Some(Self {
            model,
            alias: alias.map(str::to_owned),
            deployments,
        })
    }

    /// The deployments that every scope lets through.
    pub fn allowed_by<'r>(&'r self, scopes: &'r [Arc<Scope>]) -> impl Iterator<Item = &'r Arc<Deployment>> {
        self.deployments.iter().filter(|deployment| {
            scopes
                .iter()
                .all(|scope| deployment.allowed_by(scope, self.alias.as_deref()))
        })
    }
}

/// Where a provider's models run, for [`Place::place`], of those that say.
fn place(provider: &ProviderSettings) -> Option<&str> {
    provider.kind.region()
}

/// `provider/model`, and the deployment's own name where it has another: one model may have several at one provider.
pub fn deployment_id(provider: &str, model: &str, name: &str) -> DeploymentId {
    if name == model {
        format!("{provider}/{model}").into()
    } else {
        format!("{provider}/{model}/{name}").into()
    }
}

/// The names as scopes may write them.
fn scope_names<'a>(provider: &str, names: impl Iterator<Item = &'a str>) -> Arc<[String]> {
    let names: BTreeSet<&str> = names.collect();
    let with_provider = names.iter().map(|name| format!("{provider}/{name}"));
    names.iter().map(|&name| name.to_owned()).chain(with_provider).collect()
}

/// The catalogue's row for a deployment that people listed: by what they say it is like, by the provider's name for it,
/// or by the one that clients use.
fn known_row<'r>(configured: &DeploymentSettings, rows: &'r [ModelRow]) -> Option<&'r ModelRow> {
    let by = |name: &str| {
        let exact = rows.iter().find(|row| row.name == name);
        let known = |row: &&ModelRow| {
            row.names()
                .chain(row.snapshots.iter().map(String::as_str))
                .any(|n| n == name)
        };
        exact.or_else(|| rows.iter().find(known))
    };
    if let Some(like) = &configured.like {
        return by(like);
    }
    by(&configured.model).map_or_else(
        || by(&configured.name),
        |row| {
            // Of several rows for one model, the one that is called like the deployment.
            let same = rows
                .iter()
                .find(|other| other.name == configured.name && other.public_name() == row.public_name());
            Some(same.unwrap_or(row))
        },
    )
}

/// The list price of a deployment that people listed, where it is certain.
///
/// A Bedrock inference profile of one's own may stand for a `global.` or a `us.` profile, which differ in price. A guess
/// would be a wrong bill, so then there is none.
fn known_price(at: &Place<'_>, configured: &DeploymentSettings, rows: &[ModelRow]) -> Option<Arc<ListPrice>> {
    if configured.like.is_some() {
        return None;
    }
    let known = known_row(configured, rows)?;
    let price = at.list_price(known)?;
    let certain = known.name == configured.name
        || known.snapshots.contains(&configured.name)
        || rows
            .iter()
            .filter(|row| row.public_name() == known.public_name())
            .all(|row| {
                at.list_price(row)
                    .is_some_and(|other| other.price.rates == price.price.rates)
            });
    certain.then_some(price)
}

/// Whether a deployment that people listed takes the place of a catalogue row.
fn replaces(own: &DeploymentSettings, row: &ModelRow) -> bool {
    own.name == row.name || row.names().any(|name| name == own.model)
}

/// The traits of a deployment that people listed: of what they say it is like, or else by the provider's own name for
/// it, or else by the one that clients use.
///
/// On Azure the latter counts for more, because there people name deployments as they like.
fn traits(provider: &str, configured: &DeploymentSettings) -> Arc<ModelTraits> {
    let (first, second) = match (&configured.like, provider) {
        (Some(like), _) => (like, like),
        (None, "azure") => (&configured.model, &configured.name),
        (None, _) => (&configured.name, &configured.model),
    };
    let traits = traits_of(provider, first);
    if traits.family != Family::Other || first == second {
        return Arc::new(traits);
    }
    Arc::new(traits_of(provider, second))
}

/// The price an administrator set.
fn own_price(at: &Place<'_>, configured: &DeploymentSettings) -> Option<Price> {
    let own = configured.price?;
    let price = Price {
        version: "".into(),
        rates: own.rates,
        long_prompt: own.long_prompt,
        batch: None,
        surcharges: Surcharges::default(),
    };
    let who = match at.belongs {
        Belongs::Gateway => "config",
        Belongs::Organization | Belongs::OwnProvider => "organization",
    };
    Some(versioned(&format!("{who}/{}/{}", at.id, configured.model), price))
}

/// Whether two sets of figures are the same, whatever they are called.
pub fn same_figures(one: &Price, other: &Price) -> bool {
    let figures =
        |price: &Price| -> (Rates, _, _, _) { (price.rates, price.long_prompt, price.batch, price.surcharges) };
    figures(one) == figures(other)
}

/// Every name in the compiled-in catalogue, of configured providers and others.
pub(super) fn catalogue_names() -> BTreeSet<String> {
    let names = |file: &CatalogFile| -> Vec<String> {
        let rows = file.models.iter();
        rows.flat_map(|row| row.names().chain(row.snapshots.iter().map(String::as_str)))
            .flat_map(|name| [name.to_owned(), format!("{}/{name}", file.provider)])
            .collect()
    };
    catalog_file::all().flat_map(|file| names(&file)).collect()
}

#[cfg(test)]
mod tests;
