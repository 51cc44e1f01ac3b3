//! One provider's table as a form to be filled: the table first, the usual variables for what it leaves out.
//!
//! Also the only place where credentials are read. A credential goes from its variable or file into a
//! [`SecretString`]; messages name the place it was looked for, never what was found there.

use std::collections::BTreeSet;
use std::path::Path;

use http::Uri;
use secrecy::SecretString;
use toml::{Table, Value};

use super::Surroundings;
use crate::config::checks;
use crate::config::faults::{Fault, did_you_mean};
use crate::config::layers::{join, type_name, wrong_type};

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
}

impl<'a> Form<'a> {
    pub(super) fn new(path: String, table: &'a Table, surroundings: &'a Surroundings<'a>) -> Self {
        Self {
            path,
            table,
            surroundings,
            faults: Vec::new(),
            missing: Vec::new(),
            warnings: Vec::new(),
            used_variables: Vec::new(),
            named_variables: BTreeSet::new(),
        }
    }

    /// The dotted path of `key`.
    pub(super) fn at(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Whether the table has any of `keys`.
    pub(super) fn states(&self, keys: &[&str]) -> bool {
        keys.iter().any(|key| self.table.contains_key(*key))
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

    /// The text at `key`, or else the first of the `usual` variables that is set. Empty text is none.
    ///
    /// This is the one place where the table wins over the usual variables; see the module above.
    pub(super) fn text(&mut self, key: &str, usual: &[&'static str]) -> Option<Found> {
        let stated = match self.table.get(key) {
            Some(Value::String(text)) if text.trim().is_empty() => None,
            Some(Value::String(text)) => Some(text.trim().to_owned()),
            Some(other) => {
                let fault = wrong_type(&self.at(key), &Value::String(String::new()), other);
                self.faults.push(fault);
                return None;
            }
            None => None,
        };
        let from_variable = self.peek(usual);
        match (stated, from_variable) {
            (Some(value), from_variable) => {
                let at = self.at(key);
                if let Some((name, _)) = from_variable.filter(|(_, other)| other.trim() != value) {
                    self.warnings
                        .push(format!("{name} is set, but {at} in the configuration is used instead"));
                }
                Some(Found { at, value })
            }
            (None, Some((name, value))) => {
                self.used_variables.push(name);
                Some(Found {
                    at: name.to_owned(),
                    value: value.trim().to_owned(),
                })
            }
            (None, None) => None,
        }
    }

    /// The text at `key` or in a `usual` variable, if a header or a path can carry it unchanged.
    pub(super) fn plain_text(&mut self, key: &str, usual: &[&'static str]) -> Option<Found> {
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
    pub(super) fn url(&mut self, key: &str, usual: &[&'static str]) -> Result<Option<Uri>, Noted> {
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
    pub(super) fn url_or(&mut self, key: &str, usual: &[&'static str], otherwise: &'static str) -> Option<Uri> {
        let url = self.url(key, usual).ok()?;
        Some(url.unwrap_or_else(|| Uri::from_static(otherwise)))
    }

    /// The first of `usual` that is set.
    pub(super) fn peek(&self, usual: &[&'static str]) -> Option<(&'static str, &'a str)> {
        let environment = self.surroundings.environment;
        usual.iter().find_map(|name| Some((*name, environment.get(name)?)))
    }

    /// The credential that `keys` point to, or else the first of the `usual` variables that is set.
    pub(super) fn secret(&mut self, keys: &SecretKeys, usual: &[&'static str]) -> Secret {
        if self.states(&[keys.inline]) {
            // `refuse_unknown` reports it.
            return Secret::Faulty;
        }
        let faults_before = self.faults.len();
        let variable = self.text(keys.variable, &[]);
        let file = self.text(keys.file, &[]);
        if self.faults.len() > faults_before {
            return Secret::Faulty;
        }
        match (variable, file) {
            (Some(_), Some(file)) => {
                let problem = format!("is written besides {}", self.at(keys.variable));
                let fault = Fault::new(file.at, problem);
                self.faults.push(fault.hint("keep one of the two"));
                Secret::Faulty
            }
            (Some(variable), None) => self.secret_of_variable(variable),
            (None, Some(file)) => self.secret_of_file(file),
            (None, None) => match self.peek(usual) {
                Some((name, value)) => {
                    self.used_variables.push(name);
                    self.sealed(name.to_owned(), value)
                }
                None => Secret::Absent,
            },
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

/// Whether `text` is surely the name of a variable rather than a key, and can be shown.
fn looks_like_a_name(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|first: char| first.is_ascii_uppercase())
        && text
            .chars()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
        && (text.contains('_') || text.len() <= 12)
}
