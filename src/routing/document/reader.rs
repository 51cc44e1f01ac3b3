//! How single values of a document are read: each has a place, and what is wrong with it is noted and passed over.

use serde_json::{Map, Value};

use super::ConfigFault;
use crate::config::did_you_mean;

/// Most entries of a list of providers or deployments.
pub(super) const MAX_ENTRIES: usize = 256;
/// Longest name or reason, in characters.
const MAX_TEXT_CHARS: usize = 256;

/// A place in the document, as a JSON pointer.
#[derive(Clone, Debug)]
pub(super) struct At(pub(super) String);

impl At {
    pub(super) fn root() -> Self {
        Self(String::new())
    }

    pub(super) fn field(&self, name: &str) -> Self {
        Self(format!("{}/{}", self.0, name.replace('~', "~0").replace('/', "~1")))
    }

    pub(super) fn index(&self, index: usize) -> Self {
        Self(format!("{}/{index}", self.0))
    }
}

/// Reads members and collects faults.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) faults: Vec<ConfigFault>,
}

impl Reader {
    pub(super) fn fault(&mut self, at: &At, problem: impl Into<String>) {
        self.faults.push(ConfigFault {
            pointer: at.0.clone(),
            problem: problem.into(),
        });
    }

    pub(super) fn object<'v>(&mut self, at: &At, value: &'v Value, known: &[&str]) -> Option<&'v Map<String, Value>> {
        let members = self.open_object(at, value)?;
        for name in members.keys().filter(|name| !known.contains(&name.as_str())) {
            let hint = did_you_mean(name, known.iter().copied());
            let hint = hint.unwrap_or_else(|| format!("there are {}", known.join(", ")));
            self.fault(&at.field(name), format!("is unknown; {hint}"));
        }
        Some(members)
    }

    pub(super) fn open_object<'v>(&mut self, at: &At, value: &'v Value) -> Option<&'v Map<String, Value>> {
        let members = value.as_object();
        if members.is_none() {
            self.fault(at, "must be an object");
        }
        members.filter(|members| {
            let fits = members.len() <= MAX_ENTRIES;
            if !fits {
                self.fault(
                    at,
                    format!("has {} members; at most {MAX_ENTRIES} are allowed", members.len()),
                );
            }
            fits
        })
    }

    pub(super) fn list<'v>(&mut self, at: &At, value: &'v Value, most: usize) -> &'v [Value] {
        match value.as_array() {
            Some(list) if list.len() <= most => list,
            Some(list) => {
                self.fault(at, format!("has {} entries; at most {most} are allowed", list.len()));
                &[]
            }
            None => {
                self.fault(at, "must be an array");
                &[]
            }
        }
    }

    pub(super) fn text<'v>(&mut self, at: &At, value: &'v Value) -> Option<&'v str> {
        match value.as_str() {
            Some(text) if text.trim().is_empty() => self.fault(at, "must not be empty"),
            Some(text) if text.chars().count() > MAX_TEXT_CHARS => {
                self.fault(at, format!("must have at most {MAX_TEXT_CHARS} characters"));
            }
            Some(text) if text.chars().any(char::is_control) => self.fault(at, "must have no control characters"),
            Some(text) => return Some(text),
            None => self.fault(at, "must be a string"),
        }
        None
    }

    pub(super) fn flag(&mut self, at: &At, value: &Value) -> Option<bool> {
        let flag = value.as_bool();
        if flag.is_none() {
            self.fault(at, "must be true or false");
        }
        flag
    }

    pub(super) fn integer(&mut self, at: &At, value: &Value, min: u64, max: u64) -> Option<u64> {
        let number = value.as_u64().filter(|number| (min..=max).contains(number));
        if number.is_none() {
            self.fault(at, format!("must be a whole number from {min} to {max}"));
        }
        number
    }

    pub(super) fn number(&mut self, at: &At, value: &Value, min: f64, max: f64) -> Option<f64> {
        let number = value.as_f64().filter(|number| (min..=max).contains(number));
        if number.is_none() {
            self.fault(at, format!("must be a number from {min} to {max}"));
        }
        number
    }

    pub(super) fn names(&mut self, at: &At, value: &Value, most: usize, canonical: fn(&str) -> String) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for (index, entry) in self.list(at, value, most).iter().enumerate() {
            let at = at.index(index);
            if let Some(name) = self.text(&at, entry).map(canonical) {
                if names.contains(&name) {
                    self.fault(&at, format!("{name:?} is there twice"));
                } else {
                    names.push(name);
                }
            }
        }
        names
    }

    /// A list that says something only when it is not empty.
    pub(super) fn some_names(
        &mut self,
        at: &At,
        value: &Value,
        most: usize,
        canonical: fn(&str) -> String,
    ) -> Vec<String> {
        if value.as_array().is_some_and(Vec::is_empty) {
            self.fault(at, "must not be empty");
        }
        self.names(at, value, most, canonical)
    }
}
