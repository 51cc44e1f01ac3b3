//! Lets everybody else have a turn before a stream goes on.
//!
//! A provider's connection hands events over one at a time, in a task of its own. Whoever writes each one out at once pays
//! a system call for each, even for a burst that arrived in one packet. So an event waits for one turn of the scheduler,
//! in which the connection brings what it already has: microseconds, and no timer.
//!
//! Returning `Pending` alone would not do, because the server polls a body twice before it goes back to the scheduler.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// One turn at a time.
#[derive(Default)]
pub(super) struct Turn {
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
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
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
    pub(super) fn reset(&mut self) {
        self.waiting = false;
    }
}
