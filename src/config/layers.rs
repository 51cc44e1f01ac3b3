//! Lays the sources over each other: defaults, file, variables with usual names, `BONITO_…` variables, command line.
//!
//! Only the shape is decided here: which settings exist, and whether a value is text, a whole number or a truth value.
//! `config/default.toml` is the list of what exists, so a setting cannot be read without being documented there.
//! Ranges and meanings are checked by whoever reads the setting (`settings`, `providers`).

use std::collections::BTreeMap;

use toml::de::DeTable;
use toml::{Table, Value};

use super::faults::{Fault, Faults, did_you_mean};
use super::{CONFIG_VARIABLE, DEFAULT_TOML, Environment, Sources};

/// What the name of every variable of ours begins with.
pub(super) const PREFIX: &str = "BONITO_";
/// The usual name for the address of the database.
pub(super) const DATABASE_VARIABLE: &str = "DATABASE_URL";

/// Read by others: which file, and the key that seals what is stored.
const RESERVED: [&str; 3] = [CONFIG_VARIABLE, "BONITO_MASTER_KEY", "BONITO_MASTER_KEY_FILE"];
/// Variables of our own tests, which run the binary in an environment they share.
const TEST_PREFIX: &str = "BONITO_TEST_";
/// The usual name for the address of Vault.
pub(super) const VAULT_VARIABLE: &str = "VAULT_ADDR";
/// Usual names and the settings they stand for. The providers' are in `providers`, because they may create one.
const USUAL: [(&str, &str); 24] = [
    (DATABASE_VARIABLE, "database.url"),
    ("REDIS_URL", "redis.url"),
    (VAULT_VARIABLE, "vault.address"),
    ("VAULT_NAMESPACE", "vault.namespace"),
    ("VAULT_CACERT", "vault.ca_file"),
    ("VAULT_ROLE_ID", "vault.role_id"),
    ("RUST_LOG", "telemetry.log"),
    // https://opentelemetry.io/docs/specs/otel/protocol/exporter/ and …/configuration/sdk-environment-variables/; what is for
    // traces alone comes after what is for every signal, because it is stronger.
    ("OTEL_SDK_DISABLED", "tracing.disabled"),
    ("OTEL_TRACES_EXPORTER", "tracing.exporter"),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "tracing.protocol"),
    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "tracing.protocol"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "tracing.endpoint"),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "tracing.traces_endpoint"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "tracing.headers"),
    ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "tracing.headers"),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "tracing.timeout_ms"),
    ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "tracing.timeout_ms"),
    ("OTEL_SERVICE_NAME", "tracing.service_name"),
    ("OTEL_RESOURCE_ATTRIBUTES", "tracing.resource"),
    ("OTEL_TRACES_SAMPLER", "tracing.sampler"),
    ("OTEL_TRACES_SAMPLER_ARG", "tracing.sample_ratio"),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "tracing.queue"),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "tracing.batch"),
    ("OTEL_BSP_SCHEDULE_DELAY", "tracing.flush_ms"),
];
/// Tables whose keys people choose, so that `default.toml` cannot list them.
const OPEN_TABLES: [&str; 3] = ["providers", "models", "aliases"];

/// The sources, laid over each other.
pub(super) struct Layers {
    /// Every setting of `default.toml` outside the open tables, by dotted path.
    pub leaves: BTreeMap<String, Leaf>,
    /// `[providers.…]`, still apart, because who mentions a provider matters.
    pub providers: ProviderTables,
    /// `[models."…"]` of the file, with what the command line changes.
    pub models: Table,
    /// `[aliases]` of the file.
    pub aliases: Table,
}

/// The providers' tables, weakest first.
#[derive(Default)]
pub(super) struct ProviderTables {
    /// From `default.toml`.
    pub default: Table,
    /// From the configuration file.
    pub file: Table,
    /// From the command line.
    pub command_line: Table,
}

/// One setting: its strongest value, and who gave it.
pub(super) struct Leaf {
    /// Of the same TOML type as in `default.toml`.
    pub value: Value,
    /// The variable that gave it, if one did: the place a fault should name.
    pub variable: Option<String>,
}

/// Lays all layers of `sources`.
pub(super) fn lay(sources: &Sources, environment: &Environment<'_>, faults: &mut Faults) -> Layers {
    let mut layers = Layers::of_defaults(faults);
    if let Some((path, text)) = &sources.file
        && let Some(file) = parse(&path.display().to_string(), text, faults)
    {
        layers.lay_file(file, faults);
    }
    for (name, path) in USUAL {
        if let Some(value) = environment.get(name) {
            layers.lay_variable(name, path, value, faults);
        }
    }
    layers.lay_environment(environment, faults);
    for (path, value) in &sources.overrides {
        layers.lay_override(path, value, faults);
    }
    layers
}

/// The variable that sets the leaf at `path`.
pub(super) fn variable_of(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', "_").to_uppercase())
}

/// `path.key`, with the key quoted where TOML would want it so.
pub(super) fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// What a person calls the type of `value`.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number with a fraction",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

impl Layers {
    fn of_defaults(faults: &mut Faults) -> Self {
        let mut defaults = parse("config/default.toml", DEFAULT_TOML, faults).unwrap_or_default();
        let default_providers = take_table(&mut defaults, "providers", faults);
        let models = take_table(&mut defaults, "models", faults);
        let aliases = take_table(&mut defaults, "aliases", faults);
        let mut leaves = BTreeMap::new();
        flatten("", defaults, &mut leaves);
        Self {
            leaves,
            providers: ProviderTables {
                default: default_providers,
                ..ProviderTables::default()
            },
            models,
            aliases,
        }
    }

    fn lay_file(&mut self, mut file: Table, faults: &mut Faults) {
        self.providers.file = take_table(&mut file, "providers", faults);
        self.models = take_table(&mut file, "models", faults);
        self.aliases = take_table(&mut file, "aliases", faults);
        self.lay_table("", file, faults);
    }

    fn lay_table(&mut self, at: &str, table: Table, faults: &mut Faults) {
        for (key, value) in table {
            let path = join(at, &key);
            if let Some(leaf) = self.leaves.get_mut(&path) {
                if leaf.value.same_type(&value) {
                    leaf.value = value;
                } else {
                    faults.push(wrong_type(&path, &leaf.value, &value));
                }
            } else if !self.is_table(&path) {
                let fault = Fault::new(&path, "unknown setting");
                faults.push(fault.hint_if(self.suggest(at, &key)));
            } else if let Value::Table(inner) = value {
                self.lay_table(&path, inner, faults);
            } else {
                let found = type_name(&value);
                faults.push(Fault::new(&path, format!("must be a table, not {found}")));
            }
        }
    }

    fn lay_environment(&mut self, environment: &Environment<'_>, faults: &mut Faults) {
        let settable: BTreeMap<String, String> = self
            .leaves
            .keys()
            .map(|path| (variable_of(path), path.clone()))
            .collect();
        for (name, value) in environment.iter() {
            if let Some(path) = settable.get(name) {
                self.lay_variable(name, path, value, faults);
                continue;
            }
            if !name.starts_with(PREFIX) || is_for_others(name, value) {
                continue;
            }
            let hint = if name.starts_with("BONITO_PROVIDERS_")
                || name.starts_with("BONITO_MODELS_")
                || name.starts_with("BONITO_ALIASES_")
            {
                Some("providers, models and aliases are set in the configuration file".to_owned())
            } else {
                did_you_mean(name, settable.keys().map(String::as_str).chain(RESERVED))
            };
            faults.push(Fault::new(name, "no setting has this variable").hint_if(hint));
        }
    }

    /// Sets the leaf at `path` from the text of a variable.
    fn lay_variable(&mut self, name: &str, path: &str, text: &str, faults: &mut Faults) {
        let leaf = self
            .leaves
            .get_mut(path)
            .expect("the path was taken from the leaves, or is a usual one, which a test checks");
        match typed(text, &leaf.value) {
            Ok(value) => {
                *leaf = Leaf {
                    value,
                    variable: Some(name.to_owned()),
                };
            }
            Err(problem) => faults.push(Fault::new(name, problem)),
        }
    }

    fn lay_override(&mut self, path: &str, text: &str, faults: &mut Faults) {
        if let Some(leaf) = self.leaves.get_mut(path) {
            match typed(text, &leaf.value) {
                Ok(value) => {
                    *leaf = Leaf { value, variable: None };
                }
                Err(problem) => faults.push(Fault::new(path, problem)),
            }
            return;
        }
        // A model's name may hold dots (`gpt-4.1`), so the key is what follows the last one.
        let open = path
            .split_once('.')
            .and_then(|(table, rest)| Some((table, rest.rsplit_once('.')?)));
        let (table, example, name, key) = match open {
            Some(("models", (name, key))) => (&mut self.models, Value::Integer(0), name, key),
            Some(("providers", (id, "enabled"))) => {
                let tables = &mut self.providers.command_line;
                (tables, Value::Boolean(true), id, "enabled")
            }
            Some(("providers", (id, "max_concurrent"))) => {
                let tables = &mut self.providers.command_line;
                (tables, Value::Integer(0), id, "max_concurrent")
            }
            Some(("providers", (id, key))) => {
                let tables = &mut self.providers.command_line;
                (tables, Value::String(String::new()), id, key)
            }
            _ => {
                let (table, key) = path.rsplit_once('.').unwrap_or(("", path));
                let fault = Fault::new(path, "unknown setting, given on the command line");
                faults.push(fault.hint_if(self.suggest(table, key)));
                return;
            }
        };
        let value = match typed(text, &example) {
            Ok(value) => value,
            Err(problem) => {
                faults.push(Fault::new(path, problem));
                return;
            }
        };
        let inner = table
            .entry(name.trim_matches('"'))
            .or_insert_with(|| Value::Table(Table::new()));
        // Anything but a table here came from the file, and whoever reads the file's table reports it.
        if let Value::Table(inner) = inner {
            inner.insert(key.to_owned(), value);
        }
    }

    fn is_table(&self, path: &str) -> bool {
        let prefix = format!("{path}.");
        self.leaves.keys().any(|leaf| leaf.starts_with(&prefix))
    }

    /// What an unknown `key` of the table `at` was probably meant to be.
    fn suggest(&self, at: &str, key: &str) -> Option<String> {
        let path = join(at, key);
        // The right key in the wrong table is the likeliest slip, and no spelling distance finds it.
        let suffix = format!(".{key}");
        let elsewhere: Vec<&str> = self
            .leaves
            .keys()
            .filter(|leaf| leaf.ends_with(&suffix))
            .map(String::as_str)
            .collect();
        if !elsewhere.is_empty() {
            return Some(format!("did you mean {}?", elsewhere.join(" or ")));
        }
        let tables = self.leaves.keys().filter_map(|leaf| Some(leaf.split_once('.')?.0));
        if at.is_empty() {
            return did_you_mean(key, tables.chain(OPEN_TABLES));
        }
        did_you_mean(&path, self.leaves.keys().map(String::as_str))
    }
}

/// The table of a TOML text, or `None` with every mistake of its syntax as a fault.
///
/// Only the mistake's description and its line are kept: the parser's own rendering quotes the line, and a line may
/// hold a key.
fn parse(name: &str, text: &str, faults: &mut Faults) -> Option<Table> {
    let (_, mut errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        match toml::from_str(text) {
            Ok(table) => return Some(table),
            Err(error) => errors.push(error),
        }
    }
    for error in errors {
        let start = error.span().map_or(0, |span| span.start.min(text.len()));
        let before = &text.as_bytes()[..start];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        faults.push(Fault::new(format!("{name}:{line}"), error.message()));
    }
    None
}

/// Removes the table `key`, faulting when it is something else.
fn take_table(table: &mut Table, key: &str, faults: &mut Faults) -> Table {
    match table.remove(key) {
        None => Table::new(),
        Some(Value::Table(inner)) => inner,
        Some(other) => {
            let found = type_name(&other);
            faults.push(Fault::new(key, format!("must be a table, not {found}")));
            Table::new()
        }
    }
}

fn flatten(at: &str, table: Table, leaves: &mut BTreeMap<String, Leaf>) {
    for (key, value) in table {
        let path = join(at, &key);
        match value {
            Value::Table(inner) => flatten(&path, inner, leaves),
            value => {
                let variable = None;
                leaves.insert(path, Leaf { value, variable });
            }
        }
    }
}

/// `text` as a value of the same type as `like`. The problem never repeats the text, which may be anything.
fn typed(text: &str, like: &Value) -> Result<Value, String> {
    let value = match like {
        Value::Integer(_) => {
            let digits = text.trim().replace('_', "");
            digits.parse().ok().map(Value::Integer)
        }
        Value::Boolean(_) => text.trim().parse().ok().map(Value::Boolean),
        _ => Some(Value::String(text.to_owned())),
    };
    value.ok_or_else(|| format!("must be {}", type_name(like)))
}

pub(super) fn wrong_type(path: &str, wanted: &Value, found: &Value) -> Fault {
    let (wanted_name, found_name) = (type_name(wanted), type_name(found));
    let fault = Fault::new(path, format!("must be {wanted_name}, not {found_name}"));
    match (wanted, found) {
        (Value::String(_), _) => fault.hint("write it in quotes"),
        (Value::Integer(_) | Value::Boolean(_), Value::String(_)) => fault.hint("write it without quotes"),
        _ => fault,
    }
}

/// Whether a `BONITO_…` variable is none of the configuration's business.
fn is_for_others(name: &str, value: &str) -> bool {
    if RESERVED.contains(&name) || name.starts_with(TEST_PREFIX) {
        return true;
    }
    // Kubernetes adds such variables to every pod beside a Service called `bonito` or `bonito-gateway`. Refusing them
    // would stop a gateway from starting because of its own Service.
    let numbered_port = name
        .split_once("_PORT_")
        .is_some_and(|(_, rest)| rest.starts_with(|first: char| first.is_ascii_digit()));
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || numbered_port
        || (name.ends_with("_PORT") && value.contains("://"))
}

#[cfg(test)]
mod tests;
