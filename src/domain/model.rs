//! What an adapter has to know of a model before it can ask it: the traits.
//!
//! Models of one provider accept different things: one refuses `temperature`, another thinks always, a third has no
//! tools while streaming. These differences are data (`config/catalog/families.toml`), not code, and this module is
//! their shape. A trait says what the *provider* accepts; what a caller may do is a matter of scopes and rules.
//!
//! Every struct has a default, and the default is what is assumed of a model nobody has described: for Claude and Gemini
//! the newest known generation, since new models follow the last ones; for Bedrock only what every family takes.

use serde::Deserialize;

/// Everything an adapter has to know of a model.
///
/// [`family`](Self::family) says whose body it takes; the part of the same name is then the one to read. The other
/// parts hold defaults. A Claude model on Bedrock has both [`claude`](Self::claude) and [`bedrock`](Self::bedrock)
/// filled, an OpenAI model there [`openai`](Self::openai) and `bedrock`.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ModelTraits {
    /// Who made the model, as far as that changes how it is asked.
    pub family: Family,
    /// For [`Family::Claude`], wherever it is hosted.
    pub claude: ClaudeTraits,
    /// For [`Family::Gemini`] and Google's embedding models.
    pub gemini: GeminiTraits,
    /// For every model that is asked through Amazon Bedrock.
    pub bedrock: BedrockTraits,
    /// For [`Family::Gpt`], wherever it is hosted.
    pub openai: OpenAiTraits,
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

impl Capabilities {
    /// What is said here, and where nothing is, what `other` says.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            vision: self.vision.or(other.vision),
            tools: self.tools.or(other.tools),
            json_schema: self.json_schema.or(other.json_schema),
            reasoning: self.reasoning.or(other.reasoning),
            prompt_cache: self.prompt_cache.or(other.prompt_cache),
            sampling_params: self.sampling_params.or(other.sampling_params),
        }
    }
}

/// Models that are asked alike.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// Anthropic's Claude.
    Claude,
    /// Google's Gemini.
    Gemini,
    /// Google's embedding models.
    GoogleEmbedding,
    /// OpenAI's hosted models.
    Gpt,
    /// OpenAI's open-weight models.
    GptOss,
    /// The first generation of Amazon Nova.
    Nova,
    /// The second generation of Amazon Nova, which reasons.
    #[serde(rename = "nova-2")]
    Nova2,
    /// Amazon's embedding models of the Nova line.
    NovaEmbedding,
    /// Amazon Titan.
    Titan,
    /// Meta's Llama.
    Llama,
    /// Mistral's models.
    Mistral,
    /// DeepSeek's models.
    #[serde(rename = "deepseek")]
    DeepSeek,
    /// Alibaba's Qwen.
    Qwen,
    /// Cohere's models.
    Cohere,
    /// AI21's models.
    Ai21,
    /// Nobody has said.
    #[default]
    Other,
}

/// How hard a model is asked to think. Ordered from least to most, so that what a model lacks can be rounded.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[serde(rename_all = "lowercase")]
pub enum Effort {
    /// Not at all.
    None,
    /// As good as not.
    Minimal,
    /// A little.
    Low,
    /// The usual amount.
    Medium,
    /// A lot.
    High,
    /// More than a lot.
    XHigh,
    /// Without restraint.
    Max,
}

impl Effort {
    /// Every level, least first.
    pub const ALL: [Self; 7] = [
        Self::None,
        Self::Minimal,
        Self::Low,
        Self::Medium,
        Self::High,
        Self::XHigh,
        Self::Max,
    ];

    /// The level of that name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|effort| effort.as_str() == name)
    }

    /// The text form, which OpenAI and Anthropic share.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::XHigh => "xhigh",
            Self::Max => "max",
        }
    }

    /// The member of `accepted` that comes closest: the same, else the next lower, else the lowest there is.
    ///
    /// Rounded down where possible, because thinking is billed.
    pub fn nearest(self, accepted: &[Self]) -> Option<Self> {
        let lower = accepted.iter().copied().filter(|&effort| effort <= self).max();
        lower.or_else(|| accepted.iter().copied().min())
    }
}

/// What a Claude model accepts. The default is the newest known generation.
///
/// Two limits hold for all of them and are therefore no data: while thinking is on, `temperature` other than 1 and
/// `top_k` are refused and `top_p` must be at least 0.95, and there is no prefill.
///
/// # Source
/// Anthropic, "Extended thinking", "Adaptive thinking", "Effort", "Models overview".
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(default, deny_unknown_fields)]
pub struct ClaudeTraits {
    /// Values of `thinking.type` it accepts. Empty: it cannot think, and `thinking` must be left out.
    pub thinking: Vec<ClaudeThinking>,
    /// Whether it thinks when `thinking` is left out.
    pub thinks_unasked: ThinksUnasked,
    /// Values of `output_config.effort` it accepts. Empty: the member must be left out.
    pub efforts: Vec<Effort>,
    /// The highest effort that `thinking.type = "disabled"` may be combined with; `None`: any.
    pub disabled_up_to_effort: Option<Effort>,
    /// Whether `thinking.display` is `omitted` unless asked for.
    pub hides_thinking: bool,
    /// Whether thinking between tool calls needs the beta `interleaved-thinking-2025-05-14` beside `enabled`.
    pub interleaved_thinking_beta: bool,
    /// Whether it takes `temperature`, `top_p` and `top_k`.
    pub sampling_params: bool,
    /// Whether `tool_choice` may be `any` or `tool`.
    pub forced_tool: ForcedTool,
    /// Whether the conversation may end with an assistant message to be continued.
    pub prefill: bool,
    /// Whether it takes `output_config.format`.
    pub structured_output: bool,
    /// Whether a message may have `role: "system"`.
    pub mid_conversation_system: bool,
    /// Whether prompts can be cached for one hour.
    pub one_hour_cache: bool,
}

impl Default for ClaudeTraits {
    fn default() -> Self {
        Self {
            thinking: vec![ClaudeThinking::Adaptive],
            thinks_unasked: ThinksUnasked::Always,
            efforts: vec![Effort::Low, Effort::Medium, Effort::High, Effort::XHigh, Effort::Max],
            disabled_up_to_effort: None,
            hides_thinking: true,
            interleaved_thinking_beta: false,
            sampling_params: false,
            forced_tool: ForcedTool::Never,
            prefill: false,
            structured_output: true,
            mid_conversation_system: true,
            one_hour_cache: true,
        }
    }
}

impl ClaudeTraits {
    /// Whether `thinking.type` may be this.
    pub fn accepts(&self, thinking: ClaudeThinking) -> bool {
        self.thinking.contains(&thinking)
    }
}

/// A value of Anthropic's `thinking.type`.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[serde(rename_all = "snake_case")]
pub enum ClaudeThinking {
    /// Off.
    Disabled,
    /// On, within `budget_tokens`.
    Enabled,
    /// On, as the model sees fit, steered by effort.
    Adaptive,
}

/// Whether a model thinks when nobody mentions it.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[serde(rename_all = "snake_case")]
pub enum ThinksUnasked {
    /// No.
    No,
    /// Yes, and it can be turned off.
    Yes,
    /// Yes, and it cannot be turned off: `disabled` and `enabled` are both refused.
    Always,
}

/// Whether a model can be made to call a tool.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[serde(rename_all = "snake_case")]
pub enum ForcedTool {
    /// Yes, thinking or not.
    Yes,
    /// Yes, but not together with `thinking.type = "enabled"`.
    UnlessThinkingEnabled,
    /// No: `any` and `tool` are refused.
    Never,
}

/// What a model of Google accepts. The default is the newest known generation.
///
/// # Source
/// Google, "Thinking", "Thought signatures", "Gemini 3 developer guide", "GenerationConfig".
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(default, deny_unknown_fields)]
pub struct GeminiTraits {
    /// Which generation it belongs to.
    pub generation: GeminiGeneration,
    /// What goes into `thinkingConfig`.
    pub thinking: GeminiThinking,
    /// Whether `candidateCount` may be more than one (and never in a stream).
    pub several_candidates: bool,
    /// Whether function calls and responses are matched by an `id`.
    pub function_call_ids: bool,
    /// Whether a function call of the current turn without its `thoughtSignature` is refused.
    pub needs_thought_signatures: bool,
    /// Whether it takes `responseJsonSchema`, standard JSON Schema, beside the narrow `responseSchema`.
    pub json_schema: bool,
    /// Whether it takes `responseLogprobs`.
    pub logprobs: bool,
    /// Whether it takes `presencePenalty` and `frequencyPenalty`.
    pub penalties: bool,
    /// Whether it takes `temperature`, `topP` and `topK`.
    pub sampling_params: bool,
    /// Whether function declarations may stand beside Google's own tools such as `googleSearch`.
    pub mixed_tools: bool,
    /// Whether it draws: `responseModalities` may have `IMAGE`.
    pub image_output: bool,
    /// Whether it speaks: `responseModalities` may have `AUDIO`.
    pub audio_output: bool,
    /// How it embeds, for [`Family::GoogleEmbedding`].
    pub embedding: GoogleEmbedding,
}

impl Default for GeminiTraits {
    fn default() -> Self {
        Self {
            generation: GeminiGeneration::V4,
            thinking: GeminiThinking::Levels(vec![Effort::Low, Effort::Medium, Effort::High]),
            several_candidates: false,
            function_call_ids: true,
            needs_thought_signatures: true,
            json_schema: true,
            logprobs: false,
            penalties: false,
            sampling_params: false,
            mixed_tools: true,
            image_output: false,
            audio_output: false,
            embedding: GoogleEmbedding::default(),
        }
    }
}

/// A generation of Gemini; ordered, so that "3 and later" can be written as a comparison.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum GeminiGeneration {
    /// 2.0 and before.
    #[serde(rename = "2")]
    V2,
    /// 2.5.
    #[serde(rename = "2.5")]
    V2_5,
    /// 3.x.
    #[serde(rename = "3")]
    V3,
    /// 4 and later.
    #[serde(rename = "4")]
    V4,
}

/// How a Gemini model is told to think. A level and a budget together are refused.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "snake_case")]
pub enum GeminiThinking {
    /// It does not think, and `thinkingConfig` is refused.
    Unsupported,
    /// By `thinkingBudget`, in tokens.
    Budget(ThinkingBudget),
    /// By `thinkingLevel`; these are the levels it knows. [`Effort::Minimal`] is nearly off, nothing is fully off.
    Levels(Vec<Effort>),
}

/// The tokens a model may be given to think with.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub struct ThinkingBudget {
    /// The smallest budget above zero.
    pub min_tokens: u32,
    /// The largest.
    pub max_tokens: u32,
    /// Whether zero turns thinking off.
    pub can_be_off: bool,
    /// Whether it thinks when no budget is given.
    pub thinks_unasked: bool,
}

/// How a Google model embeds.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(default, deny_unknown_fields)]
pub struct GoogleEmbedding {
    /// The method on Vertex AI; the Gemini Developer API has `embedContent` for all.
    pub vertex_method: VertexEmbeddingMethod,
    /// Texts that one call of that method may hold.
    pub texts_per_call: u32,
    /// Whether shortened vectors come with unit length, which OpenAI's callers expect.
    pub normalises_shortened: bool,
}

impl Default for GoogleEmbedding {
    fn default() -> Self {
        Self {
            vertex_method: VertexEmbeddingMethod::EmbedContent,
            texts_per_call: 1,
            normalises_shortened: true,
        }
    }
}

/// A method of Vertex AI that embeds.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[serde(rename_all = "snake_case")]
pub enum VertexEmbeddingMethod {
    /// `:predict`.
    Predict,
    /// `:embedContent`.
    EmbedContent,
}

/// What Amazon Bedrock accepts for a model. The default is what every family takes, and no more.
///
/// # Source
/// AWS, "Supported models and model features" of the Converse API and the model parameter pages.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(default, deny_unknown_fields)]
pub struct BedrockTraits {
    /// Whether it takes `system`. Where not, the text belongs in front of the first user text.
    pub system_prompt: bool,
    /// Whether it takes `toolConfig`.
    pub tools: bool,
    /// Whether it takes `toolConfig` in ConverseStream. Where not: ask Converse and replay its answer as a stream.
    pub tools_while_streaming: bool,
    /// Whether `toolChoice` may be `any` or `tool`. For Claude, [`ClaudeTraits::forced_tool`] holds as well.
    pub forced_tool: bool,
    /// Whether it takes images.
    pub images: bool,
    /// Whether it takes documents.
    pub documents: bool,
    /// Whether it takes videos.
    pub videos: bool,
    /// Whether it takes `cachePoint`; others answer 400 to one.
    pub cache_points: bool,
    /// Whether it takes `outputConfig.textFormat`.
    pub structured_output: bool,
    /// How it is told to reason.
    pub reasoning: BedrockReasoning,
    /// The smallest `maxTokens` it accepts.
    pub min_max_tokens: u32,
    /// The body it takes for embeddings; `None`: it does not embed.
    pub embedding: Option<BedrockEmbedding>,
}

impl Default for BedrockTraits {
    fn default() -> Self {
        Self {
            system_prompt: true,
            tools: false,
            tools_while_streaming: false,
            forced_tool: false,
            images: false,
            documents: false,
            videos: false,
            cache_points: false,
            structured_output: false,
            reasoning: BedrockReasoning::Unsupported,
            min_max_tokens: 1,
            embedding: None,
        }
    }
}

/// Where a model on Bedrock takes its reasoning effort.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[serde(rename_all = "snake_case")]
pub enum BedrockReasoning {
    /// Nowhere. It does not reason, or it always does and refuses to hear of it.
    Unsupported,
    /// In `thinking` and `outputConfig.effort`, within [`ClaudeTraits`].
    Claude,
    /// In `reasoningConfig.maxReasoningEffort`, `low` to `high`; with `high`, no sampling and no `maxTokens`.
    ReasoningConfig,
    /// In `reasoning_effort`.
    ReasoningEffort,
    /// In `reasoning.effort`.
    ReasoningObject,
}

/// The body an embedding model on Bedrock takes.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum BedrockEmbedding {
    /// `{"inputText"}`, one text a call.
    TitanV1,
    /// `{"inputText","dimensions","normalize","embeddingTypes"}`, one text a call.
    TitanV2,
    /// `{"inputText","inputImage","embeddingConfig"}`, one text a call.
    TitanImage,
    /// `{"texts","input_type",…}`, without a choice of dimensions.
    CohereV3,
    /// As v3, with `output_dimension`.
    CohereV4,
    /// `{"schemaVersion","taskType","singleEmbeddingParams"}`, one text a call.
    Nova,
}

impl BedrockEmbedding {
    /// Texts that one call may hold.
    pub fn texts_per_call(self) -> usize {
        match self {
            Self::TitanV1 | Self::TitanV2 | Self::TitanImage | Self::Nova => 1,
            Self::CohereV3 | Self::CohereV4 => 96,
        }
    }
}

/// What a model of OpenAI accepts. The default is a model that does not reason, which takes everything there was before.
///
/// # Source
/// OpenAI, "Reasoning models", "Create chat completion" and the pages of the models.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(default, deny_unknown_fields)]
pub struct OpenAiTraits {
    /// Whether it reasons: then `max_tokens` is refused and `max_completion_tokens` takes its place.
    pub reasoning: bool,
    /// Values of `reasoning_effort` it accepts. Empty: the field must be left out.
    pub efforts: Vec<Effort>,
    /// When it takes `temperature`, `top_p`, the penalties and log probabilities.
    pub sampling_params: TakesSampling,
    /// Whether it takes `stop`.
    pub stop: bool,
    /// Whether it takes `tools`.
    pub tools: bool,
    /// Whether it takes and gives audio.
    pub audio: bool,
    /// Where it can be asked.
    pub endpoints: Vec<OpenAiEndpoint>,
}

impl Default for OpenAiTraits {
    fn default() -> Self {
        Self {
            reasoning: false,
            efforts: Vec::new(),
            sampling_params: TakesSampling::Always,
            stop: true,
            tools: true,
            audio: false,
            endpoints: vec![OpenAiEndpoint::ChatCompletions],
        }
    }
}

/// When a model takes sampling parameters.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[serde(rename_all = "snake_case")]
pub enum TakesSampling {
    /// Always.
    Always,
    /// While it is told not to reason, `reasoning_effort: "none"`.
    WithoutReasoning,
    /// Never: only the default values are accepted.
    Never,
}

/// An endpoint of OpenAI's.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[serde(rename_all = "snake_case")]
pub enum OpenAiEndpoint {
    /// `/v1/chat/completions`.
    ChatCompletions,
    /// `/v1/responses`.
    Responses,
    /// `/v1/completions`.
    Completions,
    /// `/v1/embeddings`.
    Embeddings,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_effort_a_model_lacks_is_rounded_down_and_never_below_what_there_is() {
        let without_xhigh = [Effort::Low, Effort::Medium, Effort::High, Effort::Max];
        assert_eq!(Effort::XHigh.nearest(&without_xhigh), Some(Effort::High));
        assert_eq!(Effort::Max.nearest(&without_xhigh), Some(Effort::Max));
        assert_eq!(Effort::None.nearest(&without_xhigh), Some(Effort::Low));
        assert_eq!(Effort::High.nearest(&[]), None);
    }

    #[test]
    fn what_nobody_has_described_is_treated_as_the_newest_claude_and_the_plainest_bedrock_model() {
        let traits = ModelTraits::default();
        assert_eq!(traits.family, Family::Other);
        assert!(!traits.claude.accepts(ClaudeThinking::Disabled));
        assert!(traits.claude.accepts(ClaudeThinking::Adaptive));
        assert!(!traits.bedrock.tools);
    }
}
