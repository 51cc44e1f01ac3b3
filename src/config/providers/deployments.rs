//! `[[providers.<id>.deployments]]`: models that people list themselves, with their prices.
//!
//! Prices are decimal text in US dollars per million tokens and become whole nano-dollars, exactly: no floating point
//! is involved, and what cannot be represented is refused rather than rounded. A price is whole or absent: a rate that
//! was forgotten must not be charged as zero.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use toml::{Table, Value};

use super::form::Form;
use crate::config::checks;
use crate::config::faults::{Fault, did_you_mean};
use crate::config::layers::{join, type_name};
use crate::config::reader::count_of;
use crate::domain::model::Capabilities;
use crate::domain::money::{NANO_PER_USD, NanoUsd};
use crate::domain::pricing::{LongPrompt, Rates};

/// What is said of one deployment.
pub const KEYS: [&str; 14] = [
    "model",
    "name",
    "aliases",
    "like",
    "input_usd",
    "output_usd",
    "cache_read_usd",
    "cache_write_usd",
    "cache_write_1h_usd",
    "long_prompt",
    "context_tokens",
    "max_output_tokens",
    "mode",
    "capabilities",
];
const CAPABILITY_KEYS: [&str; 6] = [
    "vision",
    "tools",
    "json_schema",
    "reasoning",
    "prompt_cache",
    "sampling_params",
];
const RATE_KEYS: [&str; 5] = [
    "input_usd",
    "output_usd",
    "cache_read_usd",
    "cache_write_usd",
    "cache_write_1h_usd",
];
/// What makes no sense without `input_usd`.
const PRICE_KEYS: [&str; 6] = [
    "input_usd",
    "output_usd",
    "cache_read_usd",
    "cache_write_usd",
    "cache_write_1h_usd",
    "long_prompt",
];
const LONG_PROMPT_KEYS: [&str; 6] = [
    "above_tokens",
    "input_usd",
    "output_usd",
    "cache_read_usd",
    "cache_write_usd",
    "cache_write_1h_usd",
];
/// A dollar for ten tokens: far above any price there is, so more is a slip of the decimal point.
const MAX_RATE: NanoUsd = NanoUsd(100_000 * NANO_PER_USD);
const TOKENS: RangeInclusive<u64> = 1..=1_000_000_000;
const MAX_NAME_CHARS: usize = 256;
/// Further names of one deployment.
const MAX_ALIASES: usize = 16;

/// One model of one provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentSettings {
    /// What clients ask for.
    pub model: String,
    /// What the provider calls it.
    pub name: String,
    /// Further names that clients may ask for.
    pub aliases: Vec<String>,
    /// The catalogue's model that it behaves like, where neither `model` nor `name` says so: a Bedrock inference profile
    /// of one's own, a tuned model. Its limits and traits hold, and its prices do not.
    pub like: Option<String>,
    /// What its tokens cost; `None`: no price is written, so the catalogue's holds if it has one.
    pub price: Option<OwnPrice>,
    /// Tokens of input and output together.
    pub context_tokens: Option<u64>,
    /// Tokens of output.
    pub max_output_tokens: Option<u64>,
    /// Which endpoint serves it; `None`: as its catalogue entry says.
    pub mode: Option<DeploymentMode>,
    /// What it can do; what is not said is as its catalogue entry says.
    pub capabilities: Capabilities,
}

/// A price that people wrote themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnPrice {
    /// For ordinary prompts.
    pub rates: Rates,
    /// For prompts above a size.
    pub long_prompt: Option<LongPrompt>,
}

/// Which endpoint a deployment serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeploymentMode {
    /// Chat completions.
    Chat,
    /// Legacy completions.
    Completion,
    /// Embeddings.
    Embedding,
}

/// The deployments of the table, or else of the first `usual` variable that is set.
pub(super) fn read(form: &mut Form<'_>, usual: &[&'static str]) -> Vec<DeploymentSettings> {
    let found = match form.value("deployments") {
        None => of_variable(form, usual),
        Some(Value::Array(list)) => {
            let mut found = Vec::new();
            for (index, value) in list.iter().enumerate() {
                let at = format!("{}[{index}]", form.at("deployments"));
                match value {
                    Value::Table(table) => {
                        found.extend(of_table(&mut form.faults, &at, table).map(|read| (at, read)));
                    }
                    other => form.refuse_type(&at, "a table", other),
                }
            }
            found
        }
        Some(other) => {
            let at = form.at("deployments");
            form.refuse_type(&at, "a list of tables, [[providers.….deployments]]", other);
            Vec::new()
        }
    };
    without_duplicates(form, found)
}

/// `model`, or `model=deployment` where the two differ, separated by commas.
fn of_variable(form: &mut Form<'_>, usual: &[&'static str]) -> Vec<(String, DeploymentSettings)> {
    let Some((variable, text)) = form.peek(usual) else {
        return Vec::new();
    };
    form.used_variables.push(variable);
    let mut found = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (model, name) = part.split_once('=').unwrap_or((part, part));
        let (model, name) = (model.trim(), name.trim());
        if let Some(problem) = wrong_name(model).or_else(|| wrong_name(name)) {
            let fault = Fault::new(variable, problem);
            form.faults
                .push(fault.hint("write model or model=deployment, separated by commas"));
            continue;
        }
        found.push((variable.to_owned(), DeploymentSettings::named(model, name)));
    }
    found
}

/// Reads one deployment that was written elsewhere than in a file, by the same rules. Places of faults begin at the table.
///
/// # Errors
/// Everything that is wrong with it.
pub fn read_one(table: &Table) -> Result<DeploymentSettings, Vec<Fault>> {
    let mut faults = Vec::new();
    match of_table(&mut faults, "", table) {
        Some(read) if faults.is_empty() => Ok(read),
        _ => Err(faults),
    }
}

fn of_table(faults: &mut Vec<Fault>, at: &str, table: &Table) -> Option<DeploymentSettings> {
    let faults_before = faults.len();
    for key in table.keys().filter(|key| !KEYS.contains(&key.as_str())) {
        let fault = Fault::new(join(at, key), "unknown setting of a deployment");
        faults.push(fault.hint_if(did_you_mean(key, KEYS)));
    }
    let mut fields = Fields { faults, at, table };
    let model = fields.name("model");
    let name = fields.name("name").or_else(|| model.clone());
    let aliases = fields.names("aliases", [model.as_deref()]);
    let like = fields.name("like");
    let context_tokens = fields.tokens("context_tokens");
    let max_output_tokens = fields.tokens("max_output_tokens");
    let mode = fields.mode();
    let capabilities = fields.capabilities();
    let price = fields.price(mode);

    if model.is_none() && !table.contains_key("model") {
        let fault = Fault::new(join(at, "model"), "is missing");
        faults.push(fault.hint("write the name that clients ask for"));
    }
    if let (Some(context), Some(output)) = (context_tokens, max_output_tokens)
        && output > context
    {
        let at = join(at, "max_output_tokens");
        faults.push(Fault::new(at, "is more than context_tokens"));
    }
    if faults.len() > faults_before {
        return None;
    }
    Some(DeploymentSettings {
        model: model?,
        name: name?,
        aliases,
        like,
        price,
        context_tokens,
        max_output_tokens,
        mode,
        capabilities,
    })
}

impl DeploymentSettings {
    fn named(model: &str, name: &str) -> Self {
        Self {
            model: model.to_owned(),
            name: name.to_owned(),
            aliases: Vec::new(),
            like: None,
            price: None,
            context_tokens: None,
            max_output_tokens: None,
            mode: None,
            capabilities: Capabilities::default(),
        }
    }
}

/// Reads single fields of one deployment's table; `None` is absent or at fault.
struct Fields<'f> {
    faults: &'f mut Vec<Fault>,
    at: &'f str,
    table: &'f Table,
}

impl Fields<'_> {
    fn refuse_type(&mut self, at: &str, wanted: &str, value: &Value) {
        self.faults.push(wrong_kind(at, wanted, value));
    }

    fn text(&mut self, key: &str, wanted: &str) -> Option<String> {
        match self.table.get(key)? {
            Value::String(text) => Some(text.trim().to_owned()),
            other => {
                self.refuse_type(&join(self.at, key), wanted, other);
                None
            }
        }
    }

    fn name(&mut self, key: &str) -> Option<String> {
        let name = self.text(key, "text")?;
        self.checked(key, wrong_name(&name).map_or(Ok(name), Err))
    }

    /// A list of names, each once and none of them one of `others`.
    fn names<'n>(&mut self, key: &str, others: impl IntoIterator<Item = Option<&'n str>>) -> Vec<String> {
        let at = join(self.at, key);
        let list = match self.table.get(key) {
            None => return Vec::new(),
            Some(Value::Array(list)) => list,
            Some(other) => {
                self.refuse_type(&at, "a list of names", other);
                return Vec::new();
            }
        };
        if list.len() > MAX_ALIASES {
            self.faults
                .push(Fault::new(at, format!("has more than {MAX_ALIASES} names")));
            return Vec::new();
        }
        let others: Vec<&str> = others.into_iter().flatten().collect();
        let mut names: Vec<String> = Vec::new();
        for (index, value) in list.iter().enumerate() {
            let at = format!("{at}[{index}]");
            let Some(name) = value.as_str().map(str::trim) else {
                self.refuse_type(&at, "text", value);
                continue;
            };
            let known = others.contains(&name) || names.iter().any(|other| other == name);
            match wrong_name(name).or_else(|| known.then(|| "is one of its names already".to_owned())) {
                Some(problem) => self.faults.push(Fault::new(at, problem)),
                None => names.push(name.to_owned()),
            }
        }
        names
    }

    fn capabilities(&mut self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        let at = join(self.at, "capabilities");
        let table = match self.table.get("capabilities") {
            None => return capabilities,
            Some(Value::Table(table)) => table,
            Some(other) => {
                self.refuse_type(&at, "a table", other);
                return capabilities;
            }
        };
        for (key, value) in table {
            let at = join(&at, key);
            let capability = match key.as_str() {
                "vision" => &mut capabilities.vision,
                "tools" => &mut capabilities.tools,
                "json_schema" => &mut capabilities.json_schema,
                "reasoning" => &mut capabilities.reasoning,
                "prompt_cache" => &mut capabilities.prompt_cache,
                "sampling_params" => &mut capabilities.sampling_params,
                _ => {
                    let fault = Fault::new(at, "is not the name of a capability");
                    self.faults.push(fault.hint_if(did_you_mean(key, CAPABILITY_KEYS)));
                    continue;
                }
            };
            match value {
                Value::Boolean(able) => *capability = Some(*able),
                other => self.refuse_type(&at, "true or false", other),
            }
        }
        capabilities
    }

    /// The price, whole or not at all.
    fn price(&mut self, mode: Option<DeploymentMode>) -> Option<OwnPrice> {
        let first = PRICE_KEYS.into_iter().find(|key| self.table.contains_key(*key))?;
        let embeds = mode == Some(DeploymentMode::Embedding);
        let rates = self.rates(first, embeds);
        let long_prompt = self.long_prompt(embeds);
        let rates = rates?;
        Some(OwnPrice {
            rates,
            long_prompt: long_prompt.map(|(above, long)| LongPrompt::new(above, &rates, long)),
        })
    }

    /// The rates of this table; `written` is a price that is there for certain.
    fn rates(&mut self, written: &str, embeds: bool) -> Option<Rates> {
        if !self.table.contains_key("input_usd") {
            let problem = format!("is missing beside {written}");
            let fault = Fault::new(join(self.at, "input_usd"), problem);
            self.faults.push(fault.hint("write it, \"0\" if input is free"));
        }
        if !self.table.contains_key("output_usd") && !embeds {
            let problem = format!("is missing beside {written}");
            let fault = Fault::new(join(self.at, "output_usd"), problem);
            self.faults.push(fault.hint("write it, or mode = \"embedding\""));
        }
        let [input, output, cache_read, cache_write, cache_write_1h] = RATE_KEYS.map(|key| self.rate(key));
        Some(Rates {
            input: input?,
            output: output.or(embeds.then_some(NanoUsd::ZERO))?,
            cache_read,
            cache_write,
            cache_write_1h,
        })
    }

    fn long_prompt(&mut self, embeds: bool) -> Option<(u64, Rates)> {
        let at = join(self.at, "long_prompt");
        let table = match self.table.get("long_prompt")? {
            Value::Table(table) => table,
            other => {
                self.refuse_type(&at, "a table", other);
                return None;
            }
        };
        for key in table.keys().filter(|key| !LONG_PROMPT_KEYS.contains(&key.as_str())) {
            let fault = Fault::new(join(&at, key), "unknown setting of a price for long prompts");
            self.faults.push(fault.hint_if(did_you_mean(key, LONG_PROMPT_KEYS)));
        }
        if !table.contains_key("above_tokens") {
            let fault = Fault::new(join(&at, "above_tokens"), "is missing");
            let hint = "write the largest prompt that is still charged at the ordinary price";
            self.faults.push(fault.hint(hint));
        }
        let mut fields = Fields {
            faults: &mut *self.faults,
            at: &at,
            table,
        };
        let above = fields.tokens("above_tokens");
        let rates = fields.rates("above_tokens", embeds);
        Some((above?, rates?))
    }

    fn rate(&mut self, key: &str) -> Option<NanoUsd> {
        let text = self.text(key, "decimal text in quotes, such as \"0.59\"")?;
        self.checked(key, rate(&text))
    }

    fn tokens(&mut self, key: &str) -> Option<u64> {
        let at = join(self.at, key);
        match count_of(&at, self.table.get(key)?, &TOKENS) {
            Ok(tokens) => Some(tokens),
            Err(fault) => {
                self.faults.push(fault);
                None
            }
        }
    }

    fn mode(&mut self) -> Option<DeploymentMode> {
        let text = self.text("mode", "text")?;
        let mode = match text.as_str() {
            "chat" => Ok(DeploymentMode::Chat),
            "completion" => Ok(DeploymentMode::Completion),
            "embedding" => Ok(DeploymentMode::Embedding),
            other => Err(format!(
                "{} is none of chat, completion, embedding",
                checks::shown(other)
            )),
        };
        self.checked("mode", mode)
    }

    fn checked<T>(&mut self, key: &str, read: Result<T, String>) -> Option<T> {
        read.map_err(|problem| {
            self.faults.push(Fault::new(join(self.at, key), problem));
        })
        .ok()
    }
}

fn wrong_kind(at: &str, wanted: &str, value: &Value) -> Fault {
    Fault::new(at, format!("must be {wanted}, not {}", type_name(value)))
}

/// What is wrong with the name of a model or deployment.
fn wrong_name(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("a name is empty".to_owned());
    }
    if name.chars().count() > MAX_NAME_CHARS {
        return Some(format!("a name is longer than {MAX_NAME_CHARS} characters"));
    }
    if name == "." || name == ".." {
        // In a path they would mean another place.
        return Some("a name is only dots".to_owned());
    }
    (!checks::is_plain(name)).then(|| "a name holds a space or a character that cannot be sent".to_owned())
}

/// Dollars per million tokens, as decimal text, in nano-dollars.
fn rate(text: &str) -> Result<NanoUsd, String> {
    let rate = NanoUsd::parse_usd(text)
        .map_err(|error| format!("{error}; write dollars per million tokens as decimal text, such as \"0.59\""))?;
    if rate > MAX_RATE {
        return Err(format!("is more than {MAX_RATE} dollars per million tokens"));
    }
    Ok(rate)
}

/// Drops and notes deployments that are written twice. Two names for one model are fine: that is how load is shared.
fn without_duplicates(form: &mut Form<'_>, found: Vec<(String, DeploymentSettings)>) -> Vec<DeploymentSettings> {
    let mut seen = BTreeSet::new();
    let mut kept = Vec::new();
    for (at, deployment) in found {
        if seen.insert((deployment.model.clone(), deployment.name.clone())) {
            kept.push(deployment);
            continue;
        }
        let model = checks::shown(&deployment.model);
        let name = checks::shown(&deployment.name);
        let problem = format!("model {model} with name {name} is listed twice");
        form.faults.push(Fault::new(at, problem));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_read_exactly() {
        assert_eq!(rate("0.59"), Ok(NanoUsd(590_000_000)));
        assert_eq!(rate("0.000000001"), Ok(NanoUsd(1)));
        assert_eq!(rate("15"), Ok(NanoUsd(15_000_000_000)));
        assert_eq!(rate("0"), Ok(NanoUsd(0)));
        assert_eq!(rate("100000"), Ok(MAX_RATE));
    }

    #[test]
    fn a_rate_that_is_not_exact_or_not_sane_is_refused() {
        let wrong = [
            "-1",
            "0.0000000001",
            "1e3",
            "1.",
            ".5",
            "",
            "+1",
            "1,5",
            "0.5.5",
            "١",
            "100000.1",
        ];
        for text in wrong.into_iter().chain(["99999999999999999999"]) {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}
