use std::collections::BTreeMap;

use chrono_tz::Tz;
use uuid::Uuid;

use super::*;
use crate::domain::budget::calendar::Period;
use crate::domain::budget::purse::Standing;
use crate::domain::budget::worst_case::{CallSize, ModelSize};
use crate::domain::budget::{BudgetTerms, Enforcement, Unpriced};
use crate::domain::call::{CacheStatus, Dialect, Operation};
use crate::domain::ids::KeyId;
use crate::domain::key::Revision;
use crate::domain::pricing::Rates;
use crate::domain::record::{AttemptRecord, Charge, Owner};
use crate::domain::service::Surcharges;

const CENT: i64 = 10_000_000;
const LEASE: Duration = Duration::from_secs(20);

/// A database that several replicas share.
#[derive(Default)]
struct Database(Mutex<BTreeMap<BudgetId, Account>>);

#[derive(Default)]
struct Account {
    limit: i64,
    spent: i64,
    slices: BTreeMap<u32, i64>,
    wanted: bool,
    exchanges: usize,
}

/// One replica's way to it.
struct Way {
    database: Arc<Database>,
    replica: u32,
    broken: Arc<AtomicBool>,
}

#[async_trait::async_trait]
impl Bank for Way {
    async fn exchange(&self, ask: Ask) -> Result<Option<Heard>, BoxError> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        if self.broken.load(Ordering::Relaxed) {
            return Err("the database is down".into());
        }
        let mut accounts = self.database.0.lock();
        let Some(account) = accounts.get_mut(&ask.budget) else {
            return Ok(None);
        };
        account.exchanges += 1;
        let others = account.slices.iter().filter(|(replica, _)| **replica != self.replica);
        let standing = Standing {
            limit: NanoUsd(account.limit),
            spent: NanoUsd(account.spent),
            others: NanoUsd(others.map(|(_, slice)| slice).sum()),
            wanted: account.wanted,
        };
        let granted = standing.grant(ask.keep, ask.need);
        account.wanted = granted.is_none();
        let slice = ask.keep.0 + granted.unwrap_or_default().0;
        account.slices.insert(self.replica, slice);
        Ok(Some(Heard {
            spent: NanoUsd(account.spent),
            slice: NanoUsd(slice),
        }))
    }

    async fn spent(&self, budget: BudgetId, _start: DateTime<Utc>) -> Result<NanoUsd, BoxError> {
        Ok(NanoUsd(
            self.database.0.lock().get(&budget).map_or(0, |account| account.spent),
        ))
    }
}

/// Replicas on one database, with budgets of so many nano-dollars.
struct World {
    database: Arc<Database>,
    broken: Arc<AtomicBool>,
    replicas: Vec<Arc<Budgets>>,
    budgets: Vec<Arc<Budget>>,
}

impl World {
    fn new(replicas: u32, limits: &[i64]) -> Self {
        let database = Arc::new(Database::default());
        let broken = Arc::new(AtomicBool::new(false));
        let numbers = 1_u128..;
        let budgets: Vec<Arc<Budget>> = limits
            .iter()
            .zip(numbers)
            .map(|(&limit, id)| budget(id, limit))
            .collect();
        for budget in &budgets {
            let account = Account {
                limit: budget.terms.amount.0,
                ..Account::default()
            };
            database.0.lock().insert(budget.id, account);
        }
        let replica = |replica| {
            let way = Way {
                database: database.clone(),
                replica,
                broken: broken.clone(),
            };
            let limits = BudgetLimits {
                wait: Duration::from_secs(5),
                max_waiting: 1_000,
                lease: LEASE,
            };
            Arc::new(Budgets::new(Arc::new(way), limits, Arc::default()))
        };
        Self {
            replicas: (0..replicas).map(replica).collect(),
            database,
            broken,
            budgets,
        }
    }

    /// A call at a replica that may cost so much of every budget.
    async fn admit(&self, replica: usize, worst: i64) -> Result<Reservation, Box<BudgetRefusal>> {
        let mut reservation = Reservation::default();
        self.extend(replica, &mut reservation, worst)
            .await
            .map(|()| reservation)
    }

    async fn extend(
        &self,
        replica: usize,
        reservation: &mut Reservation,
        total: i64,
    ) -> Result<(), Box<BudgetRefusal>> {
        let gates = self.replicas[replica].open(&self.budgets);
        let (bound, price) = (bound(), price());
        let mut needs: Vec<Need<'_>> = gates
            .iter()
            .map(|gate| Need {
                gate,
                total: NanoUsd(total),
                bound: &bound,
                price: &price,
            })
            .collect();
        self.replicas[replica]
            .extend(reservation, &mut needs, Utc::now(), false)
            .await
    }

    /// The call ended; its record is in the ledger after a while.
    async fn settle(&self, replica: usize, mut reservation: Reservation, cost: i64) {
        let record = record(cost);
        self.replicas[replica].settle(&mut reservation, &record);
        tokio::time::sleep(Duration::from_millis(200)).await;
        for account in self.database.0.lock().values_mut() {
            account.spent += cost;
        }
        self.replicas[replica].wrote(&[record]);
    }

    /// Every replica tells the database what it still needs, as its actor would have it do.
    async fn sync(&self) {
        for replica in &self.replicas {
            for gate in &replica.open(&self.budgets) {
                for page in gate.pages() {
                    replica.exchange(gate, &page, NanoUsd::ZERO, false).await.unwrap();
                }
            }
        }
    }

    /// What is reserved and what is on its way to the ledger, of the first budget.
    fn at(&self, replica: usize) -> (i64, i64) {
        let gate = &self.replicas[replica].open(&self.budgets)[0];
        gate.page(Utc::now())
            .look(|purse| (purse.reserved().0, purse.unwritten().0))
    }

    fn account<T>(&self, look: impl FnOnce(&Account) -> T) -> T {
        look(&self.database.0.lock()[&self.budgets[0].id])
    }
}

fn budget(id: u128, limit: i64) -> Arc<Budget> {
    Arc::new(Budget {
        id: BudgetId(Uuid::from_u128(id)),
        organization: OrganizationId(Uuid::nil()),
        scope: BudgetScope::Organization,
        label: "organization \"test\"".into(),
        terms: BudgetTerms {
            amount: NanoUsd(limit),
            period: Period::Total,
            zone: Tz::UTC,
            enforcement: Enforcement::Hard,
            unpriced: Unpriced::Refuse,
            default_output_tokens: None,
            thresholds: [100].into_iter().collect(),
            enabled: true,
        },
        revision: Revision(1),
    })
}

/// A call of 100 tokens, which the tests give any cost they like.
fn bound() -> Bound {
    let call = CallSize {
        max_output_tokens: Some(100),
        generations: 1,
        ..CallSize::default()
    };
    Bound::of(&call, &ModelSize::default())
}

fn price() -> Price {
    Price {
        version: "test".into(),
        rates: Rates {
            output: NanoUsd(1_000_000_000),
            ..Rates::default()
        },
        long_prompt: None,
        batch: None,
        surcharges: Surcharges::default(),
    }
}

fn record(cost: i64) -> UsageRecord {
    let attempt = AttemptRecord {
        deployment: "openai/m".into(),
        provider: "openai".into(),
        model: "m".into(),
        started_after: Duration::ZERO,
        latency: Duration::ZERO,
        first_token: None,
        status: Some(200),
        error: None,
        upstream_request_id: None,
        charge: Charge {
            cost: Some(NanoUsd(cost)),
            ..Charge::nothing()
        },
    };
    UsageRecord {
        id: RequestId(Uuid::now_v7()),
        owner: Owner {
            organization: OrganizationId(Uuid::nil()),
            team: None,
            key: KeyId(Uuid::nil()),
        },
        admitted_at: Utc::now(),
        operation: Operation::Chat,
        dialect: Dialect::OpenAi,
        requested_model: "m".into(),
        stream: false,
        status: 200,
        error: None,
        client_cancelled: false,
        latency: Duration::ZERO,
        first_token: None,
        overhead: Duration::ZERO,
        routing: None,
        trace: None,
        cache: CacheStatus::Bypass,
        cached_from: None,
        attempts: vec![attempt],
    }
}

fn reason(refusal: &BudgetRefusal) -> &'static str {
    refusal.reason.as_str()
}

#[tokio::test(start_paused = true)]
async fn twenty_calls_of_a_cent_pass_a_quarter_dollar_although_each_may_cost_two() {
    for replicas in [1, 2] {
        let world = World::new(replicas, &[25 * CENT]);
        let call = async |number: usize| {
            let replica = number % world.replicas.len();
            let reservation = world.admit(replica, 2 * CENT).await.expect("it fits");
            tokio::time::sleep(Duration::from_millis(100)).await;
            world.settle(replica, reservation, CENT).await;
        };
        futures_util::future::join_all((0..20).map(call)).await;
        assert_eq!(world.account(|account| account.spent), 20 * CENT);
        world.sync().await;
        assert_eq!(world.account(|account| account.slices.values().sum::<i64>()), 0);
        // Five cents are left: two more calls are certain to fit, and then no third one after the second has settled.
        world.settle(0, world.admit(0, 2 * CENT).await.unwrap(), 2 * CENT).await;
        world.settle(0, world.admit(0, 2 * CENT).await.unwrap(), 2 * CENT).await;
        let refusal = world.admit(0, 2 * CENT).await.err().unwrap();
        assert_eq!(reason(&refusal), "used_up");
        assert_eq!(world.at(0), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_calls_at_two_replicas_spend_what_there_is_and_no_more() {
    let world = World::new(2, &[20 * CENT]);
    let call = async |number: usize| {
        let replica = number % 2;
        match world.admit(replica, CENT).await {
            Ok(reservation) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                world.settle(replica, reservation, CENT).await;
                true
            }
            Err(_) => false,
        }
    };
    let served = futures_util::future::join_all((0..1_000).map(call)).await;
    assert_eq!(served.iter().filter(|&&served| served).count(), 20);
    assert_eq!(world.account(|account| account.spent), 20 * CENT);
}

#[tokio::test(start_paused = true)]
async fn what_settled_calls_rule_out_is_refused_at_once_and_without_asking() {
    let world = World::new(1, &[10 * CENT]);
    world.settle(0, world.admit(0, 9 * CENT).await.unwrap(), 9 * CENT).await;
    let (begun, asked) = (Instant::now(), world.account(|account| account.exchanges));
    let refusal = world.admit(0, 2 * CENT).await.err().unwrap();
    let fits = match refusal.reason {
        Reason::UsedUp { fits, .. } => fits,
        other => panic!("{other:?}"),
    };
    assert_eq!(fits, Some(10_000), "a cent is left");
    assert_eq!(reason(&world.admit(0, 11 * CENT).await.err().unwrap()), "too_large");
    assert_eq!(
        (begun.elapsed(), world.account(|account| account.exchanges)),
        (Duration::ZERO, asked)
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_those_under_way_and_not_for_ever() {
    let world = World::new(1, &[10 * CENT]);
    let holder = world.admit(0, 10 * CENT).await.unwrap();
    let begun = Instant::now();
    assert_eq!(reason(&world.admit(0, CENT).await.err().unwrap()), "held");
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
    // One that leaves without having cost anything makes room at once.
    let begun = Instant::now();
    let (waiter, ()) = tokio::join!(world.admit(0, CENT), async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        drop(holder);
    });
    assert!(waiter.is_ok() && begun.elapsed() < Duration::from_millis(50));
    drop(waiter);
    assert_eq!(world.at(0).0, 0);
}

#[tokio::test(start_paused = true)]
async fn callers_are_served_in_the_order_they_came_and_only_so_many_wait() {
    let world = World::new(1, &[10 * CENT]);
    let holder = world.admit(0, 10 * CENT).await.unwrap();
    let order = Mutex::new(Vec::new());
    let waiting = (0..5_usize).map(async |number| {
        // The large one came first, and the small ones do not overtake it.
        tokio::time::sleep(Duration::from_millis(number as u64)).await;
        let reservation = world.admit(0, if number == 0 { 8 * CENT } else { CENT }).await;
        order.lock().push((number, reservation.is_ok()));
    });
    let release = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        drop(holder);
    };
    tokio::join!(futures_util::future::join_all(waiting), release);
    assert_eq!(*order.lock(), [0, 1, 2, 3, 4].map(|number| (number, true)));

    let holder = world.admit(0, 10 * CENT).await.unwrap();
    let crowd = futures_util::future::join_all((0..1_200).map(|_| world.admit(0, CENT)));
    let begun = Instant::now();
    let (_, after) = tokio::join!(crowd, async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let begun = Instant::now();
        let late = world.admit(0, CENT).await;
        drop(holder);
        (reason(&late.err().unwrap()), begun.elapsed())
    });
    assert_eq!(after, ("held", Duration::ZERO), "there was no more room to wait");
    assert!(begun.elapsed() < Duration::from_secs(6));
}

#[tokio::test(start_paused = true)]
async fn of_several_budgets_all_are_reserved_or_none() {
    let world = World::new(1, &[100 * CENT, 3 * CENT]);
    let held = world.admit(0, 2 * CENT).await.unwrap();
    assert_eq!(
        reason(&world.admit(0, 2 * CENT).await.err().unwrap()),
        "held",
        "the second one is short"
    );
    assert_eq!(world.at(0).0, 2 * CENT, "the first one has back what it gave");
    world.settle(0, held, 2 * CENT).await;
    assert_eq!(reason(&world.admit(0, 2 * CENT).await.err().unwrap()), "used_up");
    assert_eq!(world.at(0), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_further_attempt_comes_on_top_of_what_the_first_one_cost() {
    let world = World::new(1, &[10 * CENT]);
    let mut reservation = world.admit(0, 4 * CENT).await.unwrap();
    world.extend(0, &mut reservation, 7 * CENT).await.unwrap();
    assert_eq!(world.at(0).0, 7 * CENT);
    world.extend(0, &mut reservation, 7 * CENT).await.unwrap();
    assert_eq!(world.at(0).0, 7 * CENT, "what is held is not reserved again");
    assert!(world.extend(0, &mut reservation, 11 * CENT).await.is_err());
    assert_eq!(world.at(0).0, 7 * CENT);
    world.settle(0, reservation, 5 * CENT).await;
    assert_eq!(world.at(0), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn while_the_database_is_down_a_slice_is_used_up_and_then_calls_are_refused() {
    let world = World::new(1, &[100 * CENT]);
    drop(world.admit(0, CENT).await.unwrap());
    world.broken.store(true, Ordering::Relaxed);
    // A quarter was set aside.
    let mut held = Vec::new();
    for _ in 0..25 {
        held.push(world.admit(0, CENT).await.unwrap());
    }
    let begun = Instant::now();
    assert_eq!(reason(&world.admit(0, CENT).await.err().unwrap()), "unknown");
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
    // Calls that end make room, also now; but a lease that nobody renews ends.
    held.pop();
    assert!(world.admit(0, CENT).await.is_ok());
    tokio::time::sleep(LEASE).await;
    assert_eq!(reason(&world.admit(0, CENT).await.err().unwrap()), "unknown");
    world.broken.store(false, Ordering::Relaxed);
    assert!(world.admit(0, CENT).await.is_ok());
    drop(held);
    assert_eq!(world.at(0), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_was_raised_or_deleted_lets_those_who_wait_pass() {
    let mut world = World::new(1, &[CENT]);
    world.settle(0, world.admit(0, CENT).await.unwrap(), CENT).await;
    assert!(world.admit(0, CENT).await.is_err());
    let raised = Budget {
        revision: Revision(2),
        terms: BudgetTerms {
            amount: NanoUsd(3 * CENT),
            ..world.budgets[0].terms.clone()
        },
        ..Budget::clone(&world.budgets[0])
    };
    world.database.0.lock().get_mut(&raised.id).unwrap().limit = 3 * CENT;
    world.budgets = vec![Arc::new(raised)];
    let held = world.admit(0, CENT).await.unwrap();
    world.database.0.lock().clear();
    let gate = world.replicas[0].open(&world.budgets)[0].clone();
    assert!(gate.refuses());
    let page = gate.page(Utc::now());
    world.replicas[0]
        .exchange(&gate, &page, NanoUsd(CENT), false)
        .await
        .unwrap();
    assert!(!gate.refuses());
    drop(held);
}
