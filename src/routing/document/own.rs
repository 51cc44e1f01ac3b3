//! The members of a config that add something to the catalogue: endpoints and models of the organization's own.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::provider_name;
use super::reader::{At, MAX_ENTRIES, Reader};
use crate::config::{DEPLOYMENT_KEYS, Fault, Unlisted, base_url, read_deployment};
use crate::domain::scope::canonical_provider;
use crate::routing::own::{OwnModel, OwnProvider};

/// Endpoints of one organization.
const MAX_OWN_PROVIDERS: usize = 16;
/// The dialect of an endpoint that names none: OpenAI's format without anything of a vendor.
const PLAIN_DIALECT: &str = "openai";
/// Requests that may be under way with one credential.
const MAX_PLACES: u64 = 1_000_000;
/// What is said of an endpoint besides whether it is switched on.
const ENDPOINT: [&str; 5] = ["base_url", "dialect", "unlisted_models", "keyless", "max_concurrent"];

impl Reader {
    /// Providers that are switched off, and endpoints of one's own.
    pub(super) fn providers(&mut self, at: &At, value: &Value) -> (BTreeSet<String>, Vec<OwnProvider>) {
        let (mut off, mut own) = (BTreeSet::new(), Vec::new());
        let mut names = vec!["enabled"];
        names.extend(ENDPOINT);
        for (name, value) in self.open_object(at, value).into_iter().flatten() {
            let at = at.field(name);
            let id = canonical_provider(name);
            let Some(members) = self.object(&at, value, &names) else {
                continue;
            };
            let enabled = members.get("enabled").map(|flag| self.flag(&at.field("enabled"), flag));
            if enabled == Some(Some(false)) {
                off.insert(id.to_owned());
            }
            let says = |name: &&str| members.get(*name).is_some_and(|value| !value.is_null());
            if ENDPOINT.iter().any(says) {
                own.extend(self.endpoint(&at, id, members));
            }
        }
        if own.len() > MAX_OWN_PROVIDERS {
            self.fault(
                at,
                format!("has {} endpoints; at most {MAX_OWN_PROVIDERS} are allowed", own.len()),
            );
        }
        (off, own)
    }

    fn endpoint(&mut self, at: &At, id: &str, members: &Map<String, Value>) -> Option<OwnProvider> {
        let member = |name: &str| members.get(name).filter(|value| !value.is_null());
        let at_url = at.field("base_url");
        let base_url = match member("base_url") {
            None => {
                self.fault(&at_url, "is required beside what is said of an endpoint");
                None
            }
            Some(url) => self.text(&at_url, url).and_then(|url| match base_url(url) {
                Ok(url) => Some(url),
                Err(problem) => {
                    self.fault(&at_url, problem);
                    None
                }
            }),
        };
        let dialect = match member("dialect") {
            None => Some(PLAIN_DIALECT),
            Some(dialect) => self.text(&at.field("dialect"), dialect),
        };
        let unlisted = match member("unlisted_models").map(Value::as_str) {
            None | Some(Some("forward")) => Unlisted::Forward,
            Some(Some("refuse")) => Unlisted::Refuse,
            Some(_) => {
                self.fault(&at.field("unlisted_models"), "must be refuse or forward");
                Unlisted::Refuse
            }
        };
        let keyless = member("keyless").and_then(|flag| self.flag(&at.field("keyless"), flag));
        let max_concurrent =
            member("max_concurrent").and_then(|most| self.integer(&at.field("max_concurrent"), most, 1, MAX_PLACES));
        Some(OwnProvider {
            id: id.to_owned(),
            base_url: base_url?,
            dialect: dialect?.to_owned(),
            unlisted,
            keyless: keyless.unwrap_or(false),
            max_concurrent: max_concurrent.and_then(|most| u32::try_from(most).ok()),
        })
    }

    /// Models of one's own, by the rules of the configuration file's deployments.
    pub(super) fn models(&mut self, at: &At, value: &Value) -> Vec<OwnModel> {
        let mut models = Vec::new();
        let mut seen = BTreeSet::new();
        let mut names = vec!["provider"];
        names.extend(DEPLOYMENT_KEYS);
        for (index, value) in self.list(at, value, MAX_ENTRIES).iter().enumerate() {
            let at = at.index(index);
            let Some(members) = self.object(&at, value, &names) else {
                continue;
            };
            let provider = match members.get("provider") {
                Some(name) => self.text(&at.field("provider"), name).map(provider_name),
                None => {
                    self.fault(&at.field("provider"), "is required");
                    None
                }
            };
            let said = members
                .iter()
                .filter(|(name, _)| DEPLOYMENT_KEYS.contains(&name.as_str()));
            let Ok(table) = toml::Table::try_from(Present(said.collect())) else {
                self.fault(&at, "holds a number that is too large");
                continue;
            };
            let deployment = match read_deployment(&table) {
                Ok(deployment) => deployment,
                Err(faults) => {
                    for fault in faults {
                        self.fault_of_table(&at, &fault);
                    }
                    continue;
                }
            };
            let Some(provider) = provider else { continue };
            if !seen.insert((provider.clone(), deployment.model.clone(), deployment.name.clone())) {
                self.fault(&at, "is there twice");
                continue;
            }
            models.push(OwnModel { provider, deployment });
        }
        models
    }

    /// A fault of a table as one of the document: `long_prompt.input_usd` is `…/long_prompt/input_usd` here.
    fn fault_of_table(&mut self, at: &At, fault: &Fault) {
        let mut place = at.clone();
        for part in fault.at.split('.') {
            let (name, index) = part.split_once('[').unwrap_or((part, ""));
            place = place.field(name.trim_matches('"'));
            if let Ok(index) = index.trim_end_matches(']').parse() {
                place = place.index(index);
            }
        }
        let hint = fault.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
        self.fault(&place, format!("{}{hint}", fault.problem));
    }
}

/// What is said, without members that are null: TOML has none.
struct Present<'v>(Vec<(&'v String, &'v Value)>);

impl serde::Serialize for Present<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.0.iter().filter(|(_, value)| !value.is_null()) {
            match value {
                Value::Object(members) => map.serialize_entry(name, &Present(members.iter().collect()))?,
                value => map.serialize_entry(name, value)?,
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::domain::call::Strategy;
    use crate::domain::money::NanoUsd;
    use crate::routing::document::read;

    #[test]
    fn models_and_endpoints_are_understood() {
        let document = json!({
            "providers": {
                "llm": {"base_url": "https://llm.example.com/v1/", "max_concurrent": 5, "unlisted_models": "refuse"},
                "open": {"enabled": false, "base_url": "https://open.example.com", "keyless": true, "dialect": "vllm"},
                "azure": {"enabled": false}
            },
            "models": [
                {"provider": "llm", "model": "house", "name": "house-v2", "aliases": ["ours"], "context_tokens": 8000,
                 "max_output_tokens": 1000, "mode": "chat", "capabilities": {"tools": true, "vision": null},
                 "input_usd": "1", "output_usd": "2", "like": null,
                 "long_prompt": {"above_tokens": 4000, "input_usd": "2", "output_usd": "4", "cache_read_usd": null}},
                {"provider": "bedrock", "model": "house"}
            ]
        });
        let policy = read(&document, Strategy::Balanced).unwrap();
        let off: Vec<&String> = policy.providers_off.iter().collect();
        assert_eq!(off, ["azure", "open"]);
        let llm = policy.own.provider("llm").unwrap();
        assert_eq!(
            (
                llm.base_url.to_string().as_str(),
                llm.dialect.as_str(),
                llm.keyless,
                llm.max_concurrent
            ),
            ("https://llm.example.com/v1", "openai", false, Some(5))
        );
        assert!(policy.own.provider("open").unwrap().keyless && policy.own.provider("azure").is_none());
        let house = &policy.own.models[0].deployment;
        assert_eq!(
            (house.name.as_str(), house.aliases.as_slice()),
            ("house-v2", &["ours".to_owned()][..])
        );
        assert_eq!(
            (house.capabilities.tools, house.capabilities.vision),
            (Some(true), None)
        );
        let price = house.price.unwrap();
        assert_eq!(price.rates.output, NanoUsd(2_000_000_000));
        assert_eq!(price.long_prompt.unwrap().rates.input, NanoUsd(2_000_000_000));
        assert_eq!(policy.own.models[1].provider, "aws");
    }

    #[test]
    fn everything_that_is_wrong_is_said_with_its_place() {
        let document = json!({
            "providers": {
                "a": {"keyless": true}, "b": {"base_url": "ftp://x"}, "c": {"base_url": "https://x", "unlisted_models": 1},
                "d": {"base_url": "https://user:secret@x"}, "e": {"base_url": "https://x", "max_concurrent": 0, "key": "k"}
            },
            "models": [
                {"model": "m"},
                {"provider": "a", "model": "", "input_usd": 1.5},
                {"provider": "a", "model": "m", "long_prompt": {"above_tokens": 0}, "odd": 1},
                {"provider": "a", "model": "m", "aliases": ["n", "m", 7], "capabilities": {"visions": true, "tools": 1}},
                {"provider": "a", "model": "twice"}, {"provider": "a", "model": "twice", "name": "twice"},
                {"provider": "a", "model": "m", "context_tokens": 10, "max_output_tokens": 11}
            ]
        });
        let faults = read(&document, Strategy::Balanced).unwrap_err();
        let mut pointers: Vec<&str> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        pointers.sort_unstable();
        pointers.dedup();
        assert_eq!(
            pointers,
            [
                "/models/0/provider",
                "/models/1/input_usd",
                "/models/1/model",
                "/models/1/output_usd",
                "/models/2/input_usd",
                "/models/2/long_prompt/above_tokens",
                "/models/2/long_prompt/input_usd",
                "/models/2/long_prompt/output_usd",
                "/models/2/odd",
                "/models/2/output_usd",
                "/models/3/aliases/1",
                "/models/3/aliases/2",
                "/models/3/capabilities/tools",
                "/models/3/capabilities/visions",
                "/models/5",
                "/models/6/max_output_tokens",
                "/providers/a/base_url",
                "/providers/b/base_url",
                "/providers/c/unlisted_models",
                "/providers/d/base_url",
                "/providers/e/key",
                "/providers/e/max_concurrent",
            ]
        );
        assert!(faults.iter().all(|fault| !fault.problem.contains("secret@")));
    }
}
