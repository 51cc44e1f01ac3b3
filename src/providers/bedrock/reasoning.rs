//! How hard the model is asked to think: one wish, told to each family in its own words. Claude's are `anthropic`'s to know.
//!
//! # Source
//! The parameter pages of Amazon Nova, Claude, DeepSeek and OpenAI's models in the Amazon Bedrock user guide,
//! <https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html>.

use serde_json::{Map, Value, json};

use crate::chat::conversation::{Conversation, Effort, Reasoning, ThinkingMode};
use crate::domain::model::{BedrockReasoning, Family, ForcedTool};
use crate::providers::adapter::Target;
use crate::providers::anthropic::encode::{INTERLEAVED_THINKING, thoughts_missing};
use crate::providers::anthropic::thinking::{self, Circumstances};

/// The ceiling on generated tokens for a Claude whose own nobody has told us: the smallest that a current one has.
const DEFAULT_MAX_TOKENS: u64 = 64_000;
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

/// What there is to call, as far as thinking depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Calls {
    /// Whether there are tools.
    pub offered: bool,
    /// Whether one of them must be called.
    pub forced: bool,
}

/// What to say for a conversation.
pub fn plan(conversation: &Conversation, target: &Target<'_>, calls: Calls) -> Plan {
    let traits = target.traits;
    if traits.bedrock.reasoning == BedrockReasoning::Claude {
        return of_claude(conversation, target, calls);
    }
    let wish = conversation.reasoning.as_ref();
    let Some(wish) = wish.filter(|wish| wish.mode != Some(ThinkingMode::BetweenTools)) else {
        return Plan::default();
    };
    let wish = in_words(wish);
    match traits.bedrock.reasoning {
        BedrockReasoning::Unsupported | BedrockReasoning::Claude => Plan::default(),
        BedrockReasoning::ReasoningConfig => of_nova(wish),
        BedrockReasoning::ReasoningEffort => {
            let level = match wish {
                // These do not think unless they are asked to.
                Some(Effort::None) if traits.family == Family::DeepSeek => None,
                level => level.and_then(|level| level.nearest(&THREE_LEVELS)),
            };
            of_word(level.map(|level| ("reasoning_effort", level.as_str().into())))
        }
        BedrockReasoning::ReasoningObject => {
            let level = wish.and_then(|level| level.nearest(&traits.openai.efforts));
            of_word(level.map(|level| ("reasoning", json!({"effort": level.as_str()}))))
        }
    }
}

/// A wish in words, for models that know no tokens; `None` where the model decides.
fn in_words(wish: &Reasoning) -> Option<Effort> {
    match (wish.mode, wish.budget_tokens, wish.effort) {
        (Some(ThinkingMode::Disabled), ..) => Some(Effort::None),
        (_, Some(..=LOW_BUDGET), None) => Some(Effort::Low),
        (_, Some(..=MEDIUM_BUDGET), None) => Some(Effort::Medium),
        (_, Some(_), None) => Some(Effort::High),
        (_, _, effort) => effort,
    }
}

/// A wish that is one field, or is met by saying nothing.
fn of_word(field: Option<(&str, Value)>) -> Plan {
    let fields = field.into_iter().map(|(name, value)| (name.to_owned(), value));
    Plan {
        fields: fields.collect(),
        taken: true,
        ..Plan::default()
    }
}

fn of_nova(wish: Option<Effort>) -> Plan {
    let level = match wish {
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

fn of_claude(conversation: &Conversation, target: &Target<'_>, calls: Calls) -> Plan {
    let claude = &target.traits.claude;
    let most = target.max_output_tokens.unwrap_or(DEFAULT_MAX_TOKENS);
    let at = Circumstances {
        max_tokens: conversation.max_output_tokens.map_or(most, |wanted| wanted.min(most)),
        forced_tool: calls.forced && claude.forced_tool == ForcedTool::UnlessThinkingEnabled,
        thoughts_missing: thoughts_missing(conversation),
    };
    let plan = thinking::plan(conversation.reasoning.as_ref(), claude, at);
    let mut fields = Map::new();
    if let Some(thinking) = plan.thinking {
        fields.insert("thinking".to_owned(), thinking);
    }
    if plan.budgeted && calls.offered && claude.interleaved_thinking_beta {
        fields.insert("anthropic_beta".to_owned(), json!([INTERLEAVED_THINKING]));
    }
    Plan {
        fields,
        effort: plan.effort,
        thinks: plan.thinks,
        unlimited: false,
        taken: plan.taken,
    }
}
