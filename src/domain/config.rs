//! An organization's gateway config as it is stored: a JSON document with a number, an author and a time.
//!
//! What is in the document is `routing::document`'s.

use chrono::{DateTime, Utc};

use super::audit::Author;
use super::ids::OrganizationId;

/// One version of an organization's config.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigVersion {
    /// Its number, from 1.
    pub version: i64,
    /// The document, JSON.
    pub document: String,
    /// Who wrote it.
    pub author: String,
    /// When.
    pub created_at: DateTime<Utc>,
    /// Whether it is in force.
    pub active: bool,
}

/// A config to be put into force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewConfig {
    /// Whose it is.
    pub organization: OrganizationId,
    /// The document, JSON.
    pub document: String,
    /// Who writes it.
    pub by: Author,
    /// What the audit log calls it.
    pub action: &'static str,
    /// The version its author saw, 0 for none; `None`: whatever there is, is replaced.
    pub replaces: Option<i64>,
}

/// What became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Saved {
    /// It is in force.
    Saved(ConfigVersion),
    /// Somebody else was faster: this version is in force.
    Changed {
        /// The version.
        version: i64,
    },
    /// There is no such organization.
    NoSuchOrganization,
}
