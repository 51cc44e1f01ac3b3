//! The actors: who owns a timer and state that outlives a request.
//!
//! ```text
//! Root
//! ├─ Providers → Provider(id)   outcomes → health
//! ├─ Keys      → Key(id)        last use, idle stop
//! ├─ Budgets                    renews and returns parts of budgets
//! ├─ Ledger                     journal → database in batches
//! ├─ Secrets                    reads credentials again
//! ├─ Configs                    publishes organizations' configs
//! ├─ Snapshot                   writes the last good snapshot to the disk
//! └─ Catalog                    publishes the catalogue
//! ```
//!
//! They publish what requests need into [`crate::gates`], so that no request waits for a mailbox, except once to open a
//! key that is not in memory. Whatever must not be lost (records, keys) lives outside them: an actor that fails is started
//! again and finds its work where it was. Start with [`root`].

pub mod budgets;
pub mod catalog;
pub mod configs;
pub mod key;
pub mod keys;
pub mod ledger;
pub mod provider;
pub mod providers;
pub mod replicas;
pub mod root;
pub mod secrets;
pub mod snapshot;
pub mod supervise;

use ractor::ActorProcessingErr;

/// The result of handling a message.
pub type Handled = Result<(), ActorProcessingErr>;
