//! The members of a config that are about where a request goes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::reader::{At, MAX_ENTRIES, Reader};
use super::{Affinity, AffinityBy, Fallbacks, MAX_FAULTS, MAX_RULES, Residency, model_name, provider_name};
use crate::routing::geography;
use crate::routing::rules::{Action, Condition, Rule, Share, ShareBy};
use crate::routing::strategy::{Balance, Strategy};

/// Most models a request falls back to, or is routed to.
const MAX_MODELS: usize = 8;
/// Most headers that rules may look at.
const MAX_HEADERS: usize = 16;
/// Headers that carry secrets: no rule may look at them.
const SECRET_HEADERS: [&str; 6] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
];

impl Reader {
    pub(super) fn strategy(&mut self, at: &At, value: &Value) -> Option<Strategy> {
        let strategy = value.as_str().and_then(Strategy::parse);
        if strategy.is_none() {
            let names: Vec<&str> = Strategy::ALL.iter().map(|strategy| strategy.as_str()).collect();
            self.fault(at, format!("must be one of {}", names.join(", ")));
        }
        strategy
    }

    pub(super) fn weights(&mut self, at: &At, value: &Value) -> BTreeMap<String, f64> {
        let mut weights = BTreeMap::new();
        for (name, value) in self.open_object(at, value).into_iter().flatten() {
            if let Some(weight) = self.number(&at.field(name), value, 0.0, 1_000.0) {
                weights.insert(provider_name(name), weight);
            }
        }
        weights
    }

    pub(super) fn balance(&mut self, at: &At, value: &Value) -> Balance {
        let mut balance = Balance::default();
        const NAMES: &[&str] = &["cost", "latency", "errors", "load"];
        for (name, value) in self.object(at, value, NAMES).into_iter().flatten() {
            let at = at.field(name);
            let part = match name.as_str() {
                "cost" => &mut balance.cost,
                "latency" => &mut balance.latency,
                "errors" => &mut balance.errors,
                "load" => &mut balance.load,
                _ => continue,
            };
            if let Some(points) = self.integer(&at, value, 0, 1_000) {
                *part = u32::try_from(points).unwrap_or(1_000);
            }
        }
        balance
    }

    pub(super) fn fallbacks(&mut self, at: &At, value: &Value) -> Fallbacks {
        let mut fallbacks = Fallbacks::default();
        const KINDS: &[&str] = &["generic", "context_window", "content_policy", "budget_exhausted"];
        for (kind, value) in self.object(at, value, KINDS).into_iter().flatten() {
            let at = at.field(kind);
            let into = match kind.as_str() {
                "generic" => &mut fallbacks.generic,
                "context_window" => &mut fallbacks.context_window,
                "content_policy" => &mut fallbacks.content_policy,
                "budget_exhausted" => &mut fallbacks.budget_exhausted,
                _ => continue,
            };
            for (model, value) in self.open_object(&at, value).into_iter().flatten() {
                let models = self.some_names(&at.field(model), value, MAX_MODELS, model_name);
                if models.iter().any(|other| *other == model_name(model)) {
                    self.fault(
                        &at.field(model),
                        "must not have the model itself among those that stand in for it",
                    );
                }
                into.insert(model_name(model), models);
            }
        }
        fallbacks
    }

    pub(super) fn affinity(&mut self, at: &At, value: &Value) -> Option<Affinity> {
        let members = self.object(at, value, &["by", "tolerance_percent"])?;
        let mut affinity = Affinity {
            by: Vec::new(),
            tolerance: 1.25,
        };
        let at_by = at.field("by");
        match members.get("by") {
            None => self.fault(&at_by, "is required"),
            Some(by) => {
                for (index, name) in self
                    .some_names(&at_by, by, 8, str::to_ascii_lowercase)
                    .iter()
                    .enumerate()
                {
                    let at = at_by.index(index);
                    let by = match (name.as_str(), name.strip_prefix("header:")) {
                        ("prompt_cache_key", _) => AffinityBy::PromptCacheKey,
                        ("user", _) => AffinityBy::User,
                        ("key", _) => AffinityBy::Key,
                        (_, Some(header)) if self.is_usable_header(&at, header) => {
                            AffinityBy::Header(header.to_owned())
                        }
                        (_, Some(_)) => continue,
                        _ => {
                            self.fault(&at, "must be prompt_cache_key, user, key or header:NAME");
                            continue;
                        }
                    };
                    affinity.by.push(by);
                }
            }
        }
        if let Some(percent) = members.get("tolerance_percent")
            && let Some(percent) = self.number(&at.field("tolerance_percent"), percent, 0.0, 1_000.0)
        {
            affinity.tolerance = 1.0 + percent / 100.0;
        }
        Some(affinity)
    }

    pub(super) fn residency(&mut self, at: &At, value: &Value) -> Option<Residency> {
        let members = self.object(at, value, &["allowed", "unknown", "places"])?;
        let mut residency = Residency {
            allowed: Vec::new(),
            unknown_allowed: false,
            places: BTreeMap::new(),
        };
        let at_allowed = at.field("allowed");
        match members.get("allowed") {
            None => self.fault(&at_allowed, "is required"),
            Some(allowed) => {
                residency.allowed = self.some_names(&at_allowed, allowed, MAX_ENTRIES, str::to_ascii_lowercase);
                for (index, place) in residency.allowed.iter().enumerate() {
                    self.is_place(&at_allowed.index(index), place);
                }
            }
        }
        if let Some(unknown) = members.get("unknown") {
            match unknown.as_str() {
                Some("refuse") => {}
                Some("allow") => residency.unknown_allowed = true,
                _ => self.fault(&at.field("unknown"), "must be refuse or allow"),
            }
        }
        if let Some(places) = members.get("places") {
            let at = at.field("places");
            for (name, place) in self.open_object(&at, places).into_iter().flatten() {
                let at = at.field(name);
                if let Some(place) = self.text(&at, place).map(str::to_ascii_lowercase)
                    && self.is_place(&at, &place)
                {
                    residency.places.insert(provider_name(name), place);
                }
            }
        }
        Some(residency)
    }

    pub(super) fn is_place(&mut self, at: &At, place: &str) -> bool {
        let known = geography::is_known(place);
        if !known {
            let problem = format!(
                "{place:?} is no place that is known; write a region such as eu-central-1 or europe-west4, a geography \
                 such as eu, us, uk, or global"
            );
            self.fault(at, problem);
        }
        known
    }

    pub(super) fn headers(&mut self, at: &At, value: &Value) -> Vec<String> {
        let names = self.names(at, value, MAX_HEADERS, str::to_ascii_lowercase);
        for (index, name) in names.iter().enumerate() {
            self.is_usable_header(&at.index(index), name);
        }
        names
    }

    pub(super) fn is_usable_header(&mut self, at: &At, name: &str) -> bool {
        let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !is_name {
            self.fault(at, "must be the name of a header");
        } else if SECRET_HEADERS.contains(&name) {
            self.fault(at, format!("{name} carries secrets, which rules may not look at"));
        } else {
            return true;
        }
        false
    }

    pub(super) fn rules(&mut self, at: &At, value: &Value, headers: &[String]) -> Vec<Rule> {
        let mut rules: Vec<Rule> = Vec::new();
        let mut names = BTreeSet::new();
        for (index, value) in self.list(at, value, MAX_RULES).iter().enumerate() {
            let at = at.index(index);
            const FIELDS: &[&str] = &["name", "when", "percent", "percent_by", "then", "enabled"];
            let Some(members) = self.object(&at, value, FIELDS) else {
                continue;
            };
            let name = match members.get("name") {
                Some(name) => self.text(&at.field("name"), name).unwrap_or_default().to_owned(),
                None => {
                    self.fault(&at.field("name"), "is required");
                    String::new()
                }
            };
            if !name.is_empty() && !names.insert(name.clone()) {
                self.fault(&at.field("name"), format!("there is another rule called {name:?}"));
            }
            let when = members.get("when").filter(|when| !when.is_null());
            let when = when.and_then(|when| self.condition(&at.field("when"), when, headers));
            let share = self.share(&at, members);
            let enabled = members.get("enabled").map(|flag| self.flag(&at.field("enabled"), flag));
            let action = match members.get("then") {
                Some(then) => self.action(&at.field("then"), then),
                None => {
                    self.fault(&at.field("then"), "is required");
                    None
                }
            };
            // One that is switched off is checked all the same: it will be switched on one day.
            if let Some(action) = action
                && enabled.flatten().unwrap_or(true)
            {
                rules.push(Rule {
                    name,
                    when,
                    share,
                    action,
                });
            }
        }
        rules
    }

    pub(super) fn condition(&mut self, at: &At, value: &Value, headers: &[String]) -> Option<Condition> {
        let Some(source) = value.as_str() else {
            self.fault(at, "must be a string");
            return None;
        };
        if self.faults.len() > MAX_FAULTS {
            return None;
        }
        match Condition::compile(source, headers) {
            Ok(condition) => Some(condition),
            Err(faults) => {
                for fault in faults {
                    self.fault(at, fault.to_string());
                }
                None
            }
        }
    }

    pub(super) fn share(&mut self, at: &At, members: &Map<String, Value>) -> Option<Share> {
        let by = match members.get("percent_by").map(|by| (by, by.as_str())) {
            None | Some((_, Some("request"))) => ShareBy::Request,
            Some((_, Some("session"))) => ShareBy::Session,
            Some((_, Some("key"))) => ShareBy::Key,
            Some(_) => {
                self.fault(&at.field("percent_by"), "must be request, session or key");
                ShareBy::Request
            }
        };
        let Some(percent) = members.get("percent") else {
            if members.contains_key("percent_by") {
                self.fault(&at.field("percent_by"), "says nothing without percent");
            }
            return None;
        };
        let percent = self.number(&at.field("percent"), percent, 0.0, 100.0)?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 0 to 10,000"
        )]
        let basis_points = (percent * 100.0).round() as u32;
        Some(Share { basis_points, by })
    }

    pub(super) fn action(&mut self, at: &At, value: &Value) -> Option<Action> {
        let members = self.object(at, value, &["route", "pin", "deny", "strategy"])?;
        let mut actions = members.iter();
        let (Some((name, value)), None) = (actions.next(), actions.next()) else {
            self.fault(at, "must have one of route, pin, deny and strategy, and no other");
            return None;
        };
        let at = at.field(name);
        match name.as_str() {
            "route" => Some(Action::Route(self.some_names(&at, value, MAX_MODELS, model_name))),
            "pin" => Some(Action::Pin(self.some_names(&at, value, MAX_ENTRIES, provider_name))),
            "deny" => self.text(&at, value).map(|reason| Action::Deny(reason.to_owned())),
            "strategy" => self.strategy(&at, value).map(Action::Strategy),
            _ => None,
        }
    }
}
