//! Where a request may go: the catalogue of deployments, and the order in which they are tried.
//!
//! Pure: (request, catalogue, organization's config, health, measurements) in, ordered attempts and their reasons out.
//! What is random is a hash of the request's id, so that it can be explained and repeated. Start with [`plan`].

pub mod aliases;
pub mod catalog;
pub mod catalog_file;
pub mod document;
pub mod explain;
pub mod facts;
pub mod families;
pub mod geography;
pub mod hash;
pub mod own;
pub mod plan;
pub mod price_book;
pub mod price_check;
pub mod rules;
pub mod simulate;
pub mod strategy;
pub mod unknown;
