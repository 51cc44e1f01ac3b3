//! What routing may know about a request. Everything is borrowed or a number: no prompt is among it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::domain::call::Operation;

/// A request as routing sees it.
#[derive(Clone, Debug)]
pub struct Facts<'r> {
    /// The request's id as a number: what is chosen at random is chosen by it, so that it can be explained later.
    pub id: u128,
    /// What is asked for.
    pub operation: Operation,
    /// The model as the caller wrote it.
    pub model: &'r str,
    /// Whether a stream is asked for.
    pub stream: bool,
    /// Whether tools are offered.
    pub tools: bool,
    /// Whether there are images.
    pub vision: bool,
    /// Tokens of the prompt, estimated.
    pub input_tokens: u64,
    /// The caller's ceiling on generated tokens.
    pub max_output_tokens: Option<u64>,
    /// Who asks.
    pub caller: Caller<'r>,
    /// Headers that the organization lets rules look at, by their names in lower case.
    pub headers: &'r [(String, String)],
    /// `prompt_cache_key` of the body.
    pub prompt_cache_key: Option<&'r str>,
    /// `user` of the body.
    pub user: Option<&'r str>,
    /// When it came.
    pub at: DateTime<Utc>,
}

/// Who asks, as far as rules may know.
#[derive(Clone, Default, Debug)]
pub struct Caller<'r> {
    /// The key's id.
    pub key_id: String,
    /// The key's name.
    pub key_name: &'r str,
    /// The short name of the key's team; empty: it has none.
    pub team: &'r str,
    /// The texts among the key's metadata.
    pub tags: BTreeMap<&'r str, &'r str>,
}

/// Tags that rules can see of one key; a key with more is a mistake, and rules are to stay cheap.
const MAX_TAGS: usize = 64;

/// The texts among a key's metadata.
pub fn tags_of(metadata: &serde_json::Value) -> BTreeMap<&str, &str> {
    let Some(object) = metadata.as_object() else {
        return BTreeMap::new();
    };
    let texts = object
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)));
    texts.take(MAX_TAGS).collect()
}
