//! Gives single settings their types and keeps them in range, noting every fault on the way.
//!
//! A setting that is at fault reads as its type's zero value. Nobody sees it, because the faults make the load fail;
//! it lets the reading go on, so that all faults are found at once.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Value;

use super::checks;
use super::faults::{Fault, Faults, did_you_mean};
use super::layers::{Layers, Leaf};

/// Reads the leaves of `default.toml`.
pub(super) struct Reader<'a> {
    layers: &'a Layers,
    faults: &'a mut Faults,
    /// Paths that were read; a test compares them with `default.toml`.
    read: BTreeSet<&'static str>,
    unsound: BTreeSet<&'static str>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(layers: &'a Layers, faults: &'a mut Faults) -> Self {
        Self {
            layers,
            faults,
            read: BTreeSet::new(),
            unsound: BTreeSet::new(),
        }
    }

    /// A whole number within `allowed`.
    pub(super) fn count<T: TryFrom<u64> + Default>(&mut self, path: &'static str, allowed: RangeInclusive<u64>) -> T {
        let number = self.leaf(path).and_then(|leaf| leaf.value.as_integer());
        match number.map(|number| in_range(number, &allowed)) {
            Some(Ok(number)) => number,
            Some(Err(problem)) => {
                self.refuse(path, problem, None);
                T::default()
            }
            None => T::default(),
        }
    }

    /// Milliseconds within `allowed`.
    pub(super) fn milliseconds(&mut self, path: &'static str, allowed: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.count(path, allowed))
    }

    /// True or false.
    pub(super) fn flag(&mut self, path: &'static str) -> bool {
        self.leaf(path)
            .and_then(|leaf| leaf.value.as_bool())
            .unwrap_or_default()
    }

    /// Text, which may be empty.
    pub(super) fn text(&mut self, path: &'static str) -> String {
        self.leaf(path)
            .and_then(|leaf| leaf.value.as_str())
            .unwrap_or_default()
            .to_owned()
    }

    /// Text that must say something.
    pub(super) fn filled_text(&mut self, path: &'static str) -> String {
        let text = self.text(path);
        if text.trim().is_empty() {
            self.refuse(path, "must not be empty", None);
        }
        text
    }

    /// Text where empty means none.
    pub(super) fn optional_text(&mut self, path: &'static str) -> Option<String> {
        Some(self.text(path)).filter(|text| !text.trim().is_empty())
    }

    /// An IP address and a port to listen at.
    pub(super) fn address(&mut self, path: &'static str) -> SocketAddr {
        let text = self.text(path);
        text.trim().parse().unwrap_or_else(|_| {
            let hint = match text.trim().rsplit_once(':') {
                Some(("localhost", port)) => format!("write 127.0.0.1:{port}"),
                Some(("" | "*", port)) => format!("write 0.0.0.0:{port} to listen everywhere"),
                _ => "write an IP address and a port, such as 127.0.0.1:8001 or [::1]:8001".into(),
            };
            let shown = checks::shown(&text);
            self.refuse(path, format!("{shown} is not an address to listen at"), Some(hint));
            SocketAddr::from(([127, 0, 0, 1], 0))
        })
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, path: &'static str, choices: &[(&str, T)]) -> T {
        let text = self.text(path);
        if let Some((_, choice)) = choices.iter().find(|(word, _)| *word == text) {
            return *choice;
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let shown = checks::shown(&text);
        let problem = format!("{shown} is none of {}", words.join(", "));
        self.refuse(path, problem, did_you_mean(&text, words));
        choices[0].1
    }

    /// A list, written as text with commas so that a variable can hold it too. Empty text is an empty list.
    pub(super) fn list<T>(&mut self, path: &'static str, item: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let text = self.text(path);
        let mut items = Vec::new();
        for part in text.split(',').map(str::trim) {
            if part.is_empty() && text.trim().is_empty() {
                break;
            }
            match item(part) {
                Ok(read) => items.push(read),
                Err(hint) => self.refuse(path, format!("{} is not right", checks::shown(part)), Some(hint)),
            }
        }
        items
    }

    /// Notes a fault of the setting at `path`, under the variable's name if one set it.
    pub(super) fn refuse(&mut self, path: &'static str, problem: impl Into<String>, hint: Option<String>) {
        self.unsound.insert(path);
        let variable = self.layers.leaves.get(path).and_then(|leaf| leaf.variable.clone());
        let at = variable.unwrap_or_else(|| path.to_owned());
        self.faults.push(Fault::new(at, problem).hint_if(hint));
    }

    /// Whether the settings at `paths` were all read without fault, so that comparing them says something.
    pub(super) fn sound(&self, paths: &[&'static str]) -> bool {
        paths.iter().all(|path| !self.unsound.contains(path))
    }

    /// Notes a fault that has no leaf.
    pub(super) fn push(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    fn leaf(&mut self, path: &'static str) -> Option<&'a Leaf> {
        self.read.insert(path);
        let leaf = self.layers.leaves.get(path);
        debug_assert!(leaf.is_some(), "{path} is read but not in config/default.toml");
        leaf
    }

    /// Leaves of `default.toml` that nothing has read.
    #[cfg(test)]
    pub(super) fn unread(&self) -> Vec<&str> {
        let leaves = self.layers.leaves.keys().map(String::as_str);
        leaves.filter(|path| !self.read.contains(path)).collect()
    }
}

/// `number` if it is within `allowed`, or what is wrong with it.
pub(super) fn in_range<T: TryFrom<u64>>(number: i64, allowed: &RangeInclusive<u64>) -> Result<T, String> {
    u64::try_from(number)
        .ok()
        .filter(|number| allowed.contains(number))
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| {
            let (least, most) = (allowed.start(), allowed.end());
            format!("{number} is out of range; it may be {least} to {most}")
        })
}

/// The whole number at `value` within `allowed`, or a fault at `path`.
pub(super) fn count_of<T: TryFrom<u64>>(path: &str, value: &Value, allowed: &RangeInclusive<u64>) -> Result<T, Fault> {
    match value {
        Value::Integer(number) => in_range(*number, allowed).map_err(|problem| Fault::new(path, problem)),
        other => Err(super::layers::wrong_type(path, &Value::Integer(0), other)),
    }
}
