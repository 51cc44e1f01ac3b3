//! How hard the model is asked to think: one wish, told to each family in its own words.
//!
//! # Source
//! "Extended thinking", "Adaptive thinking" and "Effort" of Anthropic's documentation; the parameter pages of Amazon Nova,
//! DeepSeek and OpenAI's models in the Amazon Bedrock user guide.

use serde_json::{Map, Value, json};

use crate::chat::conversation::{Conversation, Effort, Issuer, Part, Reasoning, Role, Thinking, ThinkingMode};
use crate::domain::model::{
    BedrockReasoning, ClaudeThinking, ClaudeTraits, Family, ForcedTool, ModelTraits, ThinksUnasked,
};

/// The least that Claude may be given to think with.
const MIN_BUDGET: u64 = 1_024;
/// Budgets up to which an effort is meant, where the caller counts in tokens and the model in words.
const LOW_BUDGET: u64 = 1_024;
const MEDIUM_BUDGET: u64 = 4_096;
/// What Nova and the open models know.
const THREE_LEVELS: [Effort; 3] = [Effort::Low, Effort::Medium, Effort::High];

/// What is said to the model about its thinking.
#[derive(Default, PartialEq, Debug)]
pub struct Plan {
    /// Members of `additionalModelRequestFields`.
    pub fields: Map<String, Value>,
    /// `outputConfig.effort`.
    pub effort: Option<Effort>,
    /// Whether Claude thinks, asked or unasked: then it takes no temperature and no prefill.
    pub thinks: bool,
    /// Whether sampling and the ceiling on tokens must be left out.
    pub unlimited: bool,
    /// Whether the caller's wish is expressed.
    pub taken: bool,
}

/// What the caller wants.
#[derive(Clone, Copy)]
enum Wish {
    /// No thinking.
    Off,
    /// This much, in words.
    Effort(Effort),
    /// This much, in tokens.
    Budget(u64),
    /// As the model sees fit.
    Adaptive,
}

impl Wish {
    fn of(reasoning: &Reasoning) -> Option<Self> {
        match (reasoning.mode, reasoning.budget_tokens, reasoning.effort) {
            (Some(ThinkingMode::Disabled), ..) | (None, None, Some(Effort::None)) => Some(Self::Off),
            // Nobody else has it, and it says nothing about how much.
            (Some(ThinkingMode::BetweenTools), ..) => None,
            (_, Some(budget), _) => Some(Self::Budget(budget)),
            (_, None, Some(effort)) => Some(Self::Effort(effort)),
            (_, None, None) => Some(Self::Adaptive),
        }
    }

    /// In words, for models that know no tokens; `None` where the model decides.
    fn in_words(self) -> Option<Effort> {
        match self {
            Self::Off => Some(Effort::None),
            Self::Effort(effort) => Some(effort),
            Self::Budget(budget) if budget <= LOW_BUDGET => Some(Effort::Low),
            Self::Budget(budget) if budget <= MEDIUM_BUDGET => Some(Effort::Medium),
            Self::Budget(_) => Some(Effort::High),
            Self::Adaptive => None,
        }
    }
}

/// What to say for a conversation; `forced` where a tool must be called.
pub fn plan(conversation: &Conversation, traits: &ModelTraits, forced: bool) -> Plan {
    let claude = traits.family == Family::Claude && traits.bedrock.reasoning == BedrockReasoning::Claude;
    let unasked = Plan {
        thinks: claude && traits.claude.thinks_unasked != ThinksUnasked::No,
        ..Plan::default()
    };
    let Some(reasoning) = &conversation.reasoning else {
        return unasked;
    };
    let Some(wish) = Wish::of(reasoning) else {
        return unasked;
    };
    match traits.bedrock.reasoning {
        BedrockReasoning::Unsupported => unasked,
        BedrockReasoning::Claude => of_claude(conversation, reasoning, wish, &traits.claude, forced).unwrap_or(unasked),
        BedrockReasoning::ReasoningConfig => of_nova(wish),
        BedrockReasoning::ReasoningEffort => {
            let level = match wish.in_words() {
                // These do not think unless they are asked to.
                Some(Effort::None) if traits.family == Family::DeepSeek => None,
                level => level.and_then(|level| level.nearest(&THREE_LEVELS)),
            };
            of_word(level.map(|level| ("reasoning_effort", level.as_str().into())))
        }
        BedrockReasoning::ReasoningObject => {
            let level = wish.in_words().and_then(|level| level.nearest(&traits.openai.efforts));
            of_word(level.map(|level| ("reasoning", json!({"effort": level.as_str()}))))
        }
    }
}

/// A wish that is one field, or is met by saying nothing.
fn of_word(field: Option<(&str, Value)>) -> Plan {
    Plan {
        fields: field
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        taken: true,
        ..Plan::default()
    }
}

fn of_nova(wish: Wish) -> Plan {
    let level = match wish.in_words() {
        // It does not reason unless it is asked to.
        Some(Effort::None) => return of_word(None),
        Some(level) => level.nearest(&THREE_LEVELS).unwrap_or(Effort::Medium),
        None => Effort::Medium,
    };
    let config = json!({"type": "enabled", "maxReasoningEffort": level.as_str()});
    Plan {
        unlimited: level == Effort::High,
        ..of_word(Some(("reasoningConfig", config)))
    }
}

/// `None` where the wish cannot be met.
fn of_claude(
    conversation: &Conversation,
    reasoning: &Reasoning,
    wish: Wish,
    traits: &ClaudeTraits,
    forced: bool,
) -> Option<Plan> {
    let effort = |wanted: Option<Effort>| wanted.and_then(|wanted| wanted.nearest(&traits.efforts));
    let on = |thinking: Value, effort| Plan {
        fields: Map::from_iter([("thinking".to_owned(), thinking)]),
        effort,
        thinks: true,
        unlimited: false,
        taken: true,
    };
    if let Wish::Off = wish {
        return Some(match traits.thinks_unasked {
            ThinksUnasked::No => Plan {
                taken: true,
                ..Plan::default()
            },
            ThinksUnasked::Yes if traits.accepts(ClaudeThinking::Disabled) => Plan {
                thinks: false,
                ..on(json!({"type": "disabled"}), None)
            },
            // It cannot be turned off, only down.
            ThinksUnasked::Yes | ThinksUnasked::Always => Plan {
                effort: effort(Some(Effort::Low)),
                thinks: true,
                taken: true,
                ..Plan::default()
            },
        });
    }
    let in_tokens = matches!(wish, Wish::Budget(_)) && traits.accepts(ClaudeThinking::Enabled);
    if traits.accepts(ClaudeThinking::Adaptive) && !in_tokens {
        let mut thinking = json!({"type": "adaptive"});
        match reasoning.show {
            Some(false) => thinking["display"] = "omitted".into(),
            _ if traits.hides_thinking => thinking["display"] = "summarized".into(),
            _ => {}
        }
        return Some(on(thinking, effort(wish.in_words())));
    }
    let excluded = forced && traits.forced_tool == ForcedTool::UnlessThinkingEnabled;
    if !traits.accepts(ClaudeThinking::Enabled) || excluded || has_unsigned_loop(conversation) {
        return None;
    }
    let wanted = match wish {
        Wish::Budget(budget) => budget.max(MIN_BUDGET),
        Wish::Adaptive => budget_of(Effort::Medium),
        Wish::Effort(effort) => budget_of(effort),
        Wish::Off => return None,
    };
    // The budget is part of the answer's tokens, and has to leave some for the answer.
    let budget = match conversation.max_output_tokens {
        Some(tokens) if tokens <= MIN_BUDGET => return None,
        Some(tokens) => wanted.min(tokens - 1),
        None => wanted,
    };
    let mut thinking = json!({"type": "enabled", "budget_tokens": budget});
    if reasoning.show == Some(false) {
        thinking["display"] = "omitted".into();
    }
    Some(on(thinking, effort(reasoning.effort)))
}

/// The tokens that a word stands for. A convention, in whole powers of two.
fn budget_of(effort: Effort) -> u64 {
    match effort {
        Effort::None | Effort::Minimal | Effort::Low => 1_024,
        Effort::Medium => 2_048,
        Effort::High => 4_096,
        Effort::XHigh => 8_192,
        Effort::Max => 16_384,
    }
}

/// Whether results of tools are on their way back to a turn whose thoughts did not come along. A model with a budget then
/// refuses to think on.
fn has_unsigned_loop(conversation: &Conversation) -> bool {
    let spoken = || conversation.turns.iter().rev().filter(|turn| turn.role != Role::System);
    let answers = spoken()
        .next()
        .is_some_and(|turn| turn.parts.iter().any(|part| matches!(part, Part::Result(_))));
    let asked = spoken().find(|turn| turn.role == Role::Assistant);
    let signed = |part: &Part| match part {
        Part::Thinking(Thinking::Words { signature, .. }) => signature
            .as_ref()
            .is_some_and(|signature| signature.issuer == Issuer::Anthropic),
        Part::Thinking(Thinking::Redacted { issuer, .. }) => *issuer == Issuer::Anthropic,
        _ => false,
    };
    answers && asked.is_some_and(|turn| !turn.parts.iter().any(signed))
}
