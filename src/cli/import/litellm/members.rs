//! A table of the file whose members are taken one by one. What nobody took is reported, so that nothing is dropped in
//! silence.

use serde_json::{Map, Value};

use crate::cli::import::report::{Fate, Report};

/// What begins a value that names a variable.
const ENVIRONMENT: &str = "os.environ/";

/// A table and where it is.
pub(super) struct Members {
    /// Its place in the file.
    pub at: String,
    members: Map<String, Value>,
}

/// A text of the file, which may be a secret.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Text {
    /// `os.environ/NAME`.
    Variable(String),
    /// It is written out.
    Written(String),
}

impl Members {
    /// The members of `value`, or none with a line in the report where it is no table.
    pub(super) fn of(at: impl Into<String>, value: Option<Value>, report: &mut Report) -> Self {
        let at = at.into();
        let members = match value {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(members)) => members,
            Some(_) => {
                report.add(Fate::Left, &at, "it is not a table");
                Map::new()
            }
        };
        Self { at, members }
    }

    /// The place of a member.
    pub(super) fn place(&self, key: &str) -> String {
        match self.at.as_str() {
            "" => key.to_owned(),
            at => format!("{at}.{key}"),
        }
    }

    /// The names of what is left.
    pub(super) fn names(&self) -> impl Iterator<Item = String> + '_ {
        self.members.keys().cloned()
    }

    /// Takes a member away; nothing is the same as `null`.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.members.remove(key).filter(|value| !value.is_null())
    }

    /// The member as a text.
    pub(super) fn text(&mut self, key: &str, report: &mut Report) -> Option<Text> {
        match self.take(key)? {
            Value::String(text) => Some(match text.trim().strip_prefix(ENVIRONMENT) {
                Some(name) => Text::Variable(name.trim().to_owned()),
                None => Text::Written(text.trim().to_owned()),
            }),
            Value::Number(number) => Some(Text::Written(number.to_string())),
            _ => {
                report.add(Fate::Left, self.place(key), "it is not a text");
                None
            }
        }
    }

    /// The member as a text that is needed here and is no secret: what a variable says, it says now.
    pub(super) fn plain(&mut self, key: &str, env: &[(String, String)], report: &mut Report) -> Option<String> {
        match self.text(key, report)? {
            Text::Written(text) => Some(text),
            Text::Variable(name) => {
                let found = env.iter().find(|(known, value)| *known == name && !value.is_empty());
                if found.is_none() {
                    let said = format!("it is in {name}, which is not set here; write it into the file that was made");
                    report.add(Fate::ToDo, self.place(key), said);
                }
                found.map(|(_, value)| value.clone())
            }
        }
    }

    /// The member as a number above zero, or zero.
    pub(super) fn number(&mut self, key: &str, report: &mut Report) -> Option<f64> {
        let value = self.take(key)?;
        let number = match &value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let number = number.filter(|number: &f64| number.is_finite() && *number >= 0.0);
        if number.is_none() {
            report.add(Fate::Left, self.place(key), "it is not a number");
        }
        number
    }

    /// The member as a whole number.
    pub(super) fn count(&mut self, key: &str, report: &mut Report) -> Option<i64> {
        let number = self.number(key, report)?;
        // Far below where a double has no whole numbers any more.
        if number.fract() == 0.0 && number <= 1e15 {
            return Some(number as i64);
        }
        report.add(Fate::Left, self.place(key), "it is not a whole number");
        None
    }

    /// The member as a truth value. LiteLLM's reader of YAML takes `yes` and `on` for one.
    pub(super) fn flag(&mut self, key: &str, report: &mut Report) -> Option<bool> {
        match self.take(key)? {
            Value::Bool(flag) => Some(flag),
            Value::String(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" => Some(true),
                "false" | "no" | "off" => Some(false),
                _ => {
                    report.add(Fate::Left, self.place(key), "it is neither true nor false");
                    None
                }
            },
            _ => {
                report.add(Fate::Left, self.place(key), "it is neither true nor false");
                None
            }
        }
    }

    /// Reports each member that is there as left, for the reason beside it.
    pub(super) fn leave(&mut self, reasons: &[(&str, &str)], report: &mut Report) {
        for (key, reason) in reasons {
            if self.take(key).is_some() {
                report.add(Fate::Left, self.place(key), *reason);
            }
        }
    }

    /// Reports everything that nobody took.
    pub(super) fn finish(self, reason: &str, report: &mut Report) {
        for (key, value) in &self.members {
            if !value.is_null() {
                report.add(Fate::Left, self.place(key), reason);
            }
        }
    }
}
