//! What is asked about past requests, and what is answered: figures over time and by group, and the log.
//!
//! Sums are kept for each hour and each day; [`cells`] says of what, [`figures`] what a sum holds, [`hour`] to which hour a
//! request belongs. [`forecast`] looks ahead.

pub mod cells;
pub mod figures;
pub mod forecast;
pub mod hour;
pub mod insight;
pub mod log;
pub mod sketch;
pub mod usage;
