//! Reads the secrets again: now and then, before the way into the store ends, and at once when a provider refused one.
//!
//! What is read and published is the [`keeper`]'s; the actor only decides when. A reading runs beside the mailbox, because
//! a store that hangs must not keep anybody from asking; whoever asks meanwhile gets a reading that began afterwards.

pub mod keeper;

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::Handled;
use keeper::Keeper;

/// The actor.
pub struct SecretsActor;

/// What it works with.
#[derive(Clone)]
pub struct SecretsArgs {
    /// Reads and publishes.
    pub keeper: Arc<Keeper>,
}

/// What the actor hears.
pub enum SecretsMsg {
    /// It is time.
    Due,
    /// A provider refused a secret: read them now, and tell when a reading that begins from now on is done.
    ReadNow(oneshot::Sender<()>),
    /// A reading ended.
    Read {
        /// When the next one is due.
        next: Duration,
    },
}

/// What is under way.
pub struct SecretsState {
    keeper: Arc<Keeper>,
    /// Who waits for the reading under way; `None`: there is none.
    reading: Option<Vec<oneshot::Sender<()>>>,
    /// Who waits for the next one.
    waiting: Vec<oneshot::Sender<()>>,
    timer: Option<AbortHandle>,
}

impl Actor for SecretsActor {
    type Msg = SecretsMsg;
    type State = SecretsState;
    type Arguments = SecretsArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<SecretsMsg>,
        args: SecretsArgs,
    ) -> Result<SecretsState, ActorProcessingErr> {
        let me = myself.clone();
        args.keeper
            .read_by(Box::new(move |done| drop(me.cast(SecretsMsg::ReadNow(done)))));
        // An organization's own endpoint is called with what the store has for it.
        let me = myself.clone();
        args.keeper.announce_endpoints_to(Box::new(move || {
            drop(me.cast(SecretsMsg::ReadNow(oneshot::channel().0)))
        }));
        let mut state = SecretsState {
            keeper: args.keeper,
            reading: None,
            waiting: Vec::new(),
            timer: None,
        };
        let next = state.keeper.next_reading().await;
        state.due_in(&myself, next);
        Ok(state)
    }

    async fn handle(&self, myself: ActorRef<SecretsMsg>, message: SecretsMsg, state: &mut SecretsState) -> Handled {
        match message {
            SecretsMsg::Due if state.reading.is_none() => state.begin(&myself),
            SecretsMsg::Due => {}
            SecretsMsg::ReadNow(done) => {
                state.waiting.push(done);
                if state.reading.is_none() {
                    state.begin(&myself);
                }
            }
            SecretsMsg::Read { next } => {
                for done in state.reading.take().unwrap_or_default() {
                    let _ = done.send(());
                }
                if state.waiting.is_empty() {
                    state.due_in(&myself, next);
                } else {
                    state.begin(&myself);
                }
            }
        }
        Ok(())
    }
}

impl SecretsState {
    fn begin(&mut self, myself: &ActorRef<SecretsMsg>) {
        self.reading = Some(std::mem::take(&mut self.waiting));
        let (myself, keeper) = (myself.clone(), self.keeper.clone());
        tokio::spawn(async move {
            let reader = keeper.clone();
            // A task of its own, so that a panic in it ends the reading and not the readings.
            if tokio::spawn(async move { reader.read_again().await }).await.is_err() {
                tracing::error!("reading the secrets panicked");
            }
            let next = keeper.next_reading().await;
            let _ = myself.cast(SecretsMsg::Read { next });
        });
    }

    fn due_in(&mut self, myself: &ActorRef<SecretsMsg>, next: Duration) {
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
        self.timer = Some(myself.send_after(next, || SecretsMsg::Due).abort_handle());
    }
}
