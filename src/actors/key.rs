//! One open key: writes down now and then when it was used, and stops when it no longer is.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::Handled;
use crate::domain::key::KeyHash;
use crate::gates::key_gate::KeyGate;
use crate::gates::keyring::Keyring;
use crate::store::{Store, within};

/// How often the last use is written down.
const TOUCH_EVERY: Duration = Duration::from_secs(10);

/// How long writing it down may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// The actor.
pub struct KeyActor;

/// What it works with.
pub struct KeyArgs {
    /// The key.
    pub gate: Arc<KeyGate>,
    /// Its hash.
    pub hash: KeyHash,
    /// Where its last use is written.
    pub store: Store,
    /// Where it is published.
    pub keyring: Arc<Keyring>,
    /// How long it stays open without being used.
    pub idle: Duration,
}

/// What can happen to one key.
pub enum KeyMsg {
    /// Time to look whether it was used.
    Tick,
}

/// What the actor remembers.
pub struct KeyState {
    args: KeyArgs,
    opened_at: DateTime<Utc>,
}

impl Actor for KeyActor {
    type Msg = KeyMsg;
    type State = KeyState;
    type Arguments = KeyArgs;

    async fn pre_start(&self, myself: ActorRef<KeyMsg>, args: KeyArgs) -> Result<KeyState, ActorProcessingErr> {
        myself.send_after(TOUCH_EVERY, || KeyMsg::Tick);
        Ok(KeyState {
            args,
            opened_at: Utc::now(),
        })
    }

    async fn handle(&self, myself: ActorRef<KeyMsg>, message: KeyMsg, state: &mut KeyState) -> Handled {
        match message {
            KeyMsg::Tick => {
                state.touch().await;
                // By the use itself, not by whether it could be written down: a database that is down closes no key.
                let last = state.args.gate.last_used().unwrap_or(state.opened_at);
                if (Utc::now() - last).to_std().unwrap_or_default() > state.args.idle {
                    state.args.gate.close();
                    state.args.keyring.forget(&state.args.hash).await;
                    myself.stop(None);
                } else {
                    myself.send_after(TOUCH_EVERY, || KeyMsg::Tick);
                }
            }
        }
        Ok(())
    }

    async fn post_stop(&self, _myself: ActorRef<KeyMsg>, state: &mut KeyState) -> Handled {
        state.touch().await;
        Ok(())
    }
}

impl KeyState {
    async fn touch(&mut self) {
        let gate = &self.args.gate;
        let Some(used) = gate.unwritten_use() else { return };
        match within(WRITE_TIMEOUT, self.args.store.touch_keys(&[(gate.row.id, used)])).await {
            Ok(()) => gate.wrote_use(used),
            Err(error) => tracing::warn!(key = %gate.row.id, %error, "writing a key's last use failed"),
        }
    }
}
