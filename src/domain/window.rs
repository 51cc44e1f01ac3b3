//! How much happened within the last minute: the one definition that limits in memory and in Redis share.
//!
//! Time is cut into buckets of half a second. A bucket counts until 60 s after its *end*, so whatever it holds counts for
//! at least 60 s and for at most 60.5 s. Two things follow, and the tests below hold the code to them: no 60 s have ever
//! more than the limit, wherever they begin; and a limit that is always used up lets at least 60 / 60.5 of it through,
//! which is less than 1 % below it.
//!
//! The time is passed in, in milliseconds of a clock that the caller reads while it holds the window. A clock that goes
//! back takes the whole window with it: nothing is forgotten, and nothing counts for longer than a window from then on. A
//! clock that leaps ahead cannot be told from time that passed, so processes use one that does not leap, and replicas
//! that share a window use Redis' clock and never their own.
//!
//! `cluster/window.lua` is the same in Redis' language; the suite compares the two, operation by operation.

use std::collections::VecDeque;
use std::time::Duration;

/// Milliseconds of one bucket.
pub const BUCKET_MS: u64 = 500;
/// Buckets of one minute. One more than these counts, because the present one has only begun.
pub const BUCKETS: u64 = 120;
/// How long something counts at most: a minute and a bucket.
pub const LONGEST: Duration = Duration::from_millis((BUCKETS + 1) * BUCKET_MS);
/// A window that is kept elsewhere may be thrown away after so long without a change.
pub const EXPIRY: Duration = Duration::from_secs(120);

/// Why something does not fit into a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// It will after exactly that time, if nobody takes the place.
    For(Duration),
    /// It is more than the limit itself.
    Never,
}

/// What happened within the last minute. Empty, it takes no memory; full, 2 KiB.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// Oldest first, none of them zero.
    buckets: VecDeque<Bucket>,
    total: u64,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    number: u64,
    amount: u64,
}

/// The number of the bucket that a time falls into.
pub fn bucket_of(now_ms: u64) -> u64 {
    now_ms / BUCKET_MS
}

/// When a bucket stops counting.
fn end_of(bucket: u64) -> u64 {
    (bucket + BUCKETS + 1) * BUCKET_MS
}

impl Window {
    /// What counts now.
    pub fn used(&mut self, now_ms: u64) -> u64 {
        self.advance(now_ms);
        self.total
    }

    /// Whether `need` more fits under `limit` now.
    ///
    /// # Errors
    /// How long to wait until it does.
    pub fn fits(&mut self, now_ms: u64, need: u64, limit: u64) -> Result<(), Wait> {
        self.advance(now_ms);
        if need > limit {
            return Err(Wait::Never);
        }
        let excess = self.total.saturating_add(need).saturating_sub(limit);
        if excess == 0 {
            return Ok(());
        }
        let mut freed = 0;
        for bucket in &self.buckets {
            freed += bucket.amount;
            if freed >= excess {
                return Err(Wait::For(Duration::from_millis(end_of(bucket.number) - now_ms)));
            }
        }
        Err(Wait::Never)
    }

    /// Counts `amount`, whether it fits or not. Gives the number of the bucket it is in.
    pub fn take(&mut self, now_ms: u64, amount: u64) -> u64 {
        self.advance(now_ms);
        let number = bucket_of(now_ms);
        self.put(number, amount);
        number
    }

    /// Takes `amount` back out of a bucket, as far as it is still there. Says how much that was.
    pub fn give_back(&mut self, bucket: u64, amount: u64) -> u64 {
        let Ok(at) = self.buckets.binary_search_by_key(&bucket, |bucket| bucket.number) else {
            return 0;
        };
        let found = &mut self.buckets[at];
        let back = found.amount.min(amount);
        found.amount -= back;
        self.total -= back;
        if found.amount == 0 {
            self.buckets.remove(at);
        }
        back
    }

    /// How long until nothing counts any more, if nothing is added.
    pub fn clears_in(&mut self, now_ms: u64) -> Duration {
        self.advance(now_ms);
        let last = self.buckets.back();
        last.map_or(Duration::ZERO, |last| {
            Duration::from_millis(end_of(last.number) - now_ms)
        })
    }

    /// What is in it, as the age of each bucket in buckets and its amount, oldest first.
    pub fn by_age(&mut self, now_ms: u64) -> impl Iterator<Item = (u64, u64)> {
        self.advance(now_ms);
        let present = bucket_of(now_ms);
        self.buckets
            .iter()
            .map(move |bucket| (present - bucket.number, bucket.amount))
    }

    /// Adds everything that is in another window of the same clock.
    pub fn absorb(&mut self, other: &Self) {
        for bucket in &other.buckets {
            self.put(bucket.number, bucket.amount);
        }
    }

    /// What happened in one bucket.
    pub fn in_bucket(&self, bucket: u64) -> u64 {
        let found = self.buckets.binary_search_by_key(&bucket, |bucket| bucket.number);
        found.map_or(0, |at| self.buckets[at].amount)
    }

    fn put(&mut self, number: u64, amount: u64) {
        if amount == 0 {
            return;
        }
        self.total += amount;
        // Nearly always the last one, or a new one after it.
        match self.buckets.back_mut() {
            Some(last) if last.number == number => last.amount += amount,
            Some(last) if last.number > number => {
                match self.buckets.binary_search_by_key(&number, |bucket| bucket.number) {
                    Ok(at) => self.buckets[at].amount += amount,
                    Err(at) => self.buckets.insert(at, Bucket { number, amount }),
                }
            }
            _ => self.buckets.push_back(Bucket { number, amount }),
        }
    }

    /// Forgets what counts no more.
    fn advance(&mut self, now_ms: u64) {
        let present = bucket_of(now_ms);
        if let Some(last) = self.buckets.back()
            && last.number > present
        {
            self.set_back(last.number - present);
        }
        while let Some(first) = self.buckets.front()
            && first.number + BUCKETS < present
        {
            self.total -= first.amount;
            self.buckets.pop_front();
        }
        if self.buckets.is_empty() && self.buckets.capacity() > 0 {
            self.buckets = VecDeque::new();
        }
    }

    /// The clock was set back by so many buckets, and the window goes with it.
    fn set_back(&mut self, by: u64) {
        let before = std::mem::take(&mut self.buckets);
        self.total = 0;
        for bucket in before {
            // A clock that began less than a window ago has no numbers for all of them; the first has to do.
            self.put(bucket.number.saturating_sub(by), bucket.amount);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE_MS: u64 = 60_000;

    /// What the window promises, by counting everything anew: every take with its bucket and what is left of it.
    #[derive(Default)]
    struct Oracle(Vec<(u64, u64)>);

    impl Oracle {
        fn used(&self, now_ms: u64) -> u64 {
            let counts = |&&(bucket, _): &&(u64, u64)| now_ms < (bucket + 121) * 500;
            self.0.iter().filter(counts).map(|(_, amount)| amount).sum()
        }

        fn fits(&self, now_ms: u64, need: u64, limit: u64) -> bool {
            self.used(now_ms) + need <= limit
        }

        /// By trying every moment at which a bucket ends.
        fn wait(&self, now_ms: u64, need: u64, limit: u64) -> Option<u64> {
            let mut moments: Vec<u64> = self.0.iter().map(|(bucket, _)| (bucket + 121) * 500).collect();
            moments.push(now_ms);
            moments.sort_unstable();
            moments.retain(|&at| at >= now_ms);
            let first = moments.into_iter().find(|&at| self.fits(at, need, limit));
            first.map(|at| at - now_ms)
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Pass(u64),
        Ask(u64),
        GiveBack(usize, u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0..1_500u64).prop_map(Step::Pass),
            1 => (1_500..90_000u64).prop_map(Step::Pass),
            8 => (1..40u64).prop_map(Step::Ask),
            1 => (0..50usize, 1..60u64).prop_map(|(which, amount)| Step::GiveBack(which, amount)),
        ];
        proptest::collection::vec(step, 1..300)
    }

    proptest! {
        #[test]
        fn it_does_what_counting_everything_anew_would_do(steps in steps(), limit in 1..120u64, start in 0..10_000_000u64) {
            let (mut now, mut window, mut oracle) = (start, Window::default(), Oracle::default());
            let mut takes = Vec::new();
            for step in steps {
                match step {
                    Step::Pass(ms) => now += ms,
                    Step::Ask(need) => match window.fits(now, need, limit) {
                        Ok(()) => {
                            prop_assert!(oracle.fits(now, need, limit));
                            let bucket = window.take(now, need);
                            takes.push(bucket);
                            oracle.0.push((bucket, need));
                        }
                        Err(Wait::Never) => prop_assert!(need > limit),
                        Err(Wait::For(wait)) => {
                            let wait = u64::try_from(wait.as_millis()).unwrap();
                            prop_assert_eq!(Some(wait), oracle.wait(now, need, limit));
                            // Exact: a millisecond earlier it is refused, and then it is not.
                            prop_assert!(window.clone().fits(now + wait - 1, need, limit).is_err());
                            prop_assert!(window.clone().fits(now + wait, need, limit).is_ok());
                        }
                    },
                    Step::GiveBack(which, amount) => {
                        let Some(&bucket) = takes.get(which) else { continue };
                        let mut left = window.give_back(bucket, amount);
                        for entry in oracle.0.iter_mut().filter(|entry| entry.0 == bucket) {
                            let back = entry.1.min(left);
                            entry.1 -= back;
                            left -= back;
                        }
                        prop_assert_eq!(left, 0);
                        oracle.0.retain(|&(_, amount)| amount > 0);
                    }
                }
                prop_assert_eq!(window.used(now), oracle.used(now));
                let clears = oracle.0.iter().map(|(bucket, _)| (bucket + 121) * 500).max().unwrap_or(now);
                prop_assert_eq!(window.clears_in(now), Duration::from_millis(clears.saturating_sub(now)));
            }
        }

        #[test]
        fn no_60_seconds_have_more_than_the_limit(
            gaps in proptest::collection::vec(prop_oneof![5 => 0..200u64, 1 => 200..70_000u64], 1..600),
            limit in 1..60u64,
        ) {
            let (mut now, mut window, mut passed) = (0, Window::default(), Vec::new());
            for gap in gaps {
                now += gap;
                if window.fits(now, 1, limit).is_ok() {
                    window.take(now, 1);
                    passed.push(now);
                }
            }
            for (at, end) in passed.iter().enumerate() {
                let within = passed[..=at].iter().filter(|&&time| time + MINUTE_MS > *end).count();
                prop_assert!(within as u64 <= limit, "{} in the minute before {}", within, end);
            }
        }

        #[test]
        fn a_limit_that_is_always_asked_for_more_gives_at_least_99_percent(
            limit in 1..20_000u64, every_ms in 1..40u64, burst in 1..200u64,
        ) {
            let minutes = 20;
            let (mut window, mut passed) = (Window::default(), 0);
            // Enough is offered at any moment that the limit alone decides.
            let offered = burst.max(limit * every_ms / 20_000 + 1);
            for now in (0..minutes * MINUTE_MS).step_by(usize::try_from(every_ms).unwrap()) {
                let room = limit - window.used(now);
                let amount = offered.min(room);
                if amount > 0 {
                    window.take(now, amount);
                    passed += amount;
                }
            }
            prop_assert!(passed * 100 >= limit * minutes * 99, "{} of {}", passed, limit * minutes);
            prop_assert!(passed <= limit * minutes);
        }

        #[test]
        fn a_clock_that_jumps_back_gives_nothing_and_locks_nobody_out_for_longer_than_a_window(
            takes in proptest::collection::vec((0..2_000u64, 1..20u64), 1..200),
            back in 1..10_000_000u64, limit in 1..500u64, start in 0..20_000_000u64,
        ) {
            let (mut now, mut window) = (start, Window::default());
            for (gap, amount) in takes {
                now += gap;
                if window.fits(now, amount, limit).is_ok() {
                    window.take(now, amount);
                }
            }
            let before = window.used(now);
            let jumped = now.saturating_sub(back);
            prop_assert_eq!(window.used(jumped), before, "a jump back gives no quota");
            prop_assert!(window.clears_in(jumped) <= LONGEST);
            prop_assert!(window.buckets.iter().map(|bucket| bucket.amount).sum::<u64>() == window.total);
            let later = jumped + u64::try_from(LONGEST.as_millis()).unwrap();
            prop_assert_eq!(window.clone().used(later), 0);
            // And a jump ahead gives one window at most: the limit holds from there on as ever.
            let ahead = now + back;
            let room = limit - window.clone().used(ahead);
            prop_assert!(room <= limit);
        }
    }

    #[test]
    fn memory_is_bounded_and_comes_back() {
        let mut window = Window::default();
        for now in 0..1_000_000 {
            window.take(now, 1);
        }
        assert_eq!(window.buckets.len() as u64, BUCKETS + 1);
        assert!(window.buckets.capacity() * size_of::<Bucket>() <= 4_096);
        assert_eq!(window.used(2_000_000), 0);
        assert_eq!(window.buckets.capacity(), 0);
    }

    #[test]
    fn windows_of_one_clock_add_up_by_age() {
        let (mut one, mut other) = (Window::default(), Window::default());
        one.take(1_000, 2);
        other.take(400, 3);
        other.take(1_400, 5);
        one.absorb(&other);
        assert_eq!(one.by_age(2_000).collect::<Vec<_>>(), [(4, 3), (2, 7)]);
        assert_eq!(one.in_bucket(2), 7);
    }
}
