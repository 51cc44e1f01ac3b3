//! The conversation in no provider's words: what a request means once its dialect is left behind.
//!
//! Only a request that must be *translated* becomes one; between two sides of the same dialect the caller's bytes are
//! forwarded and nothing here is built. A dialect's reader (`chat::openai::read`, …) makes a conversation, an adapter
//! writes it in its provider's words. What a reader does not understand is kept in [`Conversation::given`], so that it can
//! be reported as dropped: nothing is lost in silence.
//!
//! The shape follows the strictest provider: turns alternate, results of tools stand in the user's turn directly after the
//! calls, and system text stands apart. [`super::history`] brings any history into that shape.

use std::fmt;

use serde_json::Value;
use serde_json::value::RawValue;

use super::arguments;
use super::param::Given;
pub use crate::domain::model::Effort;

/// One request for an answer, in no provider's words.
#[derive(Clone, Default, Debug)]
pub struct Conversation {
    /// Instructions that stand before the first turn.
    pub system: Vec<Text>,
    /// The turns.
    pub turns: Vec<Turn>,
    /// The turns of further prompts, where a legacy completion has several: each is to be answered by itself.
    pub further_prompts: Vec<Vec<Turn>>,
    /// Functions the model may call.
    pub tools: Vec<Tool>,
    /// Whether it must call one; `None` where the caller did not say.
    pub tool_choice: Option<ToolChoice>,
    /// Whether it may call several at once; `None` where the caller did not say.
    pub parallel_tool_calls: Option<bool>,
    /// Numbers that steer the answer.
    pub sampling: Sampling,
    /// The caller's ceiling on generated tokens, reasoning included.
    pub max_output_tokens: Option<u64>,
    /// Texts that end the answer. None is empty.
    pub stop: Vec<String>,
    /// The form of the answer.
    pub format: Format,
    /// Kinds of output, in OpenAI's words (`text`, `image`, `audio`); empty where the caller did not say.
    pub modalities: Vec<String>,
    /// How much the model should think first; `None` where the caller did not say.
    pub reasoning: Option<Reasoning>,
    /// Who the caller's end user is, as an opaque id.
    pub user: Option<String>,
    /// Names and values to file the call under.
    pub metadata: Vec<(String, String)>,
    /// The provider's processing tier, in OpenAI's words (`auto`, `default`, `flex`, `priority`).
    pub service_tier: Option<String>,
    /// Where the whole prompt should be cached, if the caller left the place to the provider (Anthropic's top-level mark).
    pub cache: Option<CacheMark>,
    /// Every parameter the caller gave that means something. What an adapter does not take of it, it drops.
    pub given: Given,
}

/// Who speaks in a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Instructions in the middle of a conversation.
    System,
    /// The user, and the results of tools.
    User,
    /// The model.
    Assistant,
}

/// One turn.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Who speaks.
    pub role: Role,
    /// What is said, in order.
    pub parts: Vec<Part>,
}

/// A piece of a turn.
#[derive(Clone, Debug)]
pub enum Part {
    /// Text.
    Text(Text),
    /// A picture, a document or a recording.
    Media(Media),
    /// The model calls a tool.
    Call(ToolCall),
    /// A tool has answered.
    Result(ToolResult),
    /// The model thought.
    Thinking(Thinking),
}

/// A text.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Text {
    /// What it says.
    pub text: String,
    /// Whether the prompt should be cached up to here.
    pub cache: Option<CacheMark>,
    /// What a provider wants to see again with this text.
    pub signature: Option<Signature>,
}

impl Text {
    /// A text without marks.
    pub fn plain(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }

    /// Whether it holds nothing but white space, which several providers refuse.
    pub fn is_blank(&self) -> bool {
        self.text.trim().is_empty()
    }
}

/// The end of a stretch of the prompt that should be cached.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum CacheMark {
    /// For five minutes.
    #[default]
    FiveMinutes,
    /// For an hour.
    OneHour,
}

/// A picture, a document or a recording.
#[derive(Clone, Debug)]
pub struct Media {
    /// What it is.
    pub kind: MediaKind,
    /// Where its bytes are.
    pub source: MediaSource,
    /// Its file name or title, if it has one.
    pub name: Option<String>,
    /// OpenAI's `detail` of a picture.
    pub detail: Option<String>,
    /// Whether the prompt should be cached up to here.
    pub cache: Option<CacheMark>,
    /// Where it stands in the request, for errors.
    pub place: Place,
}

/// What a medium is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MediaKind {
    /// A picture.
    Image,
    /// A PDF or a text.
    Document,
    /// A recording.
    Audio,
}

/// Where a medium's bytes are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MediaSource {
    /// In the request, in standard base64 with padding.
    Base64 {
        /// Such as `image/png`.
        media_type: String,
        /// The bytes. Checked to be base64 by the reader.
        data: String,
    },
    /// A document that is plain text.
    Text(String),
    /// At an address. Providers that cannot fetch it get the bytes from us.
    Url(String),
    /// At the provider, under an id that only it understands.
    FileId(String),
}

/// The model calls a tool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ToolCall {
    /// Connects it with its result.
    pub id: String,
    /// The tool.
    pub name: String,
    /// A JSON object as text. What is not one is wrapped by the reader.
    pub arguments: String,
    /// What a provider wants to see again with this call.
    pub signature: Option<Signature>,
    /// Whether the prompt should be cached up to here.
    pub cache: Option<CacheMark>,
}

impl ToolCall {
    /// The arguments as they go into a document: byte for byte.
    pub fn embedded_arguments(&self) -> &RawValue {
        arguments::embedded(&self.arguments)
    }
}

/// A tool has answered.
#[derive(Clone, Debug)]
pub struct ToolResult {
    /// The call it answers.
    pub id: String,
    /// The tool, where the history tells.
    pub name: Option<String>,
    /// What it said: texts and media.
    pub content: Vec<Part>,
    /// Whether it failed.
    pub is_error: bool,
    /// Whether the prompt should be cached up to here.
    pub cache: Option<CacheMark>,
}

/// The model thought.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Thinking {
    /// In words. They must go back unchanged with their signature.
    Words {
        /// The words.
        text: String,
        /// Proves that they are the model's own; without it they cannot go back to most providers.
        signature: Option<Signature>,
    },
    /// Encrypted by the provider.
    Redacted {
        /// The provider's own encoding.
        data: String,
        /// Whose it is.
        issuer: Issuer,
    },
}

/// A value that proves to a provider that something in the history is its own model's work.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signature {
    /// The value, in the provider's own encoding.
    pub value: String,
    /// Whose it is. Nobody else can read it.
    pub issuer: Issuer,
}

/// Whose models understand a signature.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Issuer {
    /// Claude, whoever hosts it.
    Anthropic,
    /// Gemini.
    Google,
    /// Other models on Bedrock.
    Bedrock,
}

impl Issuer {
    /// The name it travels under in histories.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::Google => "google",
            Self::Bedrock => "bedrock",
        }
    }

    /// The issuer of that name.
    pub fn of(name: &str) -> Option<Self> {
        [Self::Anthropic, Self::Google, Self::Bedrock]
            .into_iter()
            .find(|issuer| issuer.as_str() == name)
    }
}

/// A function the model may call.
#[derive(Clone, PartialEq, Debug)]
pub struct Tool {
    /// `[A-Za-z0-9_-]{1,64}` at OpenAI; adapters rewrite names their provider would refuse.
    pub name: String,
    /// What it does. Never empty.
    pub description: Option<String>,
    /// JSON Schema of its arguments, keys in the caller's order; `None` where it has none.
    pub parameters: Option<Value>,
    /// Whether arguments must follow the schema exactly.
    pub strict: Option<bool>,
    /// Whether it takes a free text instead of arguments: OpenAI's custom tools. Its one parameter is called `input`.
    pub free_text: bool,
    /// Whether the prompt should be cached up to here.
    pub cache: Option<CacheMark>,
}

/// Whether the model must call a tool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToolChoice {
    /// It decides.
    Auto,
    /// It must not.
    None,
    /// It must call one.
    Required,
    /// It must call this one.
    Named(String),
    /// It may (or, where `required`, must) call one of these and no other.
    Allowed {
        /// Their names.
        names: Vec<String>,
        /// Whether it must.
        required: bool,
    },
}

/// Numbers that steer the answer; `None` where the caller did not say.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Sampling {
    /// 0 to 2, as OpenAI counts.
    pub temperature: Option<f64>,
    /// 0 to 1.
    pub top_p: Option<f64>,
    /// How many tokens are looked at; not part of OpenAI's dialect, but widely sent.
    pub top_k: Option<u64>,
    /// -2 to 2.
    pub frequency_penalty: Option<f64>,
    /// -2 to 2.
    pub presence_penalty: Option<f64>,
    /// For answers that can be had again.
    pub seed: Option<i64>,
    /// How many answers; never 0, and 1 unless the caller said otherwise.
    pub choices: Option<u32>,
    /// Whether the probability of each token is wanted.
    pub logprobs: bool,
    /// Of how many alternatives, 0 to 20.
    pub top_logprobs: Option<u32>,
}

/// The form of the answer.
#[derive(Clone, PartialEq, Default, Debug)]
pub enum Format {
    /// Any text.
    #[default]
    Text,
    /// Some JSON object.
    JsonObject,
    /// JSON that follows a schema.
    JsonSchema {
        /// What the caller calls it.
        name: String,
        /// What it is for.
        description: Option<String>,
        /// The schema, keys in the caller's order.
        schema: Value,
        /// Whether it must be followed exactly; `None` where the caller did not say.
        strict: Option<bool>,
    },
}

/// How much the model should think first.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Reasoning {
    /// In words.
    pub effort: Option<Effort>,
    /// In tokens.
    pub budget_tokens: Option<u64>,
    /// Whether at all, where the caller said so in Anthropic's words.
    pub mode: Option<ThinkingMode>,
    /// Whether the thoughts themselves are wanted; `None` where the caller did not say.
    pub show: Option<bool>,
}

/// Anthropic's kinds of thinking.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ThinkingMode {
    /// Off.
    Disabled,
    /// On, with a budget.
    Enabled,
    /// The model decides.
    Adaptive,
    /// Only between calls of tools.
    BetweenTools,
}

/// Where something stands in the caller's `messages`, for errors.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Place {
    /// The message.
    pub message: usize,
    /// The part of its content.
    pub part: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "messages[{}].content[{}]", self.message, self.part)
    }
}

impl Conversation {
    /// Every medium in the conversation, those inside results of tools included.
    pub fn media_mut(&mut self) -> impl Iterator<Item = &mut Media> {
        self.turns
            .iter_mut()
            .flat_map(|turn| &mut turn.parts)
            .flat_map(Part::media_mut)
    }

    /// The same wishes for another prompt's turns.
    pub fn asking(&self, turns: &[Turn]) -> Self {
        Self {
            turns: turns.to_vec(),
            further_prompts: Vec::new(),
            ..self.clone()
        }
    }

    /// Whether the history holds calls of tools or their results.
    pub fn has_tool_history(&self) -> bool {
        let of_tools = |part: &Part| matches!(part, Part::Call(_) | Part::Result(_));
        self.turns.iter().flat_map(|turn| &turn.parts).any(of_tools)
    }
}

impl Part {
    /// A text without marks.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(Text::plain(text))
    }

    fn media_mut(&mut self) -> Vec<&mut Media> {
        match self {
            Self::Media(media) => vec![media],
            Self::Result(result) => result.content.iter_mut().flat_map(Self::media_mut).collect(),
            Self::Text(_) | Self::Call(_) | Self::Thinking(_) => Vec::new(),
        }
    }
}
