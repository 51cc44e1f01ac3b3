//! Whether the names in a config lead somewhere, which only the catalogue can tell.

use super::reader::At;
use super::{ConfigFault, MAX_FAULTS, Policy};
use crate::config::did_you_mean;
use crate::routing::catalog::{Catalog, catalogue_names};
use crate::routing::rules::Action;

/// Finds names that lead nowhere: models no configured provider serves, and providers there are not. The catalogue is the
/// one that the policy itself makes of the gateway's.
///
/// # Errors
/// All of them.
pub fn check_references(policy: &Policy, catalog: &Catalog) -> Result<(), Vec<ConfigFault>> {
    let mut check = References {
        catalog,
        faults: Vec::new(),
    };
    for (index, entry) in policy.order.iter().enumerate() {
        check.provider_or_deployment(&At::root().field("order").index(index), entry);
    }
    for entry in policy.weights.keys() {
        check.provider_or_deployment(&At::root().field("weights").field(entry), entry);
    }
    for provider in &policy.providers_off {
        check.provider(&At::root().field("providers").field(provider), provider);
    }
    for (kind, models) in policy.fallbacks.kinds() {
        let at = At::root().field("fallback_models").field(kind);
        for (model, others) in models {
            if model != "*" {
                check.model(&at.field(model), model);
            }
            for (index, other) in others.iter().enumerate() {
                check.model(&at.field(model).index(index), other);
            }
        }
    }
    for entry in policy.residency.iter().flat_map(|residency| residency.places.keys()) {
        check.provider_or_deployment(&At::root().field("residency").field("places").field(entry), entry);
    }
    for deployment in policy.terms.prices.keys() {
        check.provider_or_deployment(&At::root().field("prices"), deployment);
    }
    for (index, model) in policy.own.models.iter().enumerate() {
        check.provider(
            &At::root().field("models").index(index).field("provider"),
            &model.provider,
        );
    }
    for (index, rule) in policy.rules.iter().enumerate() {
        let then = At::root().field("rules").index(index).field("then");
        let (list, name) = match &rule.action {
            Action::Route(models) => (models, "route"),
            Action::Pin(to) => (to, "pin"),
            Action::Deny(_) | Action::Strategy(_) => continue,
        };
        for (place, entry) in list.iter().enumerate() {
            let at = then.field(name).index(place);
            match rule.action {
                Action::Route(_) => check.model(&at, entry),
                _ => check.provider_or_deployment(&at, entry),
            }
        }
    }
    if check.faults.is_empty() {
        Ok(())
    } else {
        Err(check.faults)
    }
}

struct References<'c> {
    catalog: &'c Catalog,
    faults: Vec<ConfigFault>,
}

impl References<'_> {
    fn model(&mut self, at: &At, model: &str) {
        if self.catalog.stands_for_something(model) {
            return;
        }
        let mut known = catalogue_names();
        known.extend(self.catalog.names().map(str::to_owned));
        let problem = if known.contains(model) {
            format!("no configured provider serves {model:?}")
        } else {
            match did_you_mean(model, known.iter().map(String::as_str)) {
                Some(hint) => format!("{model:?} is not the name of a model; {hint}"),
                None => format!("{model:?} is not the name of a model"),
            }
        };
        self.fault(at, problem);
    }

    fn provider(&mut self, at: &At, provider: &str) {
        if !self.catalog.has_provider(provider) {
            self.fault(at, format!("there is no provider {provider:?}"));
        }
    }

    /// Deployments are named by their ids, which begin with the provider's.
    fn provider_or_deployment(&mut self, at: &At, name: &str) {
        match name.split_once('/') {
            None => self.provider(at, name),
            Some(_)
                if self
                    .catalog
                    .deployments()
                    .any(|deployment| deployment.id.as_str() == name) => {}
            Some((provider, _)) if !self.catalog.has_provider(provider) => {
                self.fault(at, format!("there is no provider {provider:?}"));
            }
            Some(_) if self.catalog.stands_for_something(name) => {}
            Some(_) => self.fault(at, format!("there is no deployment {name:?}")),
        }
    }

    fn fault(&mut self, at: &At, problem: String) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(ConfigFault {
                pointer: at.0.clone(),
                problem,
            });
        }
    }
}
