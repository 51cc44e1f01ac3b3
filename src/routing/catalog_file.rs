//! The catalogue files under `config/catalog/`: models with their context, capabilities and list prices.
//!
//! They are compiled into the binary, one for each provider. Prices are decimals in quotes, US dollars per million tokens.

use chrono::NaiveDate;
use serde::Deserialize;

use crate::domain::ids::PriceVersion;
use crate::domain::money::{MoneyError, NanoUsd};
use crate::domain::pricing::{BatchRates, LongPrompt, Price, Rates};
use crate::domain::service::Surcharges;

pub use crate::domain::model::Capabilities;

/// The files, by provider id.
const FILES: &[(&str, &str)] = &[
    ("anthropic", include_str!("../../config/catalog/anthropic.toml")),
    ("aws", include_str!("../../config/catalog/aws.toml")),
    ("azure", include_str!("../../config/catalog/azure.toml")),
    ("echo", include_str!("../../config/catalog/echo.toml")),
    ("gcp", include_str!("../../config/catalog/gcp.toml")),
    ("gemini", include_str!("../../config/catalog/gemini.toml")),
    ("openai", include_str!("../../config/catalog/openai.toml")),
];

/// One provider's file.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct CatalogFile {
    /// The provider's id.
    pub provider: String,
    /// Where the figures come from.
    pub source: String,
    /// What it costs to be served otherwise than usual, in percent, for all models that do not say it themselves.
    #[serde(default)]
    pub surcharges: Surcharges,
    /// Its models.
    pub models: Vec<ModelRow>,
}

/// One model.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct ModelRow {
    /// Its id on the wire.
    pub name: String,
    /// The name clients use, where it is not the same.
    pub model: Option<String>,
    /// Further names for clients; the provider gets `name` all the same.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Dated names the provider knows as well; it gets the one that was asked for.
    #[serde(default)]
    pub snapshots: Vec<String>,
    /// What it can be asked for.
    pub mode: Mode,
    /// Date of the figures.
    pub as_of: toml::value::Datetime,
    /// Tokens a prompt may have.
    pub context_tokens: Option<u64>,
    /// Tokens an answer may have.
    pub max_output_tokens: Option<u64>,
    /// Values of an embedding.
    pub embedding_dimensions: Option<u32>,
    /// What it can do; missing is unknown.
    #[serde(default)]
    pub capabilities: Capabilities,
    /// List price.
    pub price: PriceRow,
    /// List price for long prompts.
    pub long_prompt: Option<LongPromptRow>,
    /// List price of batches.
    pub batch_price: Option<PriceRow>,
    /// What it costs to be served otherwise than usual, in percent.
    pub surcharges: Option<Surcharges>,
    /// What a location other than `global` charges, in percent of these prices.
    pub regional_percent: Option<u32>,
    /// Announced date of retirement.
    pub retires: Option<toml::value::Datetime>,
    /// Remarks on the figures.
    pub note: Option<String>,
}

/// What a model can be asked for.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Chat, and legacy completions where the provider has them.
    Chat,
    /// Legacy completions alone.
    Completion,
    /// Embeddings.
    Embedding,
    /// OpenAI's Responses API alone, which this gateway does not offer.
    Responses,
    /// Everything.
    Any,
}

/// Prices as they stand in the file.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct PriceRow {
    input: String,
    output: String,
    cache_read: Option<String>,
    cache_write: Option<String>,
    cache_write_1h: Option<String>,
}

/// Prices above a prompt size.
#[derive(Deserialize, Debug)]
pub struct LongPromptRow {
    above_tokens: u64,
    #[serde(flatten)]
    price: PriceRow,
}

impl PriceRow {
    fn rates(&self) -> Result<Rates, MoneyError> {
        let optional = |text: &Option<String>| text.as_deref().map(NanoUsd::parse_usd).transpose();
        Ok(Rates {
            input: NanoUsd::parse_usd(&self.input)?,
            output: NanoUsd::parse_usd(&self.output)?,
            cache_read: optional(&self.cache_read)?,
            cache_write: optional(&self.cache_write)?,
            cache_write_1h: optional(&self.cache_write_1h)?,
        })
    }
}

impl ModelRow {
    /// The name clients use.
    pub fn public_name(&self) -> &str {
        self.model.as_deref().unwrap_or(&self.name)
    }

    /// Every name that stands for the row and under which the provider gets `name`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let own = std::iter::once(self.name.as_str());
        own.chain(self.model.as_deref())
            .chain(self.aliases.iter().map(String::as_str))
    }

    /// The row's list price under a version of its own, at so many percent of it.
    ///
    /// # Errors
    /// A price is not a decimal number of dollars.
    pub fn price(&self, provider: &str, percent: u32) -> Result<Price, MoneyError> {
        let ordinary = self.price.rates()?;
        let long_prompt = match &self.long_prompt {
            Some(long) => {
                let long = LongPrompt::new(long.above_tokens, &ordinary, long.price.rates()?);
                Some(LongPrompt {
                    rates: long.rates.at_percent(percent),
                    ..long
                })
            }
            None => None,
        };
        let batch = match &self.batch_price {
            Some(batch) => Some(batch.rates()?.at_percent(percent)),
            None => None,
        };
        let price = Price {
            version: PriceVersion::from(""),
            rates: ordinary.at_percent(percent),
            long_prompt,
            batch: batch.map(|batch| BatchRates {
                input: batch.input,
                output: batch.output,
            }),
            surcharges: self.surcharges.unwrap_or_default(),
        };
        Ok(versioned(&format!("{provider}/{}@{}", self.name, self.as_of), price))
    }

    /// Date of the figures.
    pub fn as_of(&self) -> Option<NaiveDate> {
        day(&self.as_of)
    }

    /// The announced day of retirement.
    pub fn retires(&self) -> Option<NaiveDate> {
        day(self.retires.as_ref()?)
    }
}

fn day(date: &toml::value::Datetime) -> Option<NaiveDate> {
    let date = date.date?;
    NaiveDate::from_ymd_opt(i32::from(date.year), u32::from(date.month), u32::from(date.day))
}

/// The price under a readable name that changes whenever its figures do.
pub fn versioned(name: &str, price: Price) -> Price {
    let mut figures = format!("{:?}{:?}{:?}", price.rates, price.long_prompt, price.batch);
    if price.surcharges != Surcharges::default() {
        figures += &format!("{:?}", price.surcharges);
    }
    let version = format!("{name}#{:08x}", crc32fast::hash(figures.as_bytes()));
    Price {
        version: version.as_str().into(),
        ..price
    }
}

/// An own price with what it leaves open and the list price says: long prompts grow dearer by the list's factors, and so does
/// what is served otherwise than usual.
pub fn completed(own: &Price, list: &Price) -> Price {
    let price = Price {
        long_prompt: own
            .long_prompt
            .or_else(|| Some(list.long_prompt?.carried_over(&list.rates, &own.rates))),
        surcharges: list.surcharges,
        ..own.clone()
    };
    let version = own.version.as_str();
    versioned(version.rsplit_once('#').map_or(version, |(name, _)| name), price)
}

/// The compiled-in catalogue files.
pub fn all() -> impl Iterator<Item = CatalogFile> {
    FILES
        .iter()
        .map(|(_, text)| read(text).expect("the catalogue files are compiled in and tested"))
}

/// A file, with what it says of all its models in each of them.
fn read(text: &str) -> Result<CatalogFile, toml::de::Error> {
    let mut file: CatalogFile = toml::from_str(text)?;
    for model in &mut file.models {
        model.surcharges.get_or_insert(file.surcharges);
    }
    Ok(file)
}

/// The compiled-in catalogue file of a provider, if there is one.
///
/// # Errors
/// The file is not what it should be; a test keeps that from happening.
pub fn of_provider(provider: &str) -> Result<Option<CatalogFile>, toml::de::Error> {
    FILES
        .iter()
        .find(|(id, _)| *id == provider)
        .map(|(_, text)| read(text))
        .transpose()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::domain::usage::TokenUsage;

    #[test]
    fn every_file_is_valid_priced_and_without_duplicates() {
        for (id, _) in FILES {
            let file = of_provider(id).unwrap().unwrap();
            assert_eq!(file.provider, *id);
            let mut names: Vec<&str> = file.models.iter().map(|model| model.name.as_str()).collect();
            for model in &file.models {
                let price = model
                    .price(id, 100)
                    .unwrap_or_else(|error| panic!("{id}/{}: {error}", model.name));
                let usage = TokenUsage {
                    input: 1_000_000,
                    ..TokenUsage::default()
                };
                assert!(price.cost(&usage).is_ok());
            }
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), file.models.len(), "{id} lists a model twice");
        }
    }

    /// A name that stood for two models would send a request to whichever comes first.
    #[test]
    fn a_name_stands_for_one_model_at_all_providers() {
        let mut owners: BTreeMap<String, (String, String)> = BTreeMap::new();
        let files: Vec<CatalogFile> = all().collect();
        for file in &files {
            for row in &file.models {
                let model = row.public_name().to_owned();
                for name in row.names().chain(row.snapshots.iter().map(String::as_str)) {
                    let owner = owners
                        .entry(name.to_owned())
                        .or_insert_with(|| (model.clone(), file.provider.clone()));
                    assert_eq!(owner.0, model, "{name} at {} and at {}", owner.1, file.provider);
                }
            }
        }
        for (name, (model, provider)) in &owners {
            assert_eq!(
                owners[model].0, *model,
                "{provider}: {name} leads to {model}, which leads elsewhere"
            );
        }
    }

    #[test]
    fn a_row_lists_each_of_its_names_once_and_mixes_no_kinds_of_models() {
        let mut modes: BTreeMap<String, Mode> = BTreeMap::new();
        for file in all() {
            for row in &file.models {
                let mut names: Vec<&str> = row.names().chain(row.snapshots.iter().map(String::as_str)).collect();
                let count = names.len();
                names.sort_unstable();
                names.dedup();
                assert_eq!(names.len(), count, "{}/{}", file.provider, row.name);
                let mode = modes.entry(row.public_name().to_owned()).or_insert(row.mode);
                assert_eq!(*mode, row.mode, "{}/{}", file.provider, row.name);
            }
        }
    }

    #[test]
    fn a_price_version_changes_with_its_figures() {
        let price = |input| Price {
            version: "".into(),
            rates: Rates {
                input: NanoUsd(input),
                ..Rates::default()
            },
            long_prompt: None,
            batch: None,
            surcharges: Surcharges::default(),
        };
        let version = |input| versioned("m", price(input)).version;
        assert_ne!(version(1), version(2));
        assert_eq!(version(1), version(1));
    }
}
