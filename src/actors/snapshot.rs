//! Writes the last good snapshot to the disk: when something in it has changed, and now and then to say that it still holds.
//!
//! What is in it the other actors say; see [`crate::snapshot`].

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::time::Instant;

use super::Handled;
use crate::snapshot::file::SnapshotFile;
use crate::snapshot::{Draft, Snapshot};
use crate::telemetry::metrics::Metrics;

/// The actor.
pub struct SnapshotActor;

/// What it works with.
#[derive(Clone)]
pub struct SnapshotArgs {
    /// What is to be written.
    pub snapshot: Arc<Snapshot>,
    /// Where; `None`: nowhere.
    pub file: Option<SnapshotFile>,
    /// How often to look.
    pub every: Duration,
    /// Counts what fails.
    pub metrics: Arc<Metrics>,
}

/// What the actor hears.
pub enum SnapshotMsg {
    /// Time to look.
    Due,
    /// The writing under way has ended.
    Ended,
}

/// What it remembers.
pub struct SnapshotState {
    args: SnapshotArgs,
    writing: bool,
}

impl Actor for SnapshotActor {
    type Msg = SnapshotMsg;
    type State = SnapshotState;
    type Arguments = SnapshotArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<SnapshotMsg>,
        args: SnapshotArgs,
    ) -> Result<SnapshotState, ActorProcessingErr> {
        if args.file.is_some() {
            myself.send_interval(args.every, || SnapshotMsg::Due);
        }
        Ok(SnapshotState { args, writing: false })
    }

    async fn handle(&self, myself: ActorRef<SnapshotMsg>, message: SnapshotMsg, state: &mut SnapshotState) -> Handled {
        match message {
            SnapshotMsg::Ended => state.writing = false,
            SnapshotMsg::Due if state.writing => {}
            SnapshotMsg::Due => {
                let Some(draft) = state.args.snapshot.draft(Instant::now()) else {
                    return Ok(());
                };
                state.writing = true;
                let args = state.args.clone();
                // Beside the mailbox and the runtime: a disk may take its time.
                tokio::spawn(async move {
                    write(&args, draft).await;
                    let _ = myself.cast(SnapshotMsg::Ended);
                });
            }
        }
        Ok(())
    }
}

/// Writes what is not written yet. For the end of the process, when the actor is gone.
pub async fn write_last(args: &SnapshotArgs) {
    if args.file.is_some()
        && let Some(draft) = args.snapshot.last_draft()
    {
        write(args, draft).await;
    }
}

async fn write(args: &SnapshotArgs, draft: Draft) {
    let Some(file) = args.file.clone() else { return };
    let path = file.path().display().to_string();
    let written = tokio::task::spawn_blocking(move || file.write(&draft)).await;
    let failure = match written {
        Ok(Ok(took)) => return args.snapshot.wrote(Instant::now(), took),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    args.metrics.snapshot_failures.inc();
    args.snapshot.not_written(Instant::now());
    tracing::warn!(
        path,
        error = failure,
        "the last good snapshot cannot be written; without it no start goes on while the database is away"
    );
}
