//! Whose model a `litellm_params.model` is.
//!
//! # Source
//! The prefixes are those of LiteLLM's providers page, <https://docs.litellm.ai/docs/providers>.

/// Who serves a model.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Vendor {
    /// OpenAI itself, or whatever speaks like it at another address.
    OpenAi,
    /// Azure OpenAI.
    Azure,
    /// Anthropic.
    Anthropic,
    /// Bedrock.
    Aws,
    /// Vertex AI.
    Gcp,
    /// The Gemini Developer API.
    Gemini,
    /// An endpoint of a dialect we know, by its name here.
    Dialect(&'static str),
}

/// Prefixes and whom they mean.
const PREFIXES: &[(&str, Vendor)] = &[
    ("openai", Vendor::OpenAi),
    ("text-completion-openai", Vendor::OpenAi),
    ("custom_openai", Vendor::OpenAi),
    ("openai_like", Vendor::OpenAi),
    ("litellm_proxy", Vendor::OpenAi),
    ("lm_studio", Vendor::OpenAi),
    ("llamafile", Vendor::OpenAi),
    ("azure", Vendor::Azure),
    ("azure_text", Vendor::Azure),
    ("anthropic", Vendor::Anthropic),
    ("bedrock", Vendor::Aws),
    ("bedrock_converse", Vendor::Aws),
    ("vertex_ai", Vendor::Gcp),
    ("vertex_ai_beta", Vendor::Gcp),
    ("gemini", Vendor::Gemini),
    ("cerebras", Vendor::Dialect("cerebras")),
    ("deepseek", Vendor::Dialect("deepseek")),
    ("fireworks_ai", Vendor::Dialect("fireworks")),
    ("groq", Vendor::Dialect("groq")),
    ("mistral", Vendor::Dialect("mistral")),
    ("ollama", Vendor::Dialect("ollama")),
    ("ollama_chat", Vendor::Dialect("ollama")),
    ("openrouter", Vendor::Dialect("openrouter")),
    ("perplexity", Vendor::Dialect("perplexity")),
    ("together_ai", Vendor::Dialect("together")),
    ("vllm", Vendor::Dialect("vllm")),
    ("hosted_vllm", Vendor::Dialect("vllm")),
    ("xai", Vendor::Dialect("xai")),
];
/// Ways to call Bedrock that stand before the model, and mean nothing here.
const BEDROCK_ROUTES: [&str; 3] = ["converse/", "invoke/", "converse_like/"];
/// How names begin that LiteLLM knows without a prefix.
const BARE: &[(&str, Vendor)] = &[
    ("claude", Vendor::Anthropic),
    ("gpt-", Vendor::OpenAi),
    ("chatgpt-", Vendor::OpenAi),
    ("o1", Vendor::OpenAi),
    ("o3", Vendor::OpenAi),
    ("o4", Vendor::OpenAi),
    ("text-embedding-", Vendor::OpenAi),
    ("ft:gpt-", Vendor::OpenAi),
    ("gemini-", Vendor::Gcp),
];

/// The vendor of `model`, and what the vendor calls it; or the prefix that is none we know.
pub(super) fn of<'a>(model: &'a str, named: Option<&'a str>) -> Result<(Vendor, &'a str), &'a str> {
    let find = |prefix: &str| {
        PREFIXES
            .iter()
            .find(|(known, _)| *known == prefix)
            .map(|(_, vendor)| *vendor)
    };
    if let Some(named) = named {
        let rest = model.strip_prefix(named).and_then(|rest| rest.strip_prefix('/'));
        return find(named).map(|vendor| (vendor, rest.unwrap_or(model))).ok_or(named);
    }
    if let Some((prefix, rest)) = model.split_once('/') {
        return match find(prefix) {
            Some(Vendor::Aws) => {
                let rest = BEDROCK_ROUTES
                    .iter()
                    .find_map(|route| rest.strip_prefix(route))
                    .unwrap_or(rest);
                Ok((Vendor::Aws, rest))
            }
            Some(vendor) => Ok((vendor, rest)),
            None => Err(prefix),
        };
    }
    let known = BARE.iter().find(|(begins, _)| model.starts_with(begins));
    known.map(|(_, vendor)| (*vendor, model)).ok_or(model)
}

impl Vendor {
    /// What its provider is called here, where it is the first of its kind.
    pub(super) fn id(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Azure => "azure",
            Self::Anthropic => "anthropic",
            Self::Aws => "aws",
            Self::Gcp => "gcp",
            Self::Gemini => "gemini",
            Self::Dialect(name) => name,
        }
    }

    /// The variable that usually has its key.
    pub(super) fn usual_key(self) -> Option<&'static str> {
        match self {
            Self::OpenAi => Some("OPENAI_API_KEY"),
            Self::Azure => Some("AZURE_OPENAI_API_KEY"),
            Self::Anthropic => Some("ANTHROPIC_API_KEY"),
            Self::Gemini => Some("GEMINI_API_KEY"),
            Self::Aws | Self::Gcp => None,
            Self::Dialect(name) => crate::cli::known_dialects()
                .into_iter()
                .find(|dialect| dialect.name == name)
                .and_then(|dialect| dialect.api_key_variable),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_a_model_is_stands_before_it_or_in_how_it_begins() {
        assert_eq!(of("azure/prod-4o", None), Ok((Vendor::Azure, "prod-4o")));
        assert_eq!(of("gpt-4o", None), Ok((Vendor::OpenAi, "gpt-4o")));
        assert_eq!(
            of("bedrock/converse/eu.amazon.nova", None),
            Ok((Vendor::Aws, "eu.amazon.nova"))
        );
        assert_eq!(
            of("openrouter/meta/llama", None),
            Ok((Vendor::Dialect("openrouter"), "meta/llama"))
        );
        assert_eq!(of("replicate/meta/llama", None), Err("replicate"));
        assert_eq!(of("command-r", None), Err("command-r"));
        assert_eq!(of("my-tuned", Some("openai")), Ok((Vendor::OpenAi, "my-tuned")));
    }

    #[test]
    fn every_dialect_that_is_named_exists() {
        let known = crate::cli::known_dialects();
        for (prefix, vendor) in PREFIXES {
            if let Vendor::Dialect(name) = vendor {
                assert!(known.iter().any(|dialect| dialect.name == *name), "{prefix}");
            }
        }
    }
}
