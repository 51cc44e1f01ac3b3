//! `[aliases]`: names people make up for one or several models.
//!
//! Only their shape is checked here. Whether a model exists, and whether a name is taken, the catalogue knows:
//! [`crate::routing::aliases`].

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use super::checks;
use super::faults::{Fault, Faults};
use super::layers::{join, type_name};

/// The longest alias, in characters.
const MAX_ALIAS_CHARS: usize = 128;

/// The aliases of the table; those at fault are left out.
pub(super) fn read(table: &Table, faults: &mut Faults) -> BTreeMap<String, Vec<String>> {
    let mut read = BTreeMap::new();
    for (alias, value) in table {
        let at = join("aliases", alias);
        if let Some(problem) = wrong_alias(alias) {
            faults.push(Fault::new(&at, problem).hint("write a name such as fast"));
            continue;
        }
        let Value::Array(list) = value else {
            let problem = format!("must be a list of models, not {}", type_name(value));
            faults.push(Fault::new(&at, problem).hint("write [\"gpt-4o-mini\"]"));
            continue;
        };
        if list.is_empty() {
            faults.push(Fault::new(&at, "stands for no model").hint("name at least one, or remove the alias"));
            continue;
        }
        let mut models = Vec::with_capacity(list.len());
        let mut seen = BTreeSet::new();
        for (index, value) in list.iter().enumerate() {
            let at = format!("{at}[{index}]");
            match value {
                Value::String(model) if model.trim().is_empty() => {
                    faults.push(Fault::new(at, "is empty").hint("write the name of a model"));
                }
                Value::String(model) if !seen.insert(model.trim()) => {
                    faults.push(Fault::new(at, format!("{} is listed twice", checks::shown(model))));
                }
                Value::String(model) => models.push(model.trim().to_owned()),
                other => {
                    let problem = format!("must be the name of a model, not {}", type_name(other));
                    faults.push(Fault::new(at, problem));
                }
            }
        }
        read.insert(alias.clone(), models);
    }
    read
}

fn wrong_alias(alias: &str) -> Option<String> {
    if alias.is_empty() || alias.chars().count() > MAX_ALIAS_CHARS {
        return Some(format!("an alias has 1 to {MAX_ALIAS_CHARS} characters"));
    }
    if alias.contains(['/', '*']) {
        // `x/y` asks a provider for a model, and a star in a scope stands for any characters.
        return Some("an alias has no / and no *".to_owned());
    }
    (!checks::is_plain(alias)).then(|| "an alias has no spaces and no unprintable characters".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> (BTreeMap<String, Vec<String>>, Vec<String>) {
        let mut faults = Faults::default();
        let read = read(&text.parse::<Table>().unwrap(), &mut faults);
        (read, faults.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn an_alias_keeps_the_order_of_its_models() {
        let (read, faults) = read_text("fast = [\"gpt-4o-mini\", \"azure/gpt-4o\"]");
        assert_eq!(faults, [""; 0]);
        assert_eq!(read["fast"], ["gpt-4o-mini", "azure/gpt-4o"]);
    }

    #[test]
    fn every_malformed_alias_is_reported_at_its_place() {
        let (_, faults) = read_text("a = \"gpt-4o\"\nb = []\n\"c/d\" = [\"x\"]\ne = [\"x\", \"x\", 1, \"\"]");
        assert_eq!(
            faults,
            [
                "aliases.a: must be a list of models, not text; write [\"gpt-4o-mini\"]",
                "aliases.b: stands for no model; name at least one, or remove the alias",
                "aliases.\"c/d\": an alias has no / and no *; write a name such as fast",
                "aliases.e[1]: \"x\" is listed twice",
                "aliases.e[2]: must be the name of a model, not a whole number",
                "aliases.e[3]: is empty; write the name of a model",
            ]
        );
    }
}
