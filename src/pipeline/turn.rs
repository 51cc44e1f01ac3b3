//! Lets everybody else have a turn before a stream goes on, so that the events of a burst go out together.
//!
//! A provider's connection hands events over one at a time, in a task of its own. Whoever writes each one out at once pays
//! a system call for each, even for a burst that arrived in one packet. So an event waits for one turn of the scheduler,
//! in which the connection brings what it already has: microseconds, and no timer.
//!
//! Returning `Pending` alone would not do, because the server polls a body twice before it goes back to the scheduler.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};

use futures_util::task::AtomicWaker;

/// So many turns are waited at most, however much each of them brings.
const MAX_TURNS: usize = 8;

/// Events that gather.
#[derive(Default)]
pub(super) struct Burst {
    turn: Turn,
    /// How much had gathered when the last turn was over.
    seen: usize,
    /// Turns since something was written.
    turns: usize,
}

impl Burst {
    /// Whether the burst is over, of which so many bytes have gathered; asked when no more of it is there. It goes on as
    /// long as each turn brings more.
    pub(super) fn poll_over(&mut self, gathered: usize, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.turn.poll(cx));
            let before = std::mem::replace(&mut self.seen, gathered);
            self.turns += 1;
            if before == gathered || self.turns >= MAX_TURNS {
                return Poll::Ready(());
            }
        }
    }

    /// What gathered was taken; the next burst begins anew.
    pub(super) fn taken(&mut self) {
        *self = Self {
            turn: std::mem::take(&mut self.turn),
            ..Self::default()
        };
        self.turn.reset();
    }
}

/// One turn at a time.
#[derive(Default)]
struct Turn {
    state: Arc<State>,
    waiting: bool,
}

#[derive(Default)]
struct State {
    over: AtomicBool,
    waiter: AtomicWaker,
}

impl Wake for State {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.over.store(true, Ordering::Release);
        self.waiter.wake();
    }
}

impl Turn {
    /// Ready once everybody else had a turn since this was first asked.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.state.waiter.register(cx.waker());
        if !self.waiting {
            self.waiting = true;
            self.state.over.store(false, Ordering::Release);
            // The runtime wakes whoever yields after the other tasks have run. The future itself is not needed for that.
            let waker = Waker::from(self.state.clone());
            let _ = pin!(tokio::task::yield_now()).poll(&mut Context::from_waker(&waker));
            return Poll::Pending;
        }
        if !self.state.over.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        self.waiting = false;
        Poll::Ready(())
    }

    /// What was waited for is gone; the next turn begins anew.
    fn reset(&mut self) {
        self.waiting = false;
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// Turns until a burst is over that brings this much in each of them, and nothing after the last.
    async fn turns(brought: &[usize]) -> usize {
        let (mut burst, mut gathered, mut asked) = (Burst::default(), 1, 0);
        poll_fn(|cx| {
            gathered += brought.get(asked).copied().unwrap_or(0);
            asked += 1;
            burst.poll_over(gathered, cx)
        })
        .await;
        burst.taken();
        asked - 1
    }

    #[tokio::test]
    async fn a_burst_goes_on_while_turns_bring_more_and_not_for_ever() {
        assert_eq!(turns(&[]).await, 2, "one for the first event, one that brings nothing");
        assert_eq!(turns(&[0, 5, 5]).await, 3);
        assert_eq!(turns(&[1; 100]).await, MAX_TURNS);
    }
}
