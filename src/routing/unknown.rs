//! Names in a scope that lead nowhere: not wrong, because models and providers may come later, but more often than not a
//! slip.

use super::catalog::Catalog;
use crate::domain::call::Operation;
use crate::domain::scope::Scope;

/// A warning for each entry of a scope that matches nothing the catalogue has, or none of these providers.
pub fn unknown_names(scope: &Scope, catalog: &Catalog, providers: &[String]) -> Vec<String> {
    let known_model = |entry: &String| {
        let entry_alone = Scope::new(vec![entry.clone()], Vec::new());
        let listed = catalog.models().any(|(_, resolved)| {
            let mut deployments = resolved.deployments.iter();
            deployments.any(|deployment| entry_alone.allows_model(deployment.names.iter().map(String::as_str)))
        });
        listed
            || Operation::ALL
                .iter()
                .any(|&operation| catalog.resolve(entry, operation).is_some())
    };
    let known_provider = |entry: &String| {
        let entry_alone = Scope::new(Vec::new(), vec![entry.clone()]);
        providers.iter().any(|provider| entry_alone.allows_provider(provider))
    };
    let models = scope.models().iter().filter(|entry| !known_model(entry));
    let models =
        models.map(|entry| format!("no model that is configured is called {entry:?}; it is taken all the same"));
    let providers = scope.providers().iter().filter(|entry| !known_provider(entry));
    let providers =
        providers.map(|entry| format!("no provider that is configured is called {entry:?}; it is taken all the same"));
    models.chain(providers).collect()
}
