//! Where a request may go: the catalogue of deployments, and the order in which they are tried.
//!
//! Pure: (request, catalogue, health) in, ordered attempts and their reasons out. Start with [`catalog`].

pub mod aliases;
pub mod catalog;
pub mod catalog_file;
pub mod families;
mod geography;
pub mod plan;
pub mod price_check;
