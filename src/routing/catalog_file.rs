//! The catalogue files under `config/catalog/`: models with their context, capabilities and list prices.
//!
//! They are compiled into the binary, one for each provider. Prices are decimals in quotes, US dollars per million tokens.

use chrono::NaiveDate;
use serde::Deserialize;

use crate::domain::ids::PriceVersion;
use crate::domain::money::{MoneyError, NanoUsd};
use crate::domain::pricing::{LongPrompt, Price, Rates};

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
    /// Its models.
    pub models: Vec<ModelRow>,
}

/// One model.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct ModelRow {
    /// Its id on the wire, which is also the name clients use.
    pub name: String,
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

/// What a model can do. `None` is unknown, never "no".
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Default, Debug)]
#[serde(deny_unknown_fields, default)]
pub struct Capabilities {
    /// Takes images.
    pub vision: Option<bool>,
    /// Calls tools.
    pub tools: Option<bool>,
    /// Follows a JSON schema.
    pub json_schema: Option<bool>,
    /// Reasons before it answers.
    pub reasoning: Option<bool>,
    /// Caches prompts.
    pub prompt_cache: Option<bool>,
    /// Takes `temperature` and `top_p`.
    pub sampling_params: Option<bool>,
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
    /// The row's list price under a version of its own.
    ///
    /// # Errors
    /// A price is not a decimal number of dollars.
    pub fn price(&self, provider: &str) -> Result<Price, MoneyError> {
        let rates = self.price.rates()?;
        let long_prompt = match &self.long_prompt {
            Some(long) => Some(LongPrompt {
                above_tokens: long.above_tokens,
                rates: long.price.rates()?,
            }),
            None => None,
        };
        let version = price_version(
            &format!("{provider}/{}@{}", self.name, self.as_of),
            &rates,
            long_prompt.as_ref(),
        );
        Ok(Price {
            version,
            rates,
            long_prompt,
        })
    }
}

impl ModelRow {
    /// The announced day of retirement.
    pub fn retires(&self) -> Option<NaiveDate> {
        let date = self.retires.as_ref()?.date?;
        NaiveDate::from_ymd_opt(i32::from(date.year), u32::from(date.month), u32::from(date.day))
    }
}

/// A readable name for a price that changes whenever its figures do.
pub fn price_version(name: &str, rates: &Rates, long_prompt: Option<&LongPrompt>) -> PriceVersion {
    let figures = format!("{rates:?}{long_prompt:?}");
    format!("{name}#{:08x}", crc32fast::hash(figures.as_bytes())).into()
}

/// The compiled-in catalogue file of a provider, if there is one.
///
/// # Errors
/// The file is not what it should be; a test keeps that from happening.
pub fn of_provider(provider: &str) -> Result<Option<CatalogFile>, toml::de::Error> {
    FILES
        .iter()
        .find(|(id, _)| *id == provider)
        .map(|(_, text)| toml::from_str(text))
        .transpose()
}

#[cfg(test)]
mod tests {
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
                    .price(id)
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

    #[test]
    fn a_price_version_changes_with_its_figures() {
        let one = Rates {
            input: NanoUsd(1),
            ..Rates::default()
        };
        let two = Rates {
            input: NanoUsd(2),
            ..Rates::default()
        };
        assert_ne!(price_version("m", &one, None), price_version("m", &two, None));
        assert_eq!(price_version("m", &one, None), price_version("m", &one, None));
    }
}
