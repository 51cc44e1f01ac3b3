//! One provider's table as a form to be filled: the table first, then the secret store, then the usual variables.
//!
//! Also the only place where credentials are read. A credential goes from its variable, file or store into a
//! [`SecretString`]; messages name the place it was looked for, never what was found there.
//!
//! An entry of the secret store is a whole credential: where there is one, no secret of a usual variable is mixed into
//! it. Only what is not secret (an address, a region) is filled from variables as everywhere else.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;

use http::Uri;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use toml::{Table, Value};

use super::Surroundings;
use crate::config::checks;
use crate::config::faults::{Fault, did_you_mean};
use crate::config::layers::{join, type_name, wrong_type};
use crate::config::reader::{count_of, in_range};
use crate::config::stored::Fields;

/// Names by which the store may call a value, besides the name of the table's key.
const STORED_AS: [(&str, &str); 1] = [("base_url", "endpoint")];
/// How much of a provider's traffic a credential takes, beside its others.
const WEIGHT: &str = "weight";
/// The weight of a credential that has none.
const USUAL_WEIGHT: u32 = 1;
/// How many requests may be under way with it.
const MAX_CONCURRENT: &str = "max_concurrent";
/// Requests that may be under way with one credential.
const PLACES: RangeInclusive<u64> = 1..=1_000_000;
/// The most a weight may be: beyond it the lighter ones would hardly be used at all.
const MAX_WEIGHT: u64 = 1_000;

/// The three keys under which a credential may be looked for.
pub(super) struct SecretKeys {
    /// Where people write the credential itself, which is refused.
    pub inline: &'static str,
    /// Names a variable.
    pub variable: &'static str,
    /// Names a file.
    pub file: &'static str,
}

/// The API key of a provider.
pub(super) const API_KEY: SecretKeys = SecretKeys {
    inline: "api_key",
    variable: "api_key_env",
    file: "api_key_file",
};

/// What came of looking for a credential.
pub(super) enum Secret {
    /// Here it is.
    Found(SecretString),
    /// Nothing says where it is.
    Absent,
    /// Something says where it is, but it cannot be used; the fault is noted.
    Faulty,
}

/// Something is wrong, and its fault has been noted.
pub(super) struct Noted;

/// A value and the place it came from, for faults found later.
pub(super) struct Found {
    pub at: String,
    pub value: String,
}

/// The table of one provider, and what was found while reading it.
pub(super) struct Form<'a> {
    /// `providers.<id>`.
    pub path: String,
    table: &'a Table,
    /// What the secret store has for it, and where.
    stored: Option<(&'a Fields, String)>,
    pub surroundings: &'a Surroundings<'a>,
    /// What is wrong, whether or not the provider is enabled.
    pub faults: Vec<Fault>,
    /// What is missing, which matters only if the provider is enabled.
    pub missing: Vec<Fault>,
    pub warnings: Vec<String>,
    /// Usual variables whose values were taken, in the order they were asked for.
    pub used_variables: Vec<&'static str>,
    /// Variables that the table names.
    pub named_variables: BTreeSet<String>,
    /// Fields of the store that were asked for.
    asked: BTreeSet<&'static str>,
    /// Of every value that was found: two forms with alike values make alike providers.
    found: Sha256,
}

impl<'a> Form<'a> {
    pub(super) fn new(path: String, table: &'a Table, surroundings: &'a Surroundings<'a>) -> Self {
        Self {
            path,
            table,
            stored: None,
            surroundings,
            faults: Vec::new(),
            missing: Vec::new(),
            warnings: Vec::new(),
            used_variables: Vec::new(),
            named_variables: BTreeSet::new(),
            asked: BTreeSet::new(),
            found: Sha256::new(),
        }
    }

    /// The same form with what the secret store has at `place`.
    pub(super) fn with_stored(mut self, fields: &'a Fields, place: impl Into<String>) -> Self {
        self.stored = Some((fields, place.into()));
        self
    }

    /// A value that changes whenever anything changes that was found so far.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        self.found.clone().finalize().into()
    }

    /// The weight of the credential.
    pub(super) fn weight(&mut self) -> u32 {
        self.stored_count(WEIGHT, &(0..=MAX_WEIGHT)).unwrap_or(USUAL_WEIGHT)
    }

    /// How many requests may be under way with the credential: its own figure in the store, or else its table's.
    pub(super) fn max_concurrent(&mut self) -> Option<u32> {
        let written = self.table.get(MAX_CONCURRENT).and_then(|value| {
            let counted = count_of(&self.at(MAX_CONCURRENT), value, &PLACES);
            counted.map_err(|fault| self.faults.push(fault)).ok()
        });
        self.stored_count(MAX_CONCURRENT, &PLACES).or(written)
    }

    /// A whole number in the store.
    fn stored_count(&mut self, key: &'static str, allowed: &RangeInclusive<u64>) -> Option<u32> {
        let found = self.stored_text(key)?;
        self.note_found(key, &found.value);
        let number = found
            .value
            .parse::<i64>()
            .map_err(|_| "must be a whole number".to_owned());
        match number.and_then(|number| in_range(number, allowed)) {
            Ok(count) => Some(count),
            Err(problem) => {
                self.faults.push(Fault::new(found.at, problem));
                None
            }
        }
    }

    /// Warns of fields in the store that nobody asked for: a misspelt one is a credential that does not work.
    pub(super) fn warn_of_unread_fields(&mut self) {
        let Some((fields, place)) = &self.stored else { return };
        for name in fields.names().filter(|name| !self.asked.contains(name)) {
            // A name that is none may be a value that was put into the wrong place.
            let plain = name.len() <= 40 && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            let shown = if plain { name } else { "with an unusual name, not shown" };
            self.warnings.push(format!(
                "{place}: nothing reads the field {shown}, or not beside the others"
            ));
        }
    }

    /// The dotted path of `key`.
    pub(super) fn at(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Whether any of `keys` is written: in the table, or else in the store.
    ///
    /// A table that points to a credential (`…_env`, `…_file`) says how requests are signed, and then the store does not.
    pub(super) fn states(&self, keys: &[&str]) -> bool {
        if keys.iter().any(|key| self.table.contains_key(*key)) {
            return true;
        }
        let Some((fields, _)) = &self.stored else { return false };
        let points = self.table.keys().any(|key| points_to_a_credential(key));
        !points && keys.iter().any(|key| fields.get(key).is_some())
    }

    /// Whether the table is silent, so that variables alone make this provider.
    pub(super) fn is_blank(&self) -> bool {
        self.table.is_empty()
    }

    /// The value at `key`, of whatever type.
    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        self.table.get(key)
    }

    /// The truth value at `key`.
    pub(super) fn flag(&mut self, key: &str) -> Option<bool> {
        match self.table.get(key)? {
            Value::Boolean(flag) => Some(*flag),
            other => {
                let fault = wrong_type(&self.at(key), &Value::Boolean(true), other);
                self.faults.push(fault);
                None
            }
        }
    }

    /// The text at `key`, or else in the store, or else the first of the `usual` variables that is set. Empty text is
    /// none.
    ///
    /// This is the one place where the table wins over the store and the usual variables; see the module above.
    pub(super) fn text(&mut self, key: &'static str, usual: &[&'static str]) -> Option<Found> {
        let found = self.find_text(key, usual)?;
        self.note_found(key, &found.value);
        Some(found)
    }

    fn find_text(&mut self, key: &'static str, usual: &[&'static str]) -> Option<Found> {
        let Ok(stated) = self.table_text(key) else { return None };
        let stored = self.stored_text(key);
        let from_variable = self.peek(usual);
        match (stated, stored, from_variable) {
            (Some(found), _, from_variable) => {
                if let Some((name, _)) = from_variable.filter(|(_, other)| other.trim() != found.value) {
                    self.warnings.push(format!(
                        "{name} is set, but {} in the configuration is used instead",
                        found.at
                    ));
                }
                Some(found)
            }
            (None, Some(found), _) => Some(found),
            (None, None, Some((name, value))) => {
                self.used_variables.push(name);
                Some(Found {
                    at: name.to_owned(),
                    value: value.trim().to_owned(),
                })
            }
            (None, None, None) => None,
        }
    }

    /// The text at `key` of the table itself.
    fn table_text(&mut self, key: &str) -> Result<Option<Found>, Noted> {
        match self.table.get(key) {
            Some(Value::String(text)) => Ok(Some(text.trim()).filter(|text| !text.is_empty()).map(|text| Found {
                at: self.at(key),
                value: text.to_owned(),
            })),
            Some(other) => {
                let fault = wrong_type(&self.at(key), &Value::String(String::new()), other);
                self.faults.push(fault);
                Err(Noted)
            }
            None => Ok(None),
        }
    }

    /// The value the store has for `key`, under its own name or another it is known by.
    fn stored_text(&mut self, key: &'static str) -> Option<Found> {
        let (fields, place) = self.stored.as_ref()?;
        let others = STORED_AS.iter().filter(|(of, _)| *of == key).map(|(_, name)| *name);
        let names: Vec<&'static str> = std::iter::once(key).chain(others).collect();
        self.asked.extend(&names);
        let (name, value) = names.into_iter().find_map(|name| Some((name, fields.get(name)?)))?;
        Some(Found {
            at: format!("{place}: {name}"),
            value: value.trim().to_owned(),
        })
    }

    fn note_found(&mut self, key: &str, value: &str) {
        for part in [key, value] {
            self.found.update(part.len().to_le_bytes());
            self.found.update(part);
        }
    }

    /// The text at `key` or in a `usual` variable, if a header or a path can carry it unchanged.
    pub(super) fn plain_text(&mut self, key: &'static str, usual: &[&'static str]) -> Option<Found> {
        let found = self.text(key, usual)?;
        if checks::is_plain(&found.value) {
            return Some(found);
        }
        let problem = "holds a space or a character that cannot be sent";
        self.faults.push(Fault::new(found.at, problem));
        None
    }

    /// The URL at `key` or in a `usual` variable.
    ///
    /// # Errors
    /// What is written is not a URL; the fault is noted.
    pub(super) fn url(&mut self, key: &'static str, usual: &[&'static str]) -> Result<Option<Uri>, Noted> {
        let faults_before = self.faults.len();
        let Some(found) = self.text(key, usual) else {
            return if self.faults.len() > faults_before {
                Err(Noted)
            } else {
                Ok(None)
            };
        };
        checks::base_url(&found.value).map(Some).map_err(|problem| {
            self.faults.push(Fault::new(found.at, problem));
            Noted
        })
    }

    /// [`Form::url`], or `otherwise` where nothing is written; `None` only when it is at fault.
    pub(super) fn url_or(&mut self, key: &'static str, usual: &[&'static str], otherwise: &'static str) -> Option<Uri> {
        let url = self.url(key, usual).ok()?;
        Some(url.unwrap_or_else(|| Uri::from_static(otherwise)))
    }

    /// The first of `usual` that is set.
    pub(super) fn peek(&self, usual: &[&'static str]) -> Option<(&'static str, &'a str)> {
        let environment = self.surroundings.environment;
        usual.iter().find_map(|name| Some((*name, environment.get(name)?)))
    }

    /// The credential that `keys` point to, or else the store's, or else the first of the `usual` variables that is set.
    pub(super) fn secret(&mut self, keys: &SecretKeys, usual: &[&'static str]) -> Secret {
        let secret = self.find_secret(keys, usual);
        if let Secret::Found(value) = &secret {
            self.note_found(keys.inline, value.expose_secret());
        }
        secret
    }

    fn find_secret(&mut self, keys: &SecretKeys, usual: &[&'static str]) -> Secret {
        if self.table.contains_key(keys.inline) {
            // `refuse_unknown` reports it.
            return Secret::Faulty;
        }
        let (Ok(variable), Ok(file)) = (self.table_text(keys.variable), self.table_text(keys.file)) else {
            return Secret::Faulty;
        };
        match (variable, file) {
            (Some(_), Some(file)) => {
                let problem = format!("is written besides {}", self.at(keys.variable));
                let fault = Fault::new(file.at, problem);
                self.faults.push(fault.hint("keep one of the two"));
                return Secret::Faulty;
            }
            (Some(variable), None) => return self.secret_of_variable(variable),
            (None, Some(file)) => return self.secret_of_file(file),
            (None, None) => {}
        }
        if self.stored.is_some() {
            return match self.stored_text(keys.inline) {
                Some(found) => self.sealed(found.at, &found.value),
                None => Secret::Absent,
            };
        }
        match self.peek(usual) {
            Some((name, value)) => {
                self.used_variables.push(name);
                self.sealed(name.to_owned(), value)
            }
            None => Secret::Absent,
        }
    }

    fn secret_of_variable(&mut self, named: Found) -> Secret {
        match self.surroundings.environment.get(&named.value) {
            Some(value) => {
                self.named_variables.insert(named.value);
                self.sealed(named.at, value)
            }
            None if looks_like_a_name(&named.value) => {
                let problem = format!("the variable {} is not set or empty", named.value);
                self.missing.push(Fault::new(named.at, problem));
                self.named_variables.insert(named.value);
                Secret::Faulty
            }
            None => {
                let problem =
                    "names a variable that is not set (its name is not shown, because it looks more like a key)";
                let hint = "write the name of the variable here, and the key into the variable";
                self.missing.push(Fault::new(named.at, problem).hint(hint));
                Secret::Faulty
            }
        }
    }

    fn secret_of_file(&mut self, named: Found) -> Secret {
        // Unless it is clearly a path it may be the key itself, written by mistake, so it is not repeated.
        let rooted = ["/", "./", "../"].iter().any(|root| named.value.starts_with(root));
        let shown = if rooted && named.value.matches('/').count() > 1 {
            format!("the file {}", named.value)
        } else {
            "the file it names".to_owned()
        };
        match (self.surroundings.read_file)(Path::new(&named.value)) {
            Ok(text) if text.trim().is_empty() => {
                let fault = Fault::new(named.at, format!("{shown} is empty"));
                self.missing.push(fault);
                Secret::Faulty
            }
            Ok(text) => self.sealed(named.at, &text),
            Err(error) => {
                let problem = format!("{shown} cannot be read: {error}");
                self.missing.push(Fault::new(named.at, problem));
                Secret::Faulty
            }
        }
    }

    /// `value` as a secret, without the line's end that editors and `echo` add.
    fn sealed(&mut self, at: String, value: &str) -> Secret {
        let value = value.trim_end_matches(['\n', '\r']);
        if checks::is_plain(value) {
            return Secret::Found(SecretString::from(value));
        }
        let problem = "the credential holds a space, a line break or a character that cannot be sent";
        self.faults.push(Fault::new(at, problem));
        Secret::Faulty
    }

    /// Warns if `url` would carry this provider's credential in the clear.
    pub(super) fn warn_if_in_the_clear(&mut self, url: &Uri) {
        if checks::is_plain_http_elsewhere(url) {
            self.warnings.push(format!(
                "{}: its credential goes to another machine over plain http; use https",
                self.path
            ));
        }
    }

    /// Notes every key of the table that is not in `known`.
    pub(super) fn refuse_unknown(&mut self, known: &[&[&str]]) {
        let known: Vec<&str> = known.iter().flat_map(|keys| keys.iter().copied()).collect();
        for (key, value) in self.table {
            if known.contains(&key.as_str()) {
                continue;
            }
            let at = self.at(key);
            let pointers = [format!("{key}_env"), format!("{key}_file")];
            let fault = if pointers.iter().all(|pointer| known.contains(&pointer.as_str())) {
                Fault::new(at, "a credential is never written into the configuration").hint(format!(
                    "use {} or {}, and replace this credential",
                    pointers[0], pointers[1]
                ))
            } else {
                let what = if value.is_table() { "table" } else { "setting" };
                Fault::new(at, format!("unknown {what} of this provider"))
                    .hint_if(did_you_mean(key, known.iter().copied()))
            };
            self.faults.push(fault);
        }
    }

    /// Notes that `value`, found at `at`, should have been of another type.
    pub(super) fn refuse_type(&mut self, at: &str, wanted: &str, value: &Value) {
        let found = type_name(value);
        self.faults
            .push(Fault::new(at, format!("must be {wanted}, not {found}")));
    }
}

/// Whether a key of a provider's table says where a credential is.
pub(super) fn points_to_a_credential(key: &str) -> bool {
    key.ends_with("_env") || key.ends_with("_file")
}

/// Whether `text` is surely the name of a variable rather than a key, and can be shown.
fn looks_like_a_name(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|first: char| first.is_ascii_uppercase())
        && text
            .chars()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
        && (text.contains('_') || text.len() <= 12)
}
