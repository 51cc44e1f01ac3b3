use proptest::prelude::*;
use tokio::time::advance;
use uuid::Uuid;

use super::*;
use crate::domain::ids::{KeyId, TeamId};
use crate::domain::limit::LimitOwner;
use crate::domain::window;

fn limiter() -> Arc<Limiter> {
    Limiter::alone(WhenApart::Local, Arc::default())
}

fn organization() -> OrganizationId {
    OrganizationId(Uuid::from_u128(1))
}

fn scope(owner: LimitOwner) -> LimitScope {
    LimitScope { owner, model: None }
}

fn key(number: u128) -> LimitScope {
    scope(LimitOwner::Key(KeyId(Uuid::from_u128(number))))
}

fn requests(limit: u64) -> LimitValues {
    LimitValues {
        requests: Some(limit),
        ..LimitValues::default()
    }
}

fn limits(limiter: &Limiter, of: &[(LimitScope, LimitValues)]) -> Limits {
    of.iter()
        .map(|(scope, values)| limiter.limit(organization(), scope, *values, None))
        .collect()
}

fn reached(result: Result<Hold, Refusal>) -> Reached {
    match result.map(drop) {
        Err(Refusal {
            reason: Reason::Reached(reached),
            ..
        }) => *reached,
        other => panic!("{other:?}"),
    }
}

/// What counts of one kind.
async fn used(limiter: &Arc<Limiter>, of: &[(LimitScope, LimitValues)], kind: LimitKind) -> Vec<u64> {
    let looks = limiter.look(&limits(limiter, of)).await;
    let of_kind = looks.iter().filter(|look| look.kind == kind);
    of_kind
        .map(|look| look.standing.limit - look.standing.remaining)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_request_counts_against_all_of_its_limits_or_against_none() {
    let limiter = limiter();
    let team = scope(LimitOwner::Team(TeamId(Uuid::from_u128(2))));
    let of = [
        (key(1), requests(5)),
        (team, requests(3)),
        (scope(LimitOwner::Organization), requests(100)),
    ];
    for _ in 0..3 {
        limiter.take(limits(&limiter, &of), Demand::default()).await.unwrap();
    }
    for _ in 0..10 {
        let refused = reached(limiter.take(limits(&limiter, &of), Demand::default()).await);
        assert_eq!(
            (refused.scope.owner.word(), refused.limit, refused.used),
            ("team", 3, 3)
        );
        // Exactly: in that time it passes, and not a millisecond before.
        assert!(refused.retry_after.unwrap() <= window::LONGEST);
    }
    assert_eq!(used(&limiter, &of, LimitKind::Requests).await, [3, 3, 3]);
    let wait = reached(limiter.take(limits(&limiter, &of), Demand::default()).await).retry_after;
    advance(wait.unwrap() - Duration::from_millis(1)).await;
    assert!(limiter.take(limits(&limiter, &of), Demand::default()).await.is_err());
    advance(Duration::from_millis(1)).await;
    assert!(limiter.take(limits(&limiter, &of), Demand::default()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn reserved_tokens_are_corrected_to_what_was_used() {
    let limiter = limiter();
    let values = LimitValues {
        input_tokens: Some(1_000),
        output_tokens: Some(1_000),
        tokens: Some(1_500),
        ..LimitValues::default()
    };
    let of = [(key(1), values)];
    let demand = Demand {
        input_tokens: 100,
        output_tokens: 800,
    };
    let mut hold = limiter.take(limits(&limiter, &of), demand).await.unwrap();
    assert_eq!(hold.standings.tokens.unwrap().remaining, 200, "the tightest is shown");
    let refused = reached(limiter.take(limits(&limiter, &of), demand).await);
    assert_eq!(
        (refused.kind, refused.used, refused.need),
        (LimitKind::OutputTokens, 800, 800)
    );
    hold.settle(Demand {
        input_tokens: 150,
        output_tokens: 20,
    });
    assert_eq!(used(&limiter, &of, LimitKind::InputTokens).await, [150]);
    assert_eq!(used(&limiter, &of, LimitKind::OutputTokens).await, [20]);
    assert_eq!(used(&limiter, &of, LimitKind::Tokens).await, [170]);
    hold.settle(Demand::default());
    drop(hold);
    assert_eq!(used(&limiter, &of, LimitKind::Tokens).await, [170], "only once");

    let too_large = Demand {
        input_tokens: 1_001,
        output_tokens: 1,
    };
    let refused = reached(limiter.take(limits(&limiter, &of), too_large).await);
    assert_eq!(
        (refused.kind, refused.retry_after),
        (LimitKind::InputTokens, None),
        "waiting is no use"
    );
}

#[tokio::test(start_paused = true)]
async fn requests_under_way_are_bounded_and_come_back_however_they_end() {
    let limiter = limiter();
    let values = LimitValues {
        concurrency: Some(2),
        ..LimitValues::default()
    };
    let of = [(key(1), values)];
    let mut one = limiter.take(limits(&limiter, &of), Demand::default()).await.unwrap();
    let other = limiter.take(limits(&limiter, &of), Demand::default()).await.unwrap();
    let refused = reached(limiter.take(limits(&limiter, &of), Demand::default()).await);
    assert_eq!(
        (refused.kind, refused.used, refused.limit),
        (LimitKind::Concurrency, 2, 2)
    );
    one.settle(Demand::default());
    let third = limiter.take(limits(&limiter, &of), Demand::default()).await.unwrap();
    drop((one, other, third));
    assert_eq!(used(&limiter, &of, LimitKind::Concurrency).await, [0]);
}

#[tokio::test(start_paused = true)]
async fn replicas_that_cannot_count_together_allow_their_share() {
    let limiter = limiter();
    limiter.replicas_are(3);
    let of = [(key(1), requests(100))];
    let mut passed = 0;
    for _ in 0..200 {
        passed += u64::from(limiter.take(limits(&limiter, &of), Demand::default()).await.is_ok());
    }
    assert_eq!(passed, 33);
    limiter.replicas_are(1);
    assert!(limiter.take(limits(&limiter, &of), Demand::default()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_nobody_uses_is_forgotten() {
    let limiter = limiter();
    for number in 0..500 {
        limiter
            .take(limits(&limiter, &[(key(number), requests(60))]), Demand::default())
            .await
            .unwrap();
    }
    limiter.sweep();
    assert_eq!(limiter.metrics.counters.get(), 500);
    advance(window::LONGEST).await;
    limiter.sweep();
    assert_eq!(limiter.metrics.counters.get(), 0);
}

#[test]
fn many_threads_share_a_limit_to_the_last_request() {
    let limiter = limiter();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let _guard = runtime.enter();
    let of = [
        (key(1), requests(1_000)),
        (scope(LimitOwner::Organization), requests(1_500)),
    ];
    let passed: u64 = std::thread::scope(|threads| {
        let workers: Vec<_> = (0..4)
            .map(|number| {
                let (limiter, of) = (limiter.clone(), &of);
                threads.spawn(move || {
                    // Half of them lock their scopes the other way round.
                    let mut of = of.to_vec();
                    if number % 2 == 0 {
                        of.reverse();
                    }
                    let taking = (0..500).map(|_| {
                        let limits = limits(&limiter, &of);
                        let taken = futures_util::FutureExt::now_or_never(limiter.take(limits, Demand::default()));
                        u64::from(taken.expect("nobody is waited for").is_ok())
                    });
                    taking.sum::<u64>()
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    assert_eq!(passed, 1_000);
}

#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Take { input: u64, output: u64 },
    Settle { which: usize, input: u64, output: u64 },
    Drop(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..40_000u64).prop_map(Step::Pass),
        5 => (0..200u64, 0..200u64).prop_map(|(input, output)| Step::Take { input, output }),
        3 => (0..20usize, 0..300u64, 0..300u64)
            .prop_map(|(which, input, output)| Step::Settle { which, input, output }),
        1 => (0..20usize).prop_map(Step::Drop),
    ];
    proptest::collection::vec(step, 1..120)
}

proptest! {
    /// Any interleaving of requests, ends and drops leaves nothing reserved: at rest what counts is what was used.
    #[test]
    fn nothing_leaks(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let limiter = limiter();
            let values = LimitValues {
                requests: Some(50), input_tokens: Some(2_000), output_tokens: Some(1_500), tokens: Some(3_000),
                concurrency: Some(8),
            };
            let of = [(key(1), values), (scope(LimitOwner::Organization), values)];
            let mut holds: Vec<Hold> = Vec::new();
            for step in steps {
                match step {
                    Step::Pass(ms) => advance(Duration::from_millis(ms)).await,
                    Step::Take { input, output } => {
                        let demand = Demand { input_tokens: input, output_tokens: output };
                        if let Ok(hold) = limiter.take(limits(&limiter, &of), demand).await {
                            holds.push(hold);
                        }
                    }
                    Step::Settle { which, input, output } if which < holds.len() => {
                        holds.remove(which).settle(Demand { input_tokens: input, output_tokens: output });
                    }
                    Step::Drop(which) if which < holds.len() => drop(holds.remove(which)),
                    Step::Settle { .. } | Step::Drop(_) => {}
                }
                let in_flight = used(&limiter, &of, LimitKind::Concurrency).await;
                let expected = holds.len() as u64;
                prop_assert_eq!(in_flight, [expected, expected]);
                prop_assert!(holds.len() <= 8);
                for kind in LimitKind::PER_MINUTE {
                    let counts = used(&limiter, &of, kind).await;
                    prop_assert_eq!(counts[0], counts[1], "all or none");
                }
            }
            holds.clear();
            prop_assert_eq!(used(&limiter, &of, LimitKind::Concurrency).await, [0, 0]);
            advance(window::LONGEST).await;
            for kind in LimitKind::ALL {
                prop_assert_eq!(used(&limiter, &of, kind).await, [0, 0]);
            }
            limiter.sweep();
            prop_assert_eq!(limiter.metrics.counters.get(), 0);
            Ok(())
        })?;
    }
}
