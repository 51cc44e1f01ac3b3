//! How much a Claude model is told to think, from whatever words the caller used.
//!
//! Generations differ: the older are given a budget of tokens, the newer decide for themselves and take an effort, and some
//! cannot be stopped. What each takes is in [`ClaudeTraits`]; this module decides.
//!
//! # Source
//! "Extended thinking", "Adaptive thinking" and "Effort" of Anthropic's documentation,
//! <https://platform.claude.com/docs/en/build-with-claude/extended-thinking>.

use serde_json::{Value, json};

use crate::chat::conversation::{Effort, Reasoning, ThinkingMode};
use crate::domain::model::{ClaudeThinking, ClaudeTraits, ThinksUnasked};

/// The smallest budget there is.
const LEAST_BUDGET: u64 = 1_024;
/// Budgets up to which an effort is meant, where the caller counts in tokens and the model does not.
const LOW_BUDGET: u64 = 1_024;
const MEDIUM_BUDGET: u64 = 4_096;

/// What else of a request decides about thinking.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// The ceiling on generated tokens, thoughts included.
    pub max_tokens: u64,
    /// Whether the model will be made to call a tool, which does not go together with a budget.
    pub forced_tool: bool,
    /// Whether results of tools are due to a turn whose thoughts are missing, so that it cannot go on thinking.
    pub thoughts_missing: bool,
}

/// What is sent.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Plan {
    /// `thinking`.
    pub thinking: Option<Value>,
    /// `output_config.effort`.
    pub effort: Option<Effort>,
    /// Whether the model may think. Then sampling is restricted, and there is no prefill.
    pub thinks: bool,
    /// Whether it is given a budget.
    pub budgeted: bool,
    /// Whether the caller's wish is expressed.
    pub taken: bool,
}

/// What is sent for the caller's wish, if there is one.
pub fn plan(wish: Option<&Reasoning>, traits: &ClaudeTraits, at: Circumstances) -> Plan {
    let unasked = Plan {
        thinks: traits.thinks_unasked != ThinksUnasked::No,
        ..Plan::default()
    };
    let Some(wish) = wish else { return unasked };
    let off = wish.mode == Some(ThinkingMode::Disabled) || (wish.mode.is_none() && wish.effort == Some(Effort::None));
    if off {
        return switched_off(wish, traits);
    }
    if wish.mode == Some(ThinkingMode::BetweenTools) {
        // No catalogue says which models have it.
        return unasked;
    }
    // A budget that the model takes is what the caller wrote itself.
    let budget_meant = wish.mode == Some(ThinkingMode::Enabled) && traits.accepts(ClaudeThinking::Enabled);
    if traits.accepts(ClaudeThinking::Adaptive) && !budget_meant {
        let wanted = wish.effort.or_else(|| wish.budget_tokens.map(effort_of));
        let effort = wanted.and_then(|effort| effort.nearest(&traits.efforts));
        return Plan {
            thinking: Some(shown(json!({"type": "adaptive"}), wish, traits)),
            effort,
            thinks: true,
            budgeted: false,
            taken: true,
        };
    }
    let effort = wish.effort.filter(|effort| *effort != Effort::None);
    let fits = at.max_tokens > LEAST_BUDGET && !at.forced_tool && !at.thoughts_missing;
    if !traits.accepts(ClaudeThinking::Enabled) || !fits {
        // Some take an effort without thinking.
        let effort = effort.and_then(|effort| effort.nearest(&traits.efforts));
        return Plan {
            taken: effort.is_some(),
            effort,
            ..unasked
        };
    }
    let budget = match wish.budget_tokens {
        Some(budget) => budget.max(LEAST_BUDGET).min(at.max_tokens - 1),
        // Half of the answer is left for what the caller gets to see.
        None => budget_of(effort.unwrap_or(Effort::High)).min((at.max_tokens / 2).max(LEAST_BUDGET)),
    };
    Plan {
        thinking: Some(shown(json!({"type": "enabled", "budget_tokens": budget}), wish, traits)),
        effort: effort.and_then(|effort| effort.nearest(&traits.efforts)),
        thinks: true,
        budgeted: true,
        taken: true,
    }
}

/// What is sent where no thoughts are wanted.
fn switched_off(wish: &Reasoning, traits: &ClaudeTraits) -> Plan {
    let effort = wish.effort.filter(|effort| *effort != Effort::None);
    match traits.thinks_unasked {
        ThinksUnasked::No => Plan {
            effort: effort.and_then(|effort| effort.nearest(&traits.efforts)),
            taken: true,
            ..Plan::default()
        },
        ThinksUnasked::Yes => {
            let limit = traits.disabled_up_to_effort.unwrap_or(Effort::Max);
            let accepted: Vec<Effort> = traits
                .efforts
                .iter()
                .copied()
                .filter(|effort| *effort <= limit)
                .collect();
            Plan {
                thinking: Some(json!({"type": "disabled"})),
                effort: effort.and_then(|effort| effort.nearest(&accepted)),
                taken: true,
                ..Plan::default()
            }
        }
        // It cannot be stopped; as little as possible is the nearest there is.
        ThinksUnasked::Always => Plan {
            effort: Effort::Low.nearest(&traits.efforts),
            thinks: true,
            taken: true,
            ..Plan::default()
        },
    }
}

/// `thinking` with what is said about showing it. Newer models hide their thoughts unless asked, and whoever asks for
/// reasoning through OpenAI's dialect expects to see it.
fn shown(mut thinking: Value, wish: &Reasoning, traits: &ClaudeTraits) -> Value {
    match wish.show {
        Some(false) if !traits.hides_thinking => thinking["display"] = "omitted".into(),
        None | Some(true) if traits.hides_thinking => thinking["display"] = "summarized".into(),
        _ => {}
    }
    thinking
}

/// Tokens for an effort, where a model counts in tokens. A convention of many gateways, and no standard.
fn budget_of(effort: Effort) -> u64 {
    match effort {
        Effort::None | Effort::Minimal | Effort::Low => 1_024,
        Effort::Medium => 2_048,
        Effort::High => 4_096,
        Effort::XHigh => 8_192,
        Effort::Max => 16_384,
    }
}

/// The effort for a budget, where a model takes none.
fn effort_of(budget: u64) -> Effort {
    if budget <= LOW_BUDGET {
        Effort::Low
    } else if budget <= MEDIUM_BUDGET {
        Effort::Medium
    } else {
        Effort::High
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: Circumstances = Circumstances {
        max_tokens: 64_000,
        forced_tool: false,
        thoughts_missing: false,
    };

    /// A model of generation 4.5: a budget and nothing else.
    fn budgeted() -> ClaudeTraits {
        ClaudeTraits {
            thinking: vec![ClaudeThinking::Disabled, ClaudeThinking::Enabled],
            thinks_unasked: ThinksUnasked::No,
            efforts: Vec::new(),
            hides_thinking: false,
            ..ClaudeTraits::default()
        }
    }

    /// A model that thinks unless told not to.
    fn stoppable() -> ClaudeTraits {
        ClaudeTraits {
            thinking: vec![ClaudeThinking::Disabled, ClaudeThinking::Adaptive],
            thinks_unasked: ThinksUnasked::Yes,
            disabled_up_to_effort: Some(Effort::High),
            ..ClaudeTraits::default()
        }
    }

    fn effort(effort: Effort) -> Reasoning {
        Reasoning {
            effort: Some(effort),
            ..Reasoning::default()
        }
    }

    fn sent(wish: &Reasoning, traits: &ClaudeTraits, at: Circumstances) -> (Value, Option<Effort>) {
        let plan = plan(Some(wish), traits, at);
        assert!(plan.taken, "{wish:?}");
        (plan.thinking.unwrap_or_default(), plan.effort)
    }

    #[test]
    fn an_effort_becomes_a_budget_or_stays_one() {
        for (level, budget) in [
            (Effort::Minimal, 1_024),
            (Effort::Low, 1_024),
            (Effort::Medium, 2_048),
            (Effort::High, 4_096),
            (Effort::XHigh, 8_192),
            (Effort::Max, 16_384),
        ] {
            let expected = json!({"type": "enabled", "budget_tokens": budget});
            assert_eq!(sent(&effort(level), &budgeted(), FREE), (expected, None));
            let expected = json!({"type": "adaptive", "display": "summarized"});
            let level_sent = if level == Effort::Minimal { Effort::Low } else { level };
            assert_eq!(
                sent(&effort(level), &ClaudeTraits::default(), FREE),
                (expected, Some(level_sent))
            );
        }
    }

    #[test]
    fn no_effort_switches_thinking_off_as_far_as_it_can_be() {
        assert_eq!(sent(&effort(Effort::None), &budgeted(), FREE), (Value::Null, None));
        assert_eq!(
            sent(&effort(Effort::None), &stoppable(), FREE),
            (json!({"type": "disabled"}), None)
        );
        let always = sent(&effort(Effort::None), &ClaudeTraits::default(), FREE);
        assert_eq!(always, (Value::Null, Some(Effort::Low)));
        let both = Reasoning {
            mode: Some(ThinkingMode::Disabled),
            effort: Some(Effort::Max),
            ..Reasoning::default()
        };
        assert_eq!(
            sent(&both, &stoppable(), FREE),
            (json!({"type": "disabled"}), Some(Effort::High))
        );
    }

    #[test]
    fn a_budget_is_smaller_than_the_whole_answer_and_no_answer_is_too_small_for_one() {
        let with = |max_tokens| Circumstances { max_tokens, ..FREE };
        let wish = effort(Effort::Max);
        assert_eq!(sent(&wish, &budgeted(), with(6_000)).0["budget_tokens"], 3_000);
        assert_eq!(sent(&wish, &budgeted(), with(1_025)).0["budget_tokens"], 1_024);
        assert!(!plan(Some(&wish), &budgeted(), with(1_024)).taken);
        let own = Reasoning {
            mode: Some(ThinkingMode::Enabled),
            budget_tokens: Some(50_000),
            ..Reasoning::default()
        };
        assert_eq!(sent(&own, &budgeted(), with(8_000)).0["budget_tokens"], 7_999);
        // Where there are no budgets, it says how hard to think.
        let (thinking, effort) = sent(&own, &ClaudeTraits::default(), with(8_000));
        assert_eq!(
            (thinking["type"].as_str(), effort),
            (Some("adaptive"), Some(Effort::High))
        );
    }

    #[test]
    fn a_budget_gives_way_to_a_forced_tool_and_to_lost_thoughts() {
        for at in [
            Circumstances {
                forced_tool: true,
                ..FREE
            },
            Circumstances {
                thoughts_missing: true,
                ..FREE
            },
        ] {
            let plan = plan(Some(&effort(Effort::High)), &budgeted(), at);
            assert_eq!((plan.thinking, plan.thinks, plan.taken), (None, false, false));
        }
    }

    #[test]
    fn thoughts_are_shown_unless_the_caller_minds() {
        let wish = |show| Reasoning {
            show,
            ..effort(Effort::Low)
        };
        let display = |wish: &Reasoning, traits: &ClaudeTraits| sent(wish, traits, FREE).0["display"].clone();
        assert_eq!(display(&wish(None), &ClaudeTraits::default()), "summarized");
        assert_eq!(display(&wish(Some(false)), &ClaudeTraits::default()), Value::Null);
        assert_eq!(display(&wish(None), &budgeted()), Value::Null);
        assert_eq!(display(&wish(Some(false)), &budgeted()), "omitted");
    }

    #[test]
    fn what_nobody_asked_for_is_not_sent() {
        let plan = plan(None, &ClaudeTraits::default(), FREE);
        assert_eq!((plan.thinking, plan.effort, plan.thinks), (None, None, true));
    }
}
