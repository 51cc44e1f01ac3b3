//! Brings any history into the shape that the strictest provider takes.
//!
//! OpenAI lets messages stand in any order; other providers refuse a request over one. What is done here changes no
//! meaning: neighbours that speak in the same role are joined, results of tools are gathered behind the calls they answer,
//! and what is missing on either side is made up visibly. Readers call [`arrange`] once; adapters can rely on its result:
//!
//! * the first turn is the user's, and no two turns of one role stand next to each other (system turns aside);
//! * every call is answered in the user's turn directly after it, once, before anything else in that turn;
//! * no result stands without its call, no turn is empty, and in an assistant's turn texts stand in front of the calls they
//!   came behind, and thoughts where they were thought: each is signed together with what came before it.

use std::collections::HashMap;

use super::conversation::{Part, Role, Text, ToolResult, Turn};

/// What the user says where a conversation begins with the assistant.
const OPENING: &str = ".";
/// What stands for the result of a call that nobody answered.
const NO_RESULT: &str = "no result is available for this call";
/// What stands for a user's turn that says nothing.
const NOTHING_SAID: &str = "(empty)";

/// Arranges turns as the module describes.
pub fn arrange(turns: Vec<Turn>) -> Vec<Turn> {
    let turns = joined(without_blanks(turns));
    let mut arranged = answered(turns);
    let first = arranged.iter().find(|turn| turn.role != Role::System);
    if first.is_none_or(|turn| turn.role == Role::Assistant) {
        let at = arranged.iter().take_while(|turn| turn.role == Role::System).count();
        let opening = if first.is_some() { OPENING } else { NOTHING_SAID };
        arranged.insert(
            at,
            Turn {
                role: Role::User,
                parts: vec![Part::text(opening)],
            },
        );
    }
    arranged
}

/// The turns without those in the system's role, whose texts come apart. Users who then stand next to each other speak in
/// one turn. For providers that take instructions only at the start.
pub fn without_system_turns(turns: &[Turn]) -> (Vec<&Text>, Vec<(Role, Vec<&Part>)>) {
    let mut system = Vec::new();
    let mut rest: Vec<(Role, Vec<&Part>)> = Vec::new();
    for turn in turns {
        if turn.role == Role::System {
            system.extend(turn.parts.iter().filter_map(|part| match part {
                Part::Text(text) => Some(text),
                _ => None,
            }));
            continue;
        }
        match rest.last_mut() {
            Some((role, parts)) if *role == turn.role => parts.extend(&turn.parts),
            _ => rest.push((turn.role, turn.parts.iter().collect())),
        }
    }
    (system, rest)
}

/// Drops texts that say nothing. A text with a signature or the mark of a cache says something by those.
fn without_blanks(turns: Vec<Turn>) -> Vec<Turn> {
    turns
        .into_iter()
        .filter_map(|mut turn| {
            turn.parts.retain(|part| match part {
                Part::Text(text) => !text.is_blank() || text.signature.is_some(),
                _ => true,
            });
            if turn.parts.is_empty() && turn.role == Role::User {
                turn.parts.push(Part::text(NOTHING_SAID));
            }
            (!turn.parts.is_empty()).then_some(turn)
        })
        .collect()
}

/// Joins neighbours that speak in the same role.
fn joined(turns: Vec<Turn>) -> Vec<Turn> {
    let mut joined: Vec<Turn> = Vec::with_capacity(turns.len());
    for turn in turns {
        match joined.last_mut() {
            Some(last) if last.role == turn.role && turn.role != Role::System => last.parts.extend(turn.parts),
            _ => joined.push(turn),
        }
    }
    joined
}

/// Puts every result behind its call, makes up those that are missing, and turns those without a call into text.
fn answered(turns: Vec<Turn>) -> Vec<Turn> {
    // A result answers the latest call under its id: clients use ids again. Of two results for one call the later wins: a
    // client that answers twice has corrected itself.
    let mut results: HashMap<(usize, String), ToolResult> = HashMap::new();
    let mut latest: HashMap<String, usize> = HashMap::new();
    let mut rest: Vec<Turn> = Vec::with_capacity(turns.len());
    for (at, mut turn) in turns.into_iter().enumerate() {
        let mut kept = Vec::with_capacity(turn.parts.len());
        for part in turn.parts {
            match part {
                Part::Result(result) => match latest.get(&result.id) {
                    Some(asked) => drop(results.insert((*asked, result.id.clone()), result)),
                    None => kept.extend(orphan(result)),
                },
                Part::Call(call) => {
                    latest.insert(call.id.clone(), at);
                    kept.push(Part::Call(call));
                }
                part => kept.push(part),
            }
        }
        turn.parts = kept;
        rest.push(turn);
    }
    let mut arranged: Vec<Turn> = Vec::with_capacity(rest.len());
    let mut open: Vec<Part> = Vec::new();
    for (at, turn) in rest.into_iter().enumerate() {
        match turn.role {
            Role::Assistant => {
                flush(&mut arranged, &mut open, Vec::new());
                let (turn, calls) = in_order(turn);
                open = calls
                    .into_iter()
                    .map(|(id, name)| {
                        let mut result = results.remove(&(at, id.clone())).unwrap_or_else(|| ToolResult {
                            id,
                            name: None,
                            content: vec![Part::text(NO_RESULT)],
                            is_error: true,
                            cache: None,
                        });
                        result.name = Some(name);
                        Part::Result(result)
                    })
                    .collect();
                if !turn.parts.is_empty() {
                    push(&mut arranged, turn);
                }
            }
            // Instructions may not stand between calls and their results.
            Role::System => {
                flush(&mut arranged, &mut open, Vec::new());
                arranged.push(turn);
            }
            Role::User => flush(&mut arranged, &mut open, turn.parts),
        }
    }
    flush(&mut arranged, &mut open, Vec::new());
    arranged
}

/// Adds a user's turn: the results that are due, then what else is said.
fn flush(arranged: &mut Vec<Turn>, due: &mut Vec<Part>, said: Vec<Part>) {
    let mut parts = std::mem::take(due);
    parts.extend(said);
    if !parts.is_empty() {
        push(
            arranged,
            Turn {
                role: Role::User,
                parts,
            },
        );
    }
}

/// Adds a turn, or joins it with the last one: a turn that held nothing but results that belong elsewhere is gone.
fn push(arranged: &mut Vec<Turn>, turn: Turn) {
    match arranged.last_mut() {
        // Results must stay in front: only what follows without calls in between may be joined.
        Some(last) if last.role == turn.role => last.parts.extend(turn.parts),
        _ => arranged.push(turn),
    }
}

/// An assistant's turn with its texts in front of its calls, and its calls. Nothing passes a thought. The second call under
/// one id is left out.
fn in_order(turn: Turn) -> (Turn, Vec<(String, String)>) {
    let (mut parts, mut calls) = (Vec::with_capacity(turn.parts.len()), Vec::new());
    let mut names: Vec<(String, String)> = Vec::new();
    for part in turn.parts {
        match &part {
            Part::Thinking(_) => {
                parts.append(&mut calls);
                parts.push(part);
            }
            Part::Call(call) => {
                if names.iter().all(|(id, _)| *id != call.id) {
                    names.push((call.id.clone(), call.name.clone()));
                    calls.push(part);
                }
            }
            Part::Text(_) | Part::Media(_) | Part::Result(_) => parts.push(part),
        }
    }
    parts.append(&mut calls);
    let turn = Turn { role: turn.role, parts };
    (turn, names)
}

/// A result whose call is not in the history, as the user's own words.
fn orphan(result: ToolResult) -> Vec<Part> {
    let name = result.name.as_deref().unwrap_or("a tool");
    let mut parts = vec![Part::text(format!("Result of {name}:"))];
    parts.extend(result.content);
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::chat::conversation::{Thinking, ToolCall};

    fn turn(role: Role, parts: Vec<Part>) -> Turn {
        Turn { role, parts }
    }

    fn call(id: &str) -> Part {
        Part::Call(ToolCall {
            id: id.to_owned(),
            name: format!("tool_{id}"),
            arguments: "{}".to_owned(),
            signature: None,
            cache: None,
        })
    }

    fn result(id: &str, text: &str) -> Part {
        Part::Result(ToolResult {
            id: id.to_owned(),
            name: None,
            content: vec![Part::text(text)],
            is_error: false,
            cache: None,
        })
    }

    fn shown(turns: &[Turn]) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => format!("{:?}", text.text),
            Part::Call(call) => format!("call {}", call.id),
            Part::Result(result) => {
                let text = match &result.content[..] {
                    [Part::Text(text)] => text.text.clone(),
                    other => format!("{other:?}"),
                };
                format!("result {} {}={text}", result.id, result.name.as_deref().unwrap_or("?"))
            }
            other => format!("{other:?}"),
        };
        let line = |turn: &Turn| {
            let parts: Vec<String> = turn.parts.iter().map(part).collect();
            format!("{:?}: {}", turn.role, parts.join(", "))
        };
        turns.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn results_are_gathered_behind_their_calls_in_the_order_of_the_calls() {
        let turns = vec![
            turn(Role::User, vec![Part::text("weather?")]),
            turn(Role::Assistant, vec![call("a"), Part::text("looking"), call("b")]),
            turn(Role::User, vec![result("b", "23")]),
            turn(Role::User, vec![result("a", "18")]),
            turn(Role::User, vec![Part::text("and now?")]),
        ];
        assert_eq!(
            shown(&arrange(turns)),
            "User: \"weather?\"\nAssistant: \"looking\", call a, call b\n\
             User: result a tool_a=18, result b tool_b=23, \"and now?\""
        );
    }

    #[test]
    fn thoughts_stay_where_they_were_thought() {
        let thought = |text: &str| {
            Part::Thinking(Thinking::Words {
                text: text.to_owned(),
                signature: None,
            })
        };
        let said = vec![
            thought("A"),
            Part::text("one"),
            thought("B"),
            call("a"),
            Part::text("two"),
            call("b"),
            thought("C"),
            call("c"),
        ];
        let turns = vec![turn(Role::User, vec![Part::text("x")]), turn(Role::Assistant, said)];
        let shown: Vec<String> = arrange(turns)[1]
            .parts
            .iter()
            .map(|part| match part {
                Part::Thinking(Thinking::Words { text, .. }) | Part::Text(Text { text, .. }) => text.clone(),
                Part::Call(call) => call.id.clone(),
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(shown, ["A", "one", "B", "two", "a", "b", "C", "c"]);
    }

    #[test]
    fn what_is_missing_is_made_up_and_what_is_too_much_becomes_text() {
        let turns = vec![
            turn(Role::Assistant, vec![call("a")]),
            turn(Role::User, vec![result("x", "lost"), Part::text(" ")]),
        ];
        assert_eq!(
            shown(&arrange(turns)),
            "User: \".\"\nAssistant: call a\n\
             User: result a tool_a=no result is available for this call, \"Result of a tool:\", \"lost\""
        );
        assert_eq!(shown(&arrange(Vec::new())), "User: \"(empty)\"");
    }

    #[test]
    fn a_result_that_was_corrected_counts_once() {
        let turns = vec![
            turn(Role::User, vec![Part::text("x")]),
            turn(Role::Assistant, vec![call("a"), call("a")]),
            turn(Role::User, vec![result("a", "old"), result("a", "new")]),
        ];
        assert_eq!(
            shown(&arrange(turns)),
            "User: \"x\"\nAssistant: call a\nUser: result a tool_a=new"
        );
    }

    fn any_turn() -> impl Strategy<Value = Turn> {
        let part = prop_oneof![
            "[ab ]{0,2}".prop_map(Part::text),
            "[xyz]".prop_map(|id| call(&id)),
            "[xyzw]".prop_map(|id| result(&id, "r")),
        ];
        (0..3u8, prop::collection::vec(part, 0..4)).prop_map(|(role, parts)| {
            let role = [Role::System, Role::User, Role::Assistant][role as usize];
            let parts = parts
                .into_iter()
                .filter(|part| match part {
                    Part::Call(_) => role == Role::Assistant,
                    Part::Result(_) => role == Role::User,
                    _ => true,
                })
                .collect();
            turn(role, parts)
        })
    }

    #[test]
    fn an_id_that_is_used_again_means_the_latest_call() {
        let turns = vec![
            turn(Role::User, vec![Part::text("x")]),
            turn(Role::Assistant, vec![call("a")]),
            turn(Role::User, vec![result("a", "first")]),
            turn(Role::Assistant, vec![call("a")]),
            turn(Role::User, vec![result("a", "second")]),
        ];
        assert_eq!(
            shown(&arrange(turns)),
            "User: \"x\"\nAssistant: call a\nUser: result a tool_a=first\nAssistant: call a\nUser: result a tool_a=second"
        );
    }

    proptest! {
        #[test]
        fn any_history_comes_out_in_the_shape_that_is_promised(turns in prop::collection::vec(any_turn(), 0..8)) {
            let arranged = arrange(turns);
            let spoken: Vec<&Turn> = arranged.iter().filter(|turn| turn.role != Role::System).collect();
            prop_assert_eq!(spoken[0].role, Role::User);
            for pair in arranged.windows(2) {
                prop_assert!(pair[0].role == Role::System || pair[0].role != pair[1].role);
            }
            for (at, turn) in arranged.iter().enumerate() {
                prop_assert!(!turn.parts.is_empty());
                let calls: Vec<&str> = turn.parts.iter().filter_map(|part| match part {
                    Part::Call(call) => Some(call.id.as_str()),
                    _ => None,
                }).collect();
                let results = |turn: &Turn| -> Vec<String> {
                    turn.parts.iter().map_while(|part| match part {
                        Part::Result(result) => Some(result.id.clone()),
                        _ => None,
                    }).collect()
                };
                if !calls.is_empty() {
                    prop_assert_eq!(results(&arranged[at + 1]), calls);
                }
                let all = turn.parts.iter().filter(|part| matches!(part, Part::Result(_))).count();
                prop_assert_eq!(all, results(turn).len(), "results stand in front");
                if all > 0 {
                    prop_assert!(arranged[at - 1].parts.iter().any(|part| matches!(part, Part::Call(_))));
                }
            }
        }
    }
}
