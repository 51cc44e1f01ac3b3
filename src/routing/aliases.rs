//! Whether the aliases of `[aliases]` stand for something.
//!
//! Their shape was checked when the configuration was read; here they meet the catalogue. A model that exists but is
//! served by no configured provider is worth a warning only: one configuration is often used with several sets of
//! credentials.

use std::collections::BTreeSet;

use super::catalog::{Catalog, catalogue_names};
use crate::config::{Fault, Faults, Settings, did_you_mean};
use crate::domain::scope::canonical_provider;

/// What is wrong with the aliases of a configuration, and what is merely odd.
pub fn check(settings: &Settings, catalog: &Catalog) -> (Faults, Vec<String>) {
    let mut faults = Faults::default();
    let mut warnings = Vec::new();
    if settings.aliases.is_empty() {
        return (faults, warnings);
    }
    let known = catalogue_names();
    for (alias, models) in &settings.aliases {
        let at = match alias.contains('.') {
            true => format!("aliases.{alias:?}"),
            false => format!("aliases.{alias}"),
        };
        if catalog.names().any(|name| name == alias) {
            faults.push(
                Fault::new(at, "is the name of a model").hint("choose another name, or requests for it would change"),
            );
            continue;
        }
        for (index, model) in models.iter().enumerate() {
            let at = format!("{at}[{index}]");
            let is_listed = catalog.names().any(|name| name == model);
            if settings.aliases.contains_key(model) && !is_listed {
                let problem = format!("{model:?} is an alias itself");
                faults.push(Fault::new(at, problem).hint("write the models it stands for"));
            } else if catalog.stands_for_something(model) {
                continue;
            } else if known.contains(&canonical(model)) {
                warnings.push(format!("{at}: no configured provider serves {model:?}"));
            } else {
                let names: BTreeSet<&str> = known.iter().map(String::as_str).chain(catalog.names()).collect();
                let problem = format!("{model:?} is not the name of a model");
                faults.push(Fault::new(at, problem).hint_if(did_you_mean(model, names)));
            }
        }
    }
    (faults, warnings)
}

fn canonical(model: &str) -> String {
    match model.split_once('/') {
        Some((provider, model)) => format!("{}/{model}", canonical_provider(provider)),
        None => model.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    fn checked(aliases: &str) -> (Vec<String>, Vec<String>) {
        let sources = Sources {
            file: Some(("bonito.toml".into(), format!("[aliases]\n{aliases}"))),
            env: vec![("OPENAI_API_KEY".to_owned(), "k".to_owned())],
            overrides: Vec::new(),
        };
        let settings = load(&sources, &[]).unwrap().settings;
        let (faults, warnings) = check(&settings, &Catalog::build(&settings));
        (faults.iter().map(ToString::to_string).collect(), warnings)
    }

    #[test]
    fn models_by_any_of_their_names_are_fine() {
        let aliases = "fast = [\"gpt-4o-mini\", \"openai/gpt-4o\", \"gpt-4o-2024-08-06\", \"echo\"]";
        assert_eq!(checked(aliases), (vec![], vec![]));
    }

    #[test]
    fn a_model_that_exists_elsewhere_is_a_warning_and_one_that_does_not_exist_is_a_fault_with_a_suggestion() {
        let (faults, warnings) = checked("fast = [\"bedrock/nova-lite\", \"gpt-4o-mni\"]");
        assert_eq!(
            faults,
            ["aliases.fast[1]: \"gpt-4o-mni\" is not the name of a model; did you mean gpt-4o-mini?"]
        );
        assert_eq!(
            warnings,
            ["aliases.fast[0]: no configured provider serves \"bedrock/nova-lite\""]
        );
    }

    #[test]
    fn an_alias_neither_hides_a_model_nor_leads_to_another_alias() {
        let (faults, _) = checked("a = [\"gpt-4o\"]\nb = [\"a\"]\ngpt-4o = [\"gpt-4o-mini\"]");
        assert_eq!(
            faults,
            [
                "aliases.b[0]: \"a\" is an alias itself; write the models it stands for",
                "aliases.gpt-4o: is the name of a model; choose another name, or requests for it would change",
            ]
        );
    }
}
