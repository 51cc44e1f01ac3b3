//! `config/catalog/families.toml`: which traits a model has, found by patterns over its name.
//!
//! Every model gets an answer, listed in the catalogue or not, because the last pattern of each family is for models
//! newer than the file. The file is compiled in; the catalogue asks once for each deployment it builds.

use std::sync::LazyLock;

use serde::Deserialize;

use crate::domain::model::{BedrockTraits, ClaudeTraits, Family, GeminiTraits, ModelTraits, OpenAiTraits};
use crate::domain::scope::matches;

const FILE: &str = include_str!("../../config/catalog/families.toml");

static FAMILIES: LazyLock<Families> =
    LazyLock::new(|| toml::from_str(FILE).expect("the family file is compiled in and tested"));

/// What Bedrock puts before a model's id to say where it runs.
pub const GEOGRAPHIES: [&str; 9] = ["global", "us", "us-gov", "eu", "apac", "jp", "au", "ca", "in"];

/// The file, one list of patterns for each kind of traits.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Families {
    claude: Vec<Pattern<ClaudeTraits>>,
    google: Vec<Pattern<GeminiTraits>>,
    openai: Vec<Pattern<OpenAiTraits>>,
    bedrock: Vec<Pattern<BedrockTraits>>,
    vertex: Vec<Pattern<NoTraits>>,
}

/// One entry: the names it is for, and what holds for them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pattern<T> {
    r#match: Vec<String>,
    family: Option<Family>,
    #[serde(default)]
    traits: T,
}

/// Of some models only the family matters.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct NoTraits {}

/// The traits of a model that `provider` knows as `name`.
///
/// `name` may be a Bedrock ARN. An application inference profile's ARN says nothing about its model, so for those the
/// caller asks again with the name that clients use.
pub fn traits_of(provider: &str, name: &str) -> ModelTraits {
    let mut traits = ModelTraits::default();
    let mut name = name;
    if provider == "aws" {
        let foundation = foundation_model(name);
        if let Some(found) = first(&FAMILIES.bedrock, foundation) {
            traits.family = found.family.unwrap_or_default();
            traits.bedrock = found.traits.clone();
        }
        name = match foundation.split_once('.') {
            Some(("anthropic" | "openai", model)) => model,
            _ => foundation,
        };
    }
    if let Some(found) = first(&FAMILIES.claude, name) {
        traits.family = Family::Claude;
        traits.claude = found.traits.clone();
    } else if let Some(found) = first(&FAMILIES.google, name) {
        traits.family = found.family.unwrap_or(Family::Gemini);
        traits.gemini = found.traits.clone();
    } else if let Some(found) = first(&FAMILIES.openai, name).filter(|_| provider != "gcp") {
        traits.family = found.family.unwrap_or(Family::Gpt);
        traits.openai = found.traits.clone();
    } else if let Some(found) = first(&FAMILIES.vertex, name).filter(|_| provider == "gcp") {
        traits.family = found.family.unwrap_or_default();
    }
    traits
}

/// A Bedrock id without what stands before the model's own name: an ARN's front and the geography of a profile.
pub fn foundation_model(id: &str) -> &str {
    let id = id.rsplit_once('/').map_or(id, |(_, last)| last);
    match id.split_once('.') {
        Some((geography, model)) if GEOGRAPHIES.contains(&geography) => model,
        _ => id,
    }
}

fn first<'f, T>(patterns: &'f [Pattern<T>], name: &str) -> Option<&'f Pattern<T>> {
    patterns
        .iter()
        .find(|pattern| pattern.r#match.iter().any(|pattern| matches(pattern, name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::model::{
        BedrockEmbedding, BedrockReasoning, ClaudeThinking, Effort, ForcedTool, GeminiGeneration, GeminiThinking,
        OpenAiEndpoint, TakesSampling, ThinksUnasked, VertexEmbeddingMethod,
    };
    use crate::routing::catalog_file::{self, Mode};

    #[test]
    fn a_claude_model_is_the_same_model_under_the_names_of_every_host() {
        let direct = traits_of("anthropic", "claude-sonnet-4-5").claude;
        for (provider, name) in [
            ("anthropic", "claude-sonnet-4-5-20250929"),
            ("aws", "global.anthropic.claude-sonnet-4-5-20250929-v1:0"),
            ("aws", "anthropic.claude-sonnet-4-5-20250929-v1:0"),
            (
                "aws",
                "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            ),
            ("gcp", "claude-sonnet-4-5@20250929"),
            ("azure", "claude-sonnet-4-5"),
        ] {
            let traits = traits_of(provider, name);
            assert_eq!(traits.family, Family::Claude, "{provider}/{name}");
            assert_eq!(traits.claude, direct, "{provider}/{name}");
        }
    }

    /// The table of Anthropic's restrictions, row by row.
    #[test]
    fn every_claude_has_the_restrictions_of_its_own_row() {
        use ClaudeThinking::{Adaptive, Disabled, Enabled};
        use ForcedTool::{Never, UnlessThinkingEnabled, Yes};
        use ThinksUnasked::{Always, No, Yes as On};
        let all = "low medium high xhigh max";
        type Row = (
            &'static str,
            &'static [ClaudeThinking],
            ThinksUnasked,
            &'static str,
            bool,
            ForcedTool,
            bool,
        );
        let rows: &[Row] = &[
            (
                "claude-haiku-4-5",
                &[Disabled, Enabled],
                No,
                "",
                true,
                UnlessThinkingEnabled,
                true,
            ),
            (
                "claude-sonnet-4-5",
                &[Disabled, Enabled],
                No,
                "",
                true,
                UnlessThinkingEnabled,
                true,
            ),
            (
                "claude-opus-4-5",
                &[Disabled, Enabled],
                No,
                "low medium high",
                true,
                UnlessThinkingEnabled,
                true,
            ),
            (
                "claude-sonnet-4-6",
                &[Disabled, Adaptive, Enabled],
                No,
                "low medium high max",
                true,
                UnlessThinkingEnabled,
                false,
            ),
            (
                "claude-opus-4-6-v1",
                &[Disabled, Adaptive, Enabled],
                No,
                "low medium high max",
                true,
                UnlessThinkingEnabled,
                false,
            ),
            ("claude-opus-4-7", &[Disabled, Adaptive], No, all, false, Yes, false),
            ("claude-opus-4-8", &[Disabled, Adaptive], No, all, false, Yes, false),
            ("claude-sonnet-5", &[Disabled, Adaptive], On, all, false, Yes, false),
            ("claude-opus-5", &[Disabled, Adaptive], On, all, false, Yes, false),
            ("claude-haiku-5-5", &[Disabled, Adaptive], On, all, false, Yes, false),
            ("claude-sonnet-5-5", &[Adaptive], Always, all, false, Never, false),
            ("claude-opus-5-5", &[Adaptive], Always, all, false, Never, false),
            ("claude-fable-5", &[Adaptive], Always, all, false, Yes, false),
            ("claude-fable-5-1", &[Adaptive], Always, all, false, Never, false),
            ("claude-fable-5-2", &[Adaptive], Always, all, false, Never, false),
            // Nobody has described this one: it follows the newest.
            ("claude-opus-7", &[Adaptive], Always, all, false, Never, false),
        ];
        for (name, thinking, unasked, efforts, sampling, forced, prefill) in rows {
            let traits = traits_of("anthropic", name).claude;
            let listed: Vec<&str> = traits.efforts.iter().map(|effort| effort.as_str()).collect();
            assert_eq!(traits.thinking, *thinking, "{name}");
            assert_eq!(traits.thinks_unasked, *unasked, "{name}");
            assert_eq!(listed.join(" "), *efforts, "{name}");
            assert_eq!(traits.sampling_params, *sampling, "{name}");
            assert_eq!(traits.forced_tool, *forced, "{name}");
            assert_eq!(traits.prefill, *prefill, "{name}");
            assert!(traits.structured_output, "{name}");
        }
        let limit = |name| traits_of("anthropic", name).claude.disabled_up_to_effort;
        assert_eq!(limit("claude-opus-5"), Some(Effort::High));
        assert_eq!(limit("claude-opus-4-8"), None);
    }

    #[test]
    fn gemini_is_told_to_think_as_its_generation_wants() {
        let thinking = |name| traits_of("gcp", name).gemini.thinking;
        let GeminiThinking::Budget(flash) = thinking("gemini-2.5-flash") else {
            panic!("2.5 has a budget")
        };
        assert!(flash.can_be_off && flash.thinks_unasked);
        let GeminiThinking::Budget(lite) = thinking("gemini-2.5-flash-lite") else {
            panic!("2.5 has a budget")
        };
        assert_eq!((lite.min_tokens, lite.thinks_unasked), (512, false));
        let GeminiThinking::Budget(pro) = thinking("gemini-2.5-pro") else {
            panic!("2.5 has a budget")
        };
        assert_eq!((pro.min_tokens, pro.max_tokens, pro.can_be_off), (128, 32_768, false));
        let from_minimal = vec![Effort::Minimal, Effort::Low, Effort::Medium, Effort::High];
        assert_eq!(
            thinking("gemini-3.8-flash"),
            GeminiThinking::Levels(from_minimal.clone())
        );
        assert_eq!(thinking("gemini-3-flash-preview"), GeminiThinking::Levels(from_minimal));
        assert_eq!(
            thinking("gemini-3.1-pro-preview"),
            GeminiThinking::Levels(vec![Effort::Low, Effort::Medium, Effort::High])
        );
        assert_eq!(
            thinking("gemini-3-pro-preview"),
            GeminiThinking::Levels(vec![Effort::Low, Effort::High])
        );
        let newest = traits_of("gemini", "gemini-4-argon").gemini;
        assert_eq!(newest.generation, GeminiGeneration::V4);
        assert_eq!(traits_of("gemini", "gemini-9-xenon").gemini, newest);
    }

    #[test]
    fn gemini_ignores_sampling_from_the_models_on_that_announced_it() {
        let takes = |name| traits_of("gcp", name).gemini.sampling_params;
        assert!(takes("gemini-3.5-flash") && takes("gemini-3.1-flash-lite") && takes("gemini-2.5-pro"));
        assert!(!takes("gemini-3.5-flash-lite") && !takes("gemini-3.6-flash") && !takes("gemini-3.8-flash"));
    }

    #[test]
    fn google_embeds_by_two_methods() {
        let method = |name| {
            let traits = traits_of("gcp", name);
            assert_eq!(traits.family, Family::GoogleEmbedding);
            traits.gemini.embedding.vertex_method
        };
        assert_eq!(method("text-embedding-005"), VertexEmbeddingMethod::Predict);
        assert_eq!(method("gemini-embedding-001"), VertexEmbeddingMethod::Predict);
        assert_eq!(method("gemini-embedding-2"), VertexEmbeddingMethod::EmbedContent);
        // The same name stands for another model at OpenAI.
        assert_eq!(traits_of("openai", "text-embedding-3-small").family, Family::Gpt);
    }

    #[test]
    fn bedrock_families_are_told_apart_below_their_geography() {
        let family = |name| traits_of("aws", name).family;
        assert_eq!(family("us.amazon.nova-pro-v1:0"), Family::Nova);
        assert_eq!(family("global.amazon.nova-2-lite-v1:0"), Family::Nova2);
        assert_eq!(family("us.meta.llama3-3-70b-instruct-v1:0"), Family::Llama);
        assert_eq!(family("us.deepseek.r1-v1:0"), Family::DeepSeek);
        assert_eq!(family("openai.gpt-oss-120b-1:0"), Family::GptOss);
        assert_eq!(family("global.openai.gpt-6.1-sol"), Family::Gpt);
        assert_eq!(
            family("us-gov.anthropic.claude-sonnet-4-5-20250929-v1:0"),
            Family::Claude
        );
        assert_eq!(
            family("arn:aws:bedrock:us-east-1:1:application-inference-profile/abc"),
            Family::Other
        );
        assert_eq!(family("nobody.knows-this-v1:0"), Family::Other);
    }

    #[test]
    fn bedrock_models_are_given_only_what_they_take() {
        let bedrock = |name| traits_of("aws", name).bedrock;
        let llama = bedrock("us.meta.llama3-3-70b-instruct-v1:0");
        assert!(llama.tools && !llama.tools_while_streaming && !llama.cache_points && !llama.images);
        assert!(bedrock("us.meta.llama4-scout-17b-instruct-v1:0").images);
        assert!(!bedrock("amazon.nova-micro-v1:0").images);
        assert!(bedrock("amazon.nova-micro-v1:0").cache_points);
        assert!(!bedrock("us.deepseek.r1-v1:0").tools);
        assert_eq!(bedrock("deepseek.v3.2").reasoning, BedrockReasoning::ReasoningEffort);
        assert_eq!(bedrock("global.openai.gpt-6-astra").min_max_tokens, 16);
        assert!(!bedrock("mistral.mistral-7b-instruct-v0:2").system_prompt);
        assert_eq!(
            [
                "amazon.titan-embed-text-v1",
                "amazon.titan-embed-text-v2:0",
                "cohere.embed-english-v3",
                "us.cohere.embed-v4:0",
                "amazon.nova-2-multimodal-embeddings-v1:0",
                "amazon.nova-pro-v1:0",
            ]
            .map(|name| bedrock(name).embedding),
            [
                Some(BedrockEmbedding::TitanV1),
                Some(BedrockEmbedding::TitanV2),
                Some(BedrockEmbedding::CohereV3),
                Some(BedrockEmbedding::CohereV4),
                Some(BedrockEmbedding::Nova),
                None,
            ]
        );
    }

    #[test]
    fn openai_models_reason_or_sample() {
        let openai = |name| traits_of("openai", name).openai;
        assert!(!openai("gpt-4o-mini").reasoning);
        assert_eq!(openai("gpt-4.1").sampling_params, TakesSampling::Always);
        assert!(openai("o3").reasoning && !openai("o3").stop);
        assert_eq!(openai("gpt-5").sampling_params, TakesSampling::Never);
        assert_eq!(openai("gpt-5.4-mini").sampling_params, TakesSampling::WithoutReasoning);
        assert!(openai("gpt-6-sol").efforts.contains(&Effort::None));
        for name in ["gpt-6-astra", "gpt-6.1-sol", "gpt-6.2-sol", "gpt-9"] {
            let efforts = openai(name).efforts;
            assert!(
                !efforts.contains(&Effort::None) && !efforts.contains(&Effort::Minimal),
                "{name}"
            );
        }
        assert_eq!(openai("gpt-5.4-pro").endpoints, [OpenAiEndpoint::Responses]);
        assert_eq!(
            openai("gpt-3.5-turbo-instruct").endpoints,
            [OpenAiEndpoint::Completions]
        );
        assert_eq!(traits_of("azure", "gpt-5.4").openai, openai("gpt-5.4"));
    }

    #[test]
    fn a_model_nobody_knows_has_the_defaults() {
        assert_eq!(traits_of("openrouter", "someone/something"), ModelTraits::default());
    }

    /// Two files say something about one model and must not contradict each other. They need not say the same: a row
    /// tells people what a model can do at all, with the gateway's help or in a cache of its own; a trait tells an
    /// adapter what the provider takes.
    #[test]
    fn every_listed_model_has_a_family_whose_traits_do_not_contradict_its_row() {
        let mut wrong = Vec::new();
        for file in catalog_file::all().filter(|file| file.provider != "echo") {
            for row in &file.models {
                let traits = traits_of(&file.provider, &row.name);
                let mut check = |what: &str, said: Option<bool>, trait_says: bool| {
                    if said.is_some_and(|said| said != trait_says) {
                        wrong.push(format!(
                            "{}/{}: {what} is {trait_says} in its family",
                            file.provider, row.name
                        ));
                    }
                };
                let known = row.capabilities;
                check("a family", Some(true), traits.family != Family::Other);
                if row.mode == Mode::Embedding {
                    let embeds = match file.provider.as_str() {
                        "aws" => traits.bedrock.embedding.is_some(),
                        "openai" | "azure" => traits.openai.endpoints == [OpenAiEndpoint::Embeddings],
                        _ => traits.family == Family::GoogleEmbedding,
                    };
                    check("embedding", Some(true), embeds);
                    continue;
                }
                match traits.family {
                    Family::Claude => {
                        check("sampling", known.sampling_params, traits.claude.sampling_params);
                    }
                    Family::Gemini => {
                        check("sampling", known.sampling_params, traits.gemini.sampling_params);
                        check(
                            "reasoning",
                            known.reasoning,
                            traits.gemini.thinking != GeminiThinking::Unsupported,
                        );
                    }
                    Family::Gpt => {
                        check("reasoning", known.reasoning, traits.openai.reasoning);
                        check("tools", known.tools.filter(|&said| said), traits.openai.tools);
                        let chat = traits.openai.endpoints.contains(&OpenAiEndpoint::ChatCompletions);
                        check("chat", Some(row.mode == Mode::Chat), chat);
                    }
                    _ => {}
                }
                if file.provider == "aws" {
                    check("tools", known.tools, traits.bedrock.tools);
                    check("vision", known.vision.filter(|&said| said), traits.bedrock.images);
                    if traits.bedrock.cache_points {
                        check("prompt_cache", known.prompt_cache, true);
                    }
                    if traits.bedrock.structured_output {
                        check("json_schema", known.json_schema, true);
                    }
                }
            }
        }
        assert_eq!(wrong, [""; 0], "{wrong:#?}");
    }
}
