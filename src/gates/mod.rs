//! Where actors and requests meet: small shared objects that an actor owns and writes, and a request reads or charges
//! without waiting for anybody's mailbox.

pub mod audit;
pub mod batches;
pub mod budgets;
pub mod control;
pub mod exports;
pub mod health_board;
pub mod inference;
pub mod key_control;
pub mod key_gate;
pub mod keyring;
pub mod load_gate;
pub mod measurements;
pub mod notices;
pub mod payloads;
pub mod people;
pub mod policies;
pub mod price_memory;
pub mod prober;
pub mod repricing;
pub mod retry_gate;
pub mod secrets_board;
pub mod sign_in_gate;
pub mod spend;
pub mod webhooks;
