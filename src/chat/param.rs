//! The parameters of a request by name, and an account of what became of each.
//!
//! A reader lists every parameter that the caller gave and that means something (null and the default mean nothing). An
//! adapter takes those it can express. What is left over was dropped, and the caller is told: an adapter that forgets a
//! parameter reports it by that very fact.

use std::borrow::Cow;
use std::fmt;

/// No client drops so many parameters by mistake, and none has so long a name.
const MAX_SHOWN_NAMES: usize = 32;
const MAX_SHOWN_NAME_CHARS: usize = 64;

macro_rules! params {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),+ $(,)?) => {
        /// A parameter of a chat, named as in OpenAI's API reference, or in Anthropic's where OpenAI has none.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Param { $($(#[$doc])* $variant),+ }

        impl Param {
            /// Every parameter.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Its name.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    };
}

params! {
    /// Audio output.
    Audio = "audio",
    /// Where to cache the prompt, on parts, tools or the whole request. Not part of OpenAI's dialect.
    CacheControl = "cache_control",
    /// Penalty for frequent tokens.
    FrequencyPenalty = "frequency_penalty",
    /// Bias of single tokens.
    LogitBias = "logit_bias",
    /// Probabilities of tokens.
    Logprobs = "logprobs",
    /// Ceiling on generated tokens, under any of its names.
    MaxCompletionTokens = "max_completion_tokens",
    /// Names and values to file the call under.
    Metadata = "metadata",
    /// Kinds of output other than text.
    Modalities = "modalities",
    /// Number of answers.
    N = "n",
    /// Whether several tools may be called at once.
    ParallelToolCalls = "parallel_tool_calls",
    /// A text the answer will mostly repeat.
    Prediction = "prediction",
    /// Penalty for tokens that occurred.
    PresencePenalty = "presence_penalty",
    /// Groups requests for the provider's prompt cache.
    PromptCacheKey = "prompt_cache_key",
    /// How long the provider keeps the prompt.
    PromptCacheRetention = "prompt_cache_retention",
    /// How much to think, under any of its names (`reasoning_effort`, `thinking`, `output_config.effort`).
    ReasoningEffort = "reasoning_effort",
    /// The form of the answer.
    ResponseFormat = "response_format",
    /// For answers that can be had again.
    Seed = "seed",
    /// The processing tier.
    ServiceTier = "service_tier",
    /// Texts that end the answer.
    Stop = "stop",
    /// Whether the provider keeps the answer.
    Store = "store",
    /// Whether the answer comes in pieces.
    Stream = "stream",
    /// What a stream reports.
    StreamOptions = "stream_options",
    /// Randomness.
    Temperature = "temperature",
    /// Whether a tool must be called.
    ToolChoice = "tool_choice",
    /// Functions.
    Tools = "tools",
    /// How many tokens are looked at. Not part of OpenAI's dialect.
    TopK = "top_k",
    /// Alternatives of each token.
    TopLogprobs = "top_logprobs",
    /// Nucleus sampling.
    TopP = "top_p",
    /// The end user, under either of its names (`user`, `safety_identifier`).
    User = "user",
    /// How wordy the answer is.
    Verbosity = "verbosity",
    /// The provider's own web search.
    WebSearchOptions = "web_search_options",
}

impl Param {
    /// The parameter that a field of OpenAI's dialect stands for, under any of its names there.
    pub fn of_field(name: &str) -> Option<Self> {
        match name {
            "functions" => Some(Self::Tools),
            "function_call" => Some(Self::ToolChoice),
            "max_tokens" => Some(Self::MaxCompletionTokens),
            "safety_identifier" => Some(Self::User),
            "thinking" => Some(Self::ReasoningEffort),
            name => Self::ALL.iter().copied().find(|param| param.as_str() == name),
        }
    }

    /// Whether a value, as it is written, says what holds anyway.
    pub fn is_default(self, written: &str) -> bool {
        written == "null"
            || match self {
                Self::FrequencyPenalty | Self::PresencePenalty => written.parse() == Ok(0.0),
                Self::LogitBias | Self::Metadata => written.trim_matches(['{', '}']).trim().is_empty(),
                Self::Logprobs | Self::Store => written == "false",
                Self::N => written == "1",
                Self::ParallelToolCalls => written == "true",
                Self::ServiceTier => written == "\"auto\"",
                Self::TopLogprobs => written == "0",
                _ => false,
            }
    }
}

impl fmt::Display for Param {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the caller gave, under the caller's own names.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Given {
    known: Vec<(Param, Cow<'static, str>)>,
    unknown: Vec<String>,
}

impl Given {
    /// Notes a parameter under the name it has in this enum.
    pub fn note(&mut self, param: Param) {
        self.note_as(param, param.as_str());
    }

    /// Notes a parameter under the name the caller used for it.
    pub fn note_as(&mut self, param: Param, name: impl Into<Cow<'static, str>>) {
        let name = name.into();
        if !self.known.iter().any(|(_, known)| *known == name) {
            self.known.push((param, name));
        }
    }

    /// Notes a field nobody here knows.
    pub fn note_unknown(&mut self, name: impl Into<String>) {
        self.unknown.push(name.into());
    }

    /// Whether the parameter was given, under whatever name.
    pub fn has(&self, param: Param) -> bool {
        self.known.iter().any(|(known, _)| *known == param)
    }

    /// The caller's name for a parameter, to say that its value could not be taken as it is.
    pub fn name_of(&self, param: Param) -> String {
        let found = self.known.iter().find(|(known, _)| *known == param);
        found.map_or(param.as_str(), |(_, name)| name).to_owned()
    }

    /// The fields nobody here knows.
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }

    /// The known parameters with the caller's names for them.
    pub fn into_known(self) -> Vec<(Param, Cow<'static, str>)> {
        self.known
    }

    /// What was given and not taken, under the caller's names.
    pub fn without(&self, taken: &Taken) -> Dropped {
        let known = self.known.iter().filter(|(param, _)| !taken.has(*param));
        let mut names: Vec<String> = known.map(|(_, name)| name.clone().into_owned()).collect();
        names.extend(
            self.unknown
                .iter()
                .filter(|name| !taken.fields.contains(*name))
                .cloned(),
        );
        Dropped { names }
    }
}

/// What an adapter expressed of a request. The end of the stream and its form are the gateway's own business.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Taken {
    params: u64,
    fields: Vec<String>,
}

impl Default for Taken {
    fn default() -> Self {
        let mut taken = Self {
            params: 0,
            fields: Vec::new(),
        };
        taken.take(Param::Stream);
        taken.take(Param::StreamOptions);
        taken
    }
}

impl Taken {
    /// Notes that a parameter is expressed.
    pub fn take(&mut self, param: Param) {
        self.params |= 1 << param as u32;
    }

    /// Notes that it is not expressed after all.
    pub fn leave(&mut self, param: Param) {
        self.params &= !(1 << param as u32);
    }

    /// Notes that a field nobody here knows is passed on.
    pub fn take_field(&mut self, name: impl Into<String>) {
        self.fields.push(name.into());
    }

    /// Whether a parameter is expressed.
    pub fn has(&self, param: Param) -> bool {
        self.params & (1 << param as u32) != 0
    }
}

/// What could not be expressed, under the caller's names.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Dropped {
    names: Vec<String>,
}

impl Dropped {
    /// Whether nothing was dropped.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The names, in the order the caller gave them.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The names for a header or a comment, on one line: they are the caller's own text, so only so much of each and of all
    /// of them is repeated.
    pub fn shown(&self) -> String {
        let mut list = String::new();
        for (index, name) in self.names.iter().enumerate() {
            if index == MAX_SHOWN_NAMES {
                list.push_str(&format!(", and {} more", self.names.len() - index));
                break;
            }
            if index > 0 {
                list.push_str(", ");
            }
            list.extend(name.chars().filter(char::is_ascii_graphic).take(MAX_SHOWN_NAME_CHARS));
        }
        list
    }

    /// Adds a name: a part of a message rather than a parameter, such as `messages[2].name`.
    pub fn add(&mut self, name: impl Into<String>) {
        let name = name.into();
        if !self.names.contains(&name) {
            self.names.push(name);
        }
    }

    /// These, and others beside them.
    pub fn and(mut self, others: &Self) -> Self {
        others.names.iter().for_each(|name| self.add(name.as_str()));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_taken_is_dropped_under_the_callers_name() {
        let mut given = Given::default();
        given.note(Param::Seed);
        given.note_as(Param::MaxCompletionTokens, "max_tokens");
        given.note_unknown("x_own");
        let mut taken = Taken::default();
        assert_eq!(given.without(&taken).names(), ["seed", "max_tokens", "x_own"]);
        taken.take(Param::MaxCompletionTokens);
        taken.take_field("x_own");
        assert_eq!(given.without(&taken).names(), ["seed"]);
    }

    #[test]
    fn fields_are_known_by_all_their_names_and_values_that_say_nothing_are_told_apart() {
        for &param in Param::ALL {
            assert_eq!(Param::of_field(param.as_str()), Some(param));
        }
        assert_eq!(Param::of_field("max_tokens"), Some(Param::MaxCompletionTokens));
        assert_eq!(Param::of_field("x_own"), None);
        for (param, default, other) in [
            (Param::N, "1", "2"),
            (Param::Logprobs, "false", "true"),
            (Param::PresencePenalty, "0.0", "-0.5"),
            (Param::LogitBias, "{ }", "{\"1\":2}"),
            (Param::ServiceTier, "\"auto\"", "\"flex\""),
            (Param::User, "null", "\"\""),
        ] {
            assert!(param.is_default(default) && !param.is_default(other), "{param}");
        }
    }

    #[test]
    fn every_parameter_has_a_bit_of_its_own() {
        assert!(Param::ALL.len() <= 64);
        for param in Param::ALL {
            let mut taken = Taken {
                params: 0,
                fields: Vec::new(),
            };
            taken.take(*param);
            assert!(Param::ALL.iter().all(|other| taken.has(*other) == (other == param)));
        }
    }
}
