//! When a failed actor is started again, and when that is no use.
//!
//! Restarts back off, and past an intensity limit the supervisor fails itself. At the top that stops the process: a
//! component that cannot stay up must not look healthy.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// So many restarts within [`WINDOW`] are the limit.
const MAX_RESTARTS: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);
const FIRST_DELAY: Duration = Duration::from_millis(100);

/// The restarts of one child.
#[derive(Debug, Default)]
pub struct Restarts {
    recent: VecDeque<Instant>,
}

/// What to do about a failed child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Start it again after that time.
    StartAfter(Duration),
    /// It cannot be kept up.
    GiveUp,
}

impl Restarts {
    /// The child failed.
    pub fn failed(&mut self, now: Instant) -> Verdict {
        while self.recent.front().is_some_and(|&at| now - at > WINDOW) {
            self.recent.pop_front();
        }
        if self.recent.len() >= MAX_RESTARTS {
            return Verdict::GiveUp;
        }
        let delay = FIRST_DELAY * 2u32.pow(u32::try_from(self.recent.len()).unwrap_or(0));
        self.recent.push_back(now);
        Verdict::StartAfter(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_back_off_and_give_up_unless_time_passes() {
        let mut now = Instant::now();
        let mut restarts = Restarts::default();
        for delay_ms in [100, 200, 400, 800, 1_600] {
            assert_eq!(
                restarts.failed(now),
                Verdict::StartAfter(Duration::from_millis(delay_ms))
            );
        }
        assert_eq!(restarts.failed(now), Verdict::GiveUp);
        now += WINDOW + Duration::from_secs(1);
        assert_eq!(restarts.failed(now), Verdict::StartAfter(FIRST_DELAY));
    }
}
