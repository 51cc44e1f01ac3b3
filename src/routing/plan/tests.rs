//! Laws of decisions, and what each strategy and each fallback does.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::Strategy;
use serde_json::{Value, json};

use super::*;
use crate::config::{Sources, load};
use crate::domain::call::Strategy as Order;
use crate::routing::document;
use crate::routing::explain::{MAX_RECORDED_BYTES, Reasons};
use crate::routing::facts::Caller;

const PROVIDERS: [&str; 4] = ["a", "b", "c", "d"];

/// Four providers with models: m is served by all, at prices that rise from a to d; d has none for it.
fn catalog() -> Catalog {
    let mut file = String::new();
    for (place, id) in PROVIDERS.iter().enumerate() {
        file += &format!("[providers.{id}]\nbase_url = \"http://127.0.0.1:1\"\n");
        for (model, context) in [("m", 1_000), ("n", 2_000), ("long", 100_000)] {
            if model == "long" && *id != "b" {
                continue;
            }
            let deployments =
                format!("[[providers.{id}.deployments]]\nmodel = {model:?}\ncontext_tokens = {context}\n");
            file += &deployments;
            if *id != "d" {
                let usd = place + 1;
                file += &format!("input_usd = \"{usd}\"\noutput_usd = \"{usd}\"\ncache_read_usd = \"0.1\"\n");
            }
        }
    }
    let sources = Sources {
        file: Some(("test.toml".into(), file)),
        ..Sources::default()
    };
    let plain = crate::config::KnownDialect {
        name: "openai",
        base_url: None,
        api_key_variable: None,
    };
    Catalog::build(
        &load(&sources, &[plain])
            .unwrap_or_else(|faults| panic!("{faults}"))
            .settings,
    )
}

fn policy(config: &Value) -> Policy {
    document::read(config, Order::Balanced).unwrap_or_else(|faults| panic!("{faults:?}"))
}

fn facts(model: &str) -> Facts<'_> {
    Facts {
        id: 7,
        operation: Operation::Chat,
        model,
        stream: false,
        tools: false,
        vision: false,
        input_tokens: 100,
        max_output_tokens: None,
        caller: Caller::default(),
        headers: &[],
        prompt_cache_key: None,
        user: None,
        at: chrono::DateTime::UNIX_EPOCH,
    }
}

/// What a test makes up about the world.
#[derive(Clone, Default, Debug)]
struct World {
    readiness: BTreeMap<String, u8>,
    measured: BTreeMap<String, Measured>,
    max_attempts: usize,
    budget_exhausted: bool,
}

fn decided<R>(facts: &Facts<'_>, policy: &Policy, world: &World, then: impl FnOnce(&Decision<'_>) -> R) -> R {
    let catalog = catalog();
    let readiness = |deployment: &Deployment| match world.readiness.get(deployment.provider.as_str()) {
        Some(1) => Readiness::Probing,
        Some(2) => Readiness::Ejected,
        Some(3) => Readiness::Resting,
        _ => Readiness::Passing,
    };
    let situation = Situation {
        policy,
        catalog: &catalog,
        scopes: &[],
        may_use: &|_| true,
        readiness: &readiness,
        measured: &|deployment| world.measured.get(deployment.id.as_str()).copied().unwrap_or_default(),
        max_attempts: if world.max_attempts == 0 {
            10
        } else {
            world.max_attempts
        },
        budget_exhausted: world.budget_exhausted,
    };
    then(&decide(facts, &situation))
}

/// The deployments a request meets on its way, and their stages where they are not the first.
fn way(facts: &Facts<'_>, config: &Value, world: &World) -> Vec<String> {
    decided(facts, &policy(config), world, |decision| {
        let shown = |attempt: &Attempt| match attempt.stage {
            Stage::Primary => attempt.deployment.id.to_string(),
            stage => format!("{} ({stage:?})", attempt.deployment.id),
        };
        decision.attempts[..decision.way].iter().map(shown).collect()
    })
}

#[test]
fn the_cheapest_comes_first_and_what_has_no_price_last() {
    let order = way(&facts("m"), &json!({"strategy": "cost-optimized"}), &World::default());
    assert_eq!(order, ["a/m", "b/m", "c/m", "d/m"]);
}

#[test]
fn a_cached_prompt_makes_the_home_of_a_session_cheaper() {
    let config = json!({"strategy": "cost-optimized", "affinity": {"by": ["user"], "tolerance_percent": 0},
                        "expected_output_tokens": 1});
    let mut world = World::default();
    for id in ["a/m", "b/m", "c/m"] {
        let measured = Measured {
            cached_share: 0.95,
            ..Measured::default()
        };
        world.measured.insert(id.into(), measured);
    }
    let mut firsts = std::collections::BTreeSet::new();
    for user in 0..30 {
        let user = format!("user {user}");
        let facts = Facts {
            user: Some(&user),
            ..facts("m")
        };
        // At home 95 % of the prompt cost next to nothing, which beats any other's price.
        decided(&facts, &policy(&config), &world, |decision| {
            let first = &decision.attempts[0];
            let home = decision.attempts.iter().find(|attempt| attempt.parts.session).unwrap();
            if home.deployment.price.is_some() {
                assert_eq!(home.deployment.id, first.deployment.id);
            }
            firsts.insert(first.deployment.id.to_string());
        });
    }
    assert_eq!(firsts.len(), 3, "{firsts:?}");
}

#[test]
fn the_fixed_order_is_fixed_whatever_is_measured() {
    let config = json!({"strategy": "failover", "order": ["c", "a/m"]});
    for id in 0..20 {
        let facts = Facts { id, ..facts("m") };
        assert_eq!(way(&facts, &config, &World::default()), ["c/m", "a/m", "b/m", "d/m"]);
    }
}

fn measured(ms: f64, error_rate: f64, in_flight: u32) -> Measured {
    Measured {
        first_token_ms: Some(ms),
        error_rate,
        in_flight,
        ..Measured::default()
    }
}

#[test]
fn of_two_random_ones_the_faster_comes_first_so_the_slowest_of_all_never_does() {
    let config = json!({"strategy": "latency-optimized", "expected_output_tokens": 1});
    let mut world = World::default();
    for (id, ms) in [("a/m", 100.0), ("b/m", 200.0), ("c/m", 300.0), ("d/m", 400.0)] {
        world.measured.insert(id.into(), measured(ms, 0.0, 0));
    }
    let mut firsts: BTreeMap<String, usize> = BTreeMap::new();
    for id in 0..400 {
        let facts = Facts { id, ..facts("m") };
        *firsts.entry(way(&facts, &config, &world)[0].clone()).or_default() += 1;
    }
    // The fastest wins every pair it is in: half of them.
    assert!(
        (150..=250).contains(&firsts["a/m"]) && !firsts.contains_key("d/m"),
        "{firsts:?}"
    );
}

#[test]
fn balanced_leaves_those_that_fail_or_are_slow_or_dear() {
    let config = json!({"expected_output_tokens": 10});
    let first = |world: &World| way(&facts("m"), &config, world)[0].clone();
    let mut world = World::default();
    for id in ["a/m", "b/m", "c/m"] {
        world.measured.insert(id.into(), measured(100.0, 0.0, 0));
    }
    assert_eq!(first(&world), "a/m", "it is half as dear as the next");
    world.measured.insert("a/m".into(), measured(100.0, 0.9, 0));
    assert_eq!(first(&world), "b/m", "nine of ten fail");
    world.measured.insert("a/m".into(), measured(5_000.0, 0.0, 0));
    assert_eq!(first(&world), "b/m", "it takes seven times as long");
    world.measured.insert("a/m".into(), measured(100.0, 0.0, 40));
    assert_eq!(first(&world), "b/m", "it has more to do than all others");
}

#[test]
fn a_weight_of_zero_is_for_when_nothing_else_is_left() {
    let config = json!({"strategy": "cost-optimized", "weights": {"a": 0}});
    assert_eq!(
        way(&facts("m"), &config, &World::default()),
        ["b/m", "c/m", "d/m", "a/m"]
    );
}

#[test]
fn what_stands_in_keeps_the_last_attempt_and_comes_before_what_is_ejected() {
    let config = json!({"strategy": "failover", "fallback_models": {"generic": {"m": ["n"]}}});
    let world = World {
        max_attempts: 3,
        ..World::default()
    };
    assert_eq!(way(&facts("m"), &config, &world), ["a/m", "b/m", "a/n (Generic)"]);
    let ejected = |ids: &[&str]| ids.iter().map(|id| ((*id).to_owned(), 2)).collect();
    let world = World {
        readiness: ejected(&["a", "b", "c"]),
        max_attempts: 4,
        ..World::default()
    };
    assert_eq!(
        way(&facts("m"), &config, &world),
        ["d/m", "d/n (Generic)", "a/m", "b/m"]
    );
}

#[test]
fn a_prompt_that_does_not_fit_goes_where_it_does_and_otherwise_the_provider_decides() {
    let long = Facts {
        input_tokens: 1_500,
        ..facts("m")
    };
    let with = json!({"strategy": "failover", "fallback_models": {"context_window": {"*": ["n", "long"]}}});
    let order = way(&long, &with, &World::default());
    assert_eq!(order[0], "a/n (ContextWindow)");
    assert!(order.iter().all(|one| !one.ends_with("/m")), "{order:?}");
    let longer = Facts {
        input_tokens: 50_000,
        ..facts("m")
    };
    assert_eq!(way(&longer, &with, &World::default()), ["b/long (ContextWindow)"]);
    // Within the margin of the estimate the provider is asked.
    let close = Facts {
        input_tokens: 1_050,
        ..facts("m")
    };
    assert_eq!(way(&close, &with, &World::default())[0], "a/m");
    let without = json!({"strategy": "failover"});
    assert_eq!(
        way(&longer, &without, &World::default())[0],
        "a/m",
        "its count is exact"
    );
    let unchecked = json!({"strategy": "failover", "context_check": false,
                           "fallback_models": {"context_window": {"*": ["long"]}}});
    assert_eq!(way(&longer, &unchecked, &World::default())[0], "a/m");
}

#[test]
fn a_failure_of_a_kind_leads_to_what_is_there_for_it() {
    let config = json!({"strategy": "failover", "fallback_models": {
        "context_window": {"m": ["n"]}, "content_policy": {"m": ["long"]}
    }});
    decided(&facts("m"), &policy(&config), &World::default(), |decision| {
        let plan = Plan {
            attempts: decision.attempts.clone(),
            way: decision.way,
        };
        assert_eq!(plan.way, 4);
        let after = |class| {
            let places = plan.after(0, class, &[0])?;
            Some(
                places
                    .iter()
                    .map(|&place| plan.attempts[place].deployment.id.to_string())
                    .collect::<Vec<_>>(),
            )
        };
        let by_context = after(ErrorClass::ContextLength).unwrap();
        assert_eq!(by_context, ["a/n", "b/n", "c/n", "d/n"], "all have a larger context");
        assert_eq!(after(ErrorClass::ContentFilter).unwrap(), ["b/long"]);
        assert_eq!(after(ErrorClass::ServerError), None);
    });
}

#[test]
fn a_budget_that_is_used_up_leaves_only_what_is_there_for_it() {
    let config = json!({"strategy": "cost-optimized", "fallback_models": {"budget_exhausted": {"m": ["n"]}}});
    let world = World {
        budget_exhausted: true,
        max_attempts: 2,
        ..World::default()
    };
    assert_eq!(
        way(&facts("m"), &config, &world),
        ["a/n (BudgetExhausted)", "b/n (BudgetExhausted)"]
    );
    assert!(way(&facts("m"), &json!({}), &world).is_empty());
}

#[test]
fn reasons_fit_into_a_record_however_many_there_are() {
    let rules: Vec<Value> = (0..64)
        .map(|n| json!({"name": format!("{n} {}", "long ".repeat(40)), "then": {"strategy": "failover"}}))
        .collect();
    decided(
        &facts("m"),
        &policy(&json!({"rules": rules})),
        &World::default(),
        |decision| {
            let whole = Reasons::of(decision);
            assert!(serde_json::to_string(&whole).unwrap().len() > MAX_RECORDED_BYTES);
            let recorded = whole.recorded();
            assert!(recorded.len() <= MAX_RECORDED_BYTES);
            let read: Value = serde_json::from_str(&recorded).unwrap();
            assert!(read["omitted"].as_u64().unwrap() > 0 && !read["attempts"].as_array().unwrap().is_empty());
        },
    );
}

fn any_world() -> impl Strategy<Value = World> {
    let readiness = prop::collection::btree_map(
        prop::sample::select(&PROVIDERS[..]).prop_map(str::to_owned),
        0..3u8,
        0..4,
    );
    let ids: Vec<String> = PROVIDERS
        .iter()
        .flat_map(|p| ["m", "n", "long"].map(|m| format!("{p}/{m}")))
        .collect();
    let figures = (prop::option::of(1.0..5_000.0), 0.0..1.0, 0..20u32, 0.0..1.0);
    let figures = figures.prop_map(|(first_token_ms, error_rate, in_flight, cached_share)| Measured {
        first_token_ms,
        tokens_per_second: None,
        error_rate,
        cached_share,
        in_flight,
    });
    let measured = prop::collection::btree_map(prop::sample::select(ids), figures, 0..12);
    (readiness, measured, 1..6usize, any::<bool>()).prop_map(|(readiness, measured, max_attempts, budget)| World {
        readiness,
        measured,
        max_attempts,
        budget_exhausted: budget && max_attempts == 5,
    })
}

fn any_config() -> impl Strategy<Value = Value> {
    let name = || prop::sample::select(&["a", "b", "c", "d", "a/m", "b/n"][..]);
    (
        prop::sample::select(Order::ALL),
        prop::collection::btree_map(name(), 0..5u32, 0..4),
        prop::option::of(prop::sample::select(&PROVIDERS[..])),
        prop::option::of(prop::sample::select(&PROVIDERS[..])),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(strategy, weights, off, pin, fallbacks, affinity)| {
            let mut config = json!({"strategy": strategy.as_str(), "weights": weights});
            if let Some(off) = off {
                config["providers"] = json!({off: {"enabled": false}});
            }
            if let Some(pin) = pin {
                config["rules"] = json!([{"name": "pin", "then": {"pin": [pin]}}]);
            }
            if fallbacks {
                config["fallback_models"] = json!({
                    "generic": {"*": ["n"]}, "context_window": {"*": ["long"]}, "content_policy": {"m": ["n", "long"]},
                    "budget_exhausted": {"*": ["n"]}
                });
            }
            if affinity {
                config["affinity"] = json!({"by": ["user"]});
            }
            config
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_laws_of_decisions(
        world in any_world(), config in any_config(), id in any::<u128>(), tokens in 0..120_000u64,
        user in prop::option::of("[a-z]{1,3}"),
    ) {
        let facts = Facts { id, input_tokens: tokens, user: user.as_deref(), ..facts("m") };
        let policy = policy(&config);
        let reasons = |decision: &Decision<'_>| serde_json::to_value(Reasons::of(decision)).unwrap();
        let first = decided(&facts, &policy, &world, reasons);
        prop_assert_eq!(&first, &decided(&facts, &policy, &world, reasons), "the same again");
        decided(&facts, &policy, &world, |decision| {
            let way = &decision.attempts[..decision.way];
            // Each deployment has one place.
            let mut all: Vec<&str> = decision.attempts.iter().map(|a| a.deployment.id.as_str()).collect();
            all.extend(decision.excluded.iter().map(|e| e.deployment.as_str()));
            let count = all.len();
            all.sort_unstable();
            all.dedup();
            prop_assert_eq!(all.len(), count);
            // What is excluded is not tried.
            let off = config["providers"].as_object().and_then(|providers| providers.keys().next());
            let pin = config["rules"][0]["then"]["pin"][0].as_str();
            for attempt in &decision.attempts {
                let provider = attempt.deployment.provider.as_str();
                prop_assert!(off.is_none_or(|off| off != provider) && pin.is_none_or(|pin| pin == provider));
            }
            // As many as allowed, and something or a reason.
            prop_assert!(way.len() <= world.max_attempts);
            prop_assert_eq!(way.is_empty(), decision.refusal.is_some());
            prop_assert!(decision.refusal.is_none() || decision.attempts.is_empty());
            // What is out of the rotation comes last.
            let ejected = |attempt: &Attempt| attempt.parts.readiness == Readiness::Ejected;
            prop_assert!(way.is_sorted_by_key(ejected));
            // What was asked for comes before what stands in for it, as long as it passes.
            if !world.budget_exhausted && way.iter().any(|a| a.stage != Stage::Generic && !ejected(a)) {
                prop_assert!(way[0].stage != Stage::Generic);
            }
            // What stands in has a place, if there is a second one.
            let generic = |a: &Attempt| a.stage == Stage::Generic && !ejected(a);
            let stands_in = decision.attempts.iter().any(generic)
                || decision.excluded.iter().any(|e| e.reason == Exclusion::AttemptLimit && e.deployment.as_str().ends_with("/n")
                    && e.parts.as_ref().is_some_and(|parts| parts.readiness != Readiness::Ejected));
            if !world.budget_exhausted && stands_in && world.max_attempts > 1 {
                prop_assert!(way.iter().any(generic));
            }
            // Prices decide where they are to.
            if decision.strategy == Order::CostOptimized && user.is_none() {
                let passing: Vec<&Attempt> = way
                    .iter()
                    .filter(|a| a.stage == Stage::Primary && a.parts.readiness == Readiness::Passing)
                    .filter(|a| policy.weight(a.deployment.id.as_str(), a.deployment.provider.as_str()) > 0.0)
                    .collect();
                prop_assert!(passing.is_sorted_by_key(|a| a.parts.cost_nanousd.unwrap_or(i64::MAX)));
            }
            Ok(())
        })?;
    }
}
