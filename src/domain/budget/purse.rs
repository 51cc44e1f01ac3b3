//! One replica's part of a budget, and the arithmetic by which the database hands parts out.
//!
//! The database sets a *slice* of a budget aside for each replica that asks, so that what is spent and all slices
//! together are never more than the amount. A [`Purse`] is what a replica does with its slice:
//!
//! ```text
//! slice = free + reserved (calls under way, at their worst)
//!              + unwritten (calls that ended, at their cost; not in the ledger yet)
//!              + written (in the ledger, and the database has not been told to make the slice smaller yet)
//! ```
//!
//! Money leaves a purse only through an *exchange* with the database, which says how much is to stay and how much is
//! needed on top. What stays is an absolute figure. So an exchange whose answer got lost does no harm: either it was
//! carried out, or more is set aside than is used until the next one.

use std::time::Instant;

use crate::domain::money::NanoUsd;

/// A call gets a quarter of what is left as a slice, as long as that is at least so many times what it needs. Below that
/// it gets what it needs, one call at a time: the edge.
const EDGE: i64 = 2;
/// The part of what is left that becomes a slice.
const SHARE: i64 = 4;

/// One replica's part of one budget in one period.
#[derive(Clone, Default, Debug)]
pub struct Purse {
    slice: i64,
    reserved: i64,
    unwritten: i64,
    written: i64,
    /// What has been spent by everybody, at the least.
    spent_at_least: i64,
    /// The ledger's sum at the last exchange. Smaller than that it only becomes where past calls are priced anew.
    heard: i64,
    /// The slice may be used until then; `None` before the first one.
    valid_until: Option<Instant>,
}

/// What becomes of a call that wants to reserve its worst case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is reserved.
    Reserved,
    /// It may yet fit: more may be had from the database, or be left over when calls under way have ended.
    WaitFor,
    /// It does not fit into what is left in this period, however calls under way end.
    UsedUp,
    /// It would not fit into the whole budget.
    TooLarge,
}

/// What the database answers in an exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heard {
    /// The sum of the ledger.
    pub spent: NanoUsd,
    /// What is set aside for this replica from now on.
    pub slice: NanoUsd,
}

impl Purse {
    /// Sets the worst case of a call aside, if it fits.
    pub fn reserve(&mut self, limit: NanoUsd, need: NanoUsd, now: Instant) -> Verdict {
        let verdict = self.look(limit, need, now);
        if verdict == Verdict::Reserved {
            self.reserved += need.0;
        }
        verdict
    }

    /// What [`reserve`](Self::reserve) would say.
    pub fn look(&self, limit: NanoUsd, need: NanoUsd, now: Instant) -> Verdict {
        if need > limit {
            Verdict::TooLarge
        } else if self.spent_at_least.saturating_add(need.0) > limit.0 {
            Verdict::UsedUp
        } else if self.valid_until.is_some_and(|end| now < end) && self.free() >= need.0 {
            Verdict::Reserved
        } else {
            Verdict::WaitFor
        }
    }

    fn free(&self) -> i64 {
        self.slice - self.reserved - self.unwritten - self.written
    }

    /// A call gives back what it had reserved, without having cost anything.
    pub fn release(&mut self, reserved: NanoUsd) {
        self.settle(reserved, NanoUsd::ZERO);
    }

    /// A call ended. What it cost waits for the ledger from now on.
    pub fn settle(&mut self, reserved: NanoUsd, cost: NanoUsd) {
        self.reserved -= reserved.0;
        self.unwritten = self.unwritten.saturating_add(cost.0);
        self.spent_at_least = self.spent_at_least.saturating_add(cost.0);
    }

    /// The cost of a call is in the ledger.
    pub fn wrote(&mut self, cost: NanoUsd) {
        self.unwritten -= cost.0;
        self.written = self.written.saturating_add(cost.0);
    }

    /// An exchange begins: gives what must stay set aside. Until it ends nothing else can be reserved but what calls give
    /// back; with `keep_free` what is free stays, too.
    pub fn begin_exchange(&mut self, keep_free: bool, now: Instant) -> NanoUsd {
        let used = self.reserved.saturating_add(self.unwritten);
        let valid = self.valid_until.is_some_and(|end| now < end);
        let keep = match keep_free && valid {
            true => (self.slice - self.written).max(used),
            false => used,
        };
        // What is in the ledger by now is counted there.
        self.written = 0;
        self.slice = keep;
        NanoUsd(keep)
    }

    /// The exchange was carried out. The slice may be used until `valid_until`, which must be earlier than the database
    /// takes it back.
    pub fn end_exchange(&mut self, heard: Heard, valid_until: Instant) {
        self.slice = heard.slice.0;
        // All that was spent here is in the sum, or it is smaller than it was: then the sum alone is to be believed.
        let all_is_in = self.unwritten == 0 && self.written == 0;
        let priced_anew = heard.spent.0 < self.heard;
        self.spent_at_least = match all_is_in || priced_anew {
            true => heard.spent.0,
            false => self.spent_at_least.max(heard.spent.0),
        };
        self.heard = heard.spent.0;
        self.valid_until = Some(valid_until);
    }

    /// The database knows that we still hold the slice.
    pub fn renewed(&mut self, valid_until: Instant) {
        // One that was never had is not renewed.
        if self.valid_until.is_some_and(|end| end < valid_until) {
            self.valid_until = Some(valid_until);
        }
    }

    /// The worst cases of the calls under way.
    pub fn reserved(&self) -> NanoUsd {
        NanoUsd(self.reserved)
    }

    /// What has been spent by everybody, at the least.
    pub fn spent_at_least(&self) -> NanoUsd {
        NanoUsd(self.spent_at_least)
    }

    /// What was spent here and is not known to be in the ledger.
    pub fn unwritten(&self) -> NanoUsd {
        NanoUsd(self.unwritten)
    }

    /// Whether somebody else could make use of a part of the slice.
    pub fn has_free(&self) -> bool {
        self.slice > self.reserved.saturating_add(self.unwritten)
    }

    /// Whether something of the slice is in the ledger, so that it is counted twice.
    pub fn has_written(&self) -> bool {
        self.written > 0
    }

    /// Whether nothing is set aside here, and nothing is waiting for anything.
    pub fn is_empty(&self) -> bool {
        self.slice == 0 && self.reserved == 0 && self.unwritten == 0 && self.written == 0
    }
}

/// Where a budget stands when a replica asks the database for a part of it.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// The budget's amount.
    pub limit: NanoUsd,
    /// The sum of the ledger.
    pub spent: NanoUsd,
    /// The slices of all other replicas.
    pub others: NanoUsd,
    /// Whether another replica has just asked in vain.
    pub wanted: bool,
}

impl Standing {
    /// What a replica gets on top of what it keeps, if it needs so much; `None`: there is not enough.
    ///
    /// It gets all that it needs or nothing, because a part would help nobody and be missing elsewhere.
    pub fn grant(&self, keep: NanoUsd, need: NanoUsd) -> Option<NanoUsd> {
        if need.0 <= 0 {
            return Some(NanoUsd::ZERO);
        }
        let taken = self.spent.0.saturating_add(self.others.0).saturating_add(keep.0);
        let left = self.limit.0.saturating_sub(taken);
        if left < need.0 {
            return None;
        }
        let share = left / SHARE;
        let at_the_edge = self.wanted || share < need.0.saturating_mul(EDGE);
        Some(if at_the_edge { need } else { NanoUsd(share) })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const LIMIT: NanoUsd = NanoUsd(1_000);
    const LEASE: Duration = Duration::from_secs(20);
    const GRACE: Duration = Duration::from_secs(30);

    #[test]
    fn a_budget_that_settled_calls_have_used_up_refuses_at_once_and_others_wait() {
        let now = Instant::now();
        let mut purse = Purse::default();
        assert_eq!(
            purse.reserve(LIMIT, NanoUsd(600), now),
            Verdict::WaitFor,
            "nothing is set aside yet"
        );
        assert_eq!(purse.reserve(LIMIT, NanoUsd(1_001), now), Verdict::TooLarge);
        let heard = Heard {
            spent: NanoUsd(100),
            slice: NanoUsd(900),
        };
        purse.end_exchange(heard, now + LEASE);
        assert_eq!(purse.reserve(LIMIT, NanoUsd(600), now), Verdict::Reserved);
        assert_eq!(
            purse.reserve(LIMIT, NanoUsd(600), now),
            Verdict::WaitFor,
            "the first one may cost less"
        );
        purse.settle(NanoUsd(600), NanoUsd(300));
        assert_eq!(purse.reserve(LIMIT, NanoUsd(601), now), Verdict::UsedUp);
        assert_eq!(purse.reserve(LIMIT, NanoUsd(600), now), Verdict::Reserved);
        assert_eq!(
            purse.look(LIMIT, NanoUsd(0), now + LEASE),
            Verdict::WaitFor,
            "the slice is no longer ours"
        );
    }

    #[test]
    fn what_is_priced_anew_at_less_can_be_spent_again() {
        let now = Instant::now();
        let mut purse = Purse::default();
        let hear = |purse: &mut Purse, spent, slice| {
            purse.begin_exchange(false, now);
            let heard = Heard {
                spent: NanoUsd(spent),
                slice: NanoUsd(slice),
            };
            purse.end_exchange(heard, now + LEASE);
        };
        hear(&mut purse, 900, 100);
        assert_eq!(purse.reserve(LIMIT, NanoUsd(200), now), Verdict::UsedUp);
        hear(&mut purse, 500, 200);
        assert_eq!(purse.spent_at_least(), NanoUsd(500));
        assert_eq!(purse.reserve(LIMIT, NanoUsd(200), now), Verdict::Reserved);
        // What the sum does not have yet is not forgotten for that.
        purse.settle(NanoUsd(200), NanoUsd(150));
        hear(&mut purse, 550, 150);
        assert_eq!(purse.spent_at_least(), NanoUsd(650));
        // It has it now, and others were priced anew.
        purse.wrote(NanoUsd(150));
        hear(&mut purse, 600, 0);
        hear(&mut purse, 600, 0);
        assert_eq!(purse.spent_at_least(), NanoUsd(600));
    }

    #[test]
    fn slices_become_smaller_and_at_the_edge_a_call_gets_what_it_needs() {
        let grant = |spent, others, need| {
            let standing = Standing {
                limit: LIMIT,
                spent: NanoUsd(spent),
                others: NanoUsd(others),
                wanted: false,
            };
            standing.grant(NanoUsd::ZERO, NanoUsd(need)).map(|grant| grant.0)
        };
        assert_eq!(grant(0, 0, 10), Some(250));
        assert_eq!(grant(200, 200, 10), Some(150));
        assert_eq!(grant(900, 20, 10), Some(20));
        assert_eq!(grant(900, 21, 10), Some(10));
        assert_eq!(grant(900, 90, 10), Some(10));
        assert_eq!(grant(900, 91, 10), None);
    }

    /// A database with replicas, as time passes.
    struct World {
        now: Instant,
        spent: i64,
        slices: BTreeMap<usize, Slice>,
        replicas: Vec<Replica>,
        next: usize,
        wanted: bool,
    }

    #[derive(Clone, Copy)]
    struct Slice {
        amount: i64,
        expires: Instant,
        gone: Option<Instant>,
    }

    #[derive(Default)]
    struct Replica {
        id: usize,
        purse: Purse,
        /// The worst cases of its calls under way.
        calls: Vec<i64>,
        /// Costs on their way to the ledger.
        journal: Vec<i64>,
        /// In the ledger, and it has not heard of that.
        unheard: Vec<i64>,
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Admit {
            replica: usize,
            need: i64,
        },
        Settle {
            replica: usize,
            call: usize,
            percent: i64,
        },
        Write {
            replica: usize,
        },
        Hear {
            replica: usize,
        },
        Exchange {
            replica: usize,
            need: i64,
            keep_free: bool,
            fate: Fate,
        },
        Renew {
            replica: usize,
        },
        Crash {
            replica: usize,
        },
        Wait {
            seconds: u64,
        },
    }

    /// What becomes of an exchange.
    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Fate {
        Done,
        /// It was done, and nobody heard the answer.
        Unheard,
        /// It was not done.
        Failed,
    }

    impl World {
        fn new() -> Self {
            let replica = |id| Replica {
                id,
                ..Replica::default()
            };
            Self {
                now: Instant::now(),
                spent: 0,
                slices: BTreeMap::new(),
                replicas: (0..3).map(replica).collect(),
                next: 3,
                wanted: false,
            }
        }

        /// What the database does with slices nobody renewed, whenever it is asked.
        fn reclaim(&mut self) {
            let now = self.now;
            self.slices.retain(|_, slice| slice.gone.is_none_or(|gone| now < gone));
            for slice in self.slices.values_mut().filter(|slice| slice.expires <= now) {
                slice.gone.get_or_insert(now + GRACE);
            }
        }

        fn exchange(&mut self, replica: usize, need: i64, keep_free: bool, fate: Fate) {
            let now = self.now;
            let keep = self.replicas[replica].purse.begin_exchange(keep_free, now);
            if fate == Fate::Failed {
                return;
            }
            self.reclaim();
            let id = self.replicas[replica].id;
            let others = self.slices.iter().filter(|(other, _)| **other != id);
            let standing = Standing {
                limit: LIMIT,
                spent: NanoUsd(self.spent),
                others: NanoUsd(others.map(|(_, slice)| slice.amount).sum()),
                wanted: self.wanted,
            };
            let grant = standing.grant(keep, NanoUsd(need));
            self.wanted = grant.is_none();
            let amount = keep.0 + grant.unwrap_or_default().0;
            let slice = Slice {
                amount,
                expires: now + LEASE,
                gone: None,
            };
            match amount {
                0 => self.slices.remove(&id),
                _ => self.slices.insert(id, slice),
            };
            if fate == Fate::Done {
                let heard = Heard {
                    spent: NanoUsd(self.spent),
                    slice: NanoUsd(amount),
                };
                self.replicas[replica].purse.end_exchange(heard, now + LEASE);
            }
        }

        fn renew(&mut self, replica: usize) {
            self.reclaim();
            let now = self.now;
            let replica = &mut self.replicas[replica];
            if let Some(slice) = self.slices.get_mut(&replica.id) {
                (slice.expires, slice.gone) = (now + LEASE, None);
                replica.purse.renewed(now + LEASE);
            }
        }

        fn write(&mut self, replica: usize) {
            let replica = &mut self.replicas[replica];
            self.spent += replica.journal.iter().sum::<i64>();
            replica.unheard.append(&mut replica.journal);
        }

        fn hear(&mut self, replica: usize) {
            let replica = &mut self.replicas[replica];
            for cost in replica.unheard.drain(..) {
                replica.purse.wrote(NanoUsd(cost));
            }
        }

        fn take(&mut self, step: Step) {
            match step {
                Step::Admit { replica, need } => {
                    let now = self.now;
                    let replica = &mut self.replicas[replica];
                    if replica.purse.reserve(LIMIT, NanoUsd(need), now) == Verdict::Reserved {
                        replica.calls.push(need);
                    }
                }
                Step::Settle { replica, call, percent } => {
                    let replica = &mut self.replicas[replica];
                    if !replica.calls.is_empty() {
                        let worst = replica.calls.remove(call % replica.calls.len());
                        let cost = worst * percent / 100;
                        replica.purse.settle(NanoUsd(worst), NanoUsd(cost));
                        replica.journal.push(cost);
                    }
                }
                Step::Write { replica } => self.write(replica),
                Step::Hear { replica } => self.hear(replica),
                Step::Exchange {
                    replica,
                    need,
                    keep_free,
                    fate,
                } => self.exchange(replica, need, keep_free, fate),
                Step::Renew { replica } => self.renew(replica),
                Step::Crash { replica } => {
                    // It comes back at once, with its journal, and finds its calls in it: each is charged at its worst.
                    let next = self.next;
                    self.next += 1;
                    let fresh = Replica {
                        id: next,
                        ..Replica::default()
                    };
                    let dead = std::mem::replace(&mut self.replicas[replica], fresh);
                    self.spent += dead.journal.iter().sum::<i64>() + dead.calls.iter().sum::<i64>();
                }
                Step::Wait { seconds } => {
                    // A lease may end in between, and somebody see that; but a replica that lives renews within the grace.
                    self.now += Duration::from_secs(seconds);
                    for replica in 0..self.replicas.len() {
                        self.renew(replica);
                    }
                }
            }
        }

        /// Everything that was spent, or will be at the worst.
        fn committed(&self) -> i64 {
            let replicas = self.replicas.iter();
            let of = |replica: &Replica| replica.journal.iter().sum::<i64>() + replica.calls.iter().sum::<i64>();
            self.spent + replicas.map(of).sum::<i64>()
        }
    }

    fn steps() -> impl Strategy<Value = Step> {
        let fate = prop_oneof![4 => Just(Fate::Done), 1 => Just(Fate::Unheard), 1 => Just(Fate::Failed)];
        prop_oneof![
            6 => (0..3usize, 0..200i64).prop_map(|(replica, need)| Step::Admit { replica, need }),
            5 => (0..3usize, any::<usize>(), 0..=100i64)
                .prop_map(|(replica, call, percent)| Step::Settle { replica, call, percent }),
            3 => (0..3usize).prop_map(|replica| Step::Write { replica }),
            3 => (0..3usize).prop_map(|replica| Step::Hear { replica }),
            6 => (0..3usize, 0..200i64, any::<bool>(), fate)
                .prop_map(|(replica, need, keep_free, fate)| Step::Exchange { replica, need, keep_free, fate }),
            1 => (0..3usize).prop_map(|replica| Step::Renew { replica }),
            1 => (0..3usize).prop_map(|replica| Step::Crash { replica }),
            1 => (1..25u64).prop_map(|seconds| Step::Wait { seconds }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn no_interleaving_overspends_and_at_rest_nothing_is_reserved(steps in prop::collection::vec(steps(), 0..120)) {
            let mut world = World::new();
            for step in steps {
                world.take(step);
                prop_assert!(world.committed() <= LIMIT.0, "{} of {} after {step:?}", world.committed(), LIMIT.0);
                for replica in &world.replicas {
                    prop_assert_eq!(replica.purse.reserved().0, replica.calls.iter().sum::<i64>());
                    prop_assert!(replica.purse.spent_at_least().0 <= world.committed());
                }
            }
            // Everything ends, is written and heard of, and every slice comes back.
            let mut ledger = world.spent;
            for replica in 0..world.replicas.len() {
                ledger += world.replicas[replica].journal.iter().sum::<i64>();
                while !world.replicas[replica].calls.is_empty() {
                    let cost = world.replicas[replica].calls[0] / 2;
                    ledger += cost;
                    world.take(Step::Settle { replica, call: 0, percent: 50 });
                }
                world.write(replica);
                world.hear(replica);
                world.exchange(replica, 0, false, Fate::Done);
                prop_assert!(world.replicas[replica].purse.is_empty());
            }
            prop_assert_eq!(world.spent, ledger);
            let alive: Vec<usize> = world.replicas.iter().map(|replica| replica.id).collect();
            prop_assert!(world.slices.keys().all(|id| !alive.contains(id)));
            world.take(Step::Wait { seconds: 20 });
            world.reclaim();
            world.take(Step::Wait { seconds: 30 });
            world.reclaim();
            prop_assert!(world.slices.is_empty(), "the slices of the dead come back");
        }
    }
}
