//! `gateway_configs`: every version of every organization's gateway config.

use sea_orm::entity::prelude::*;

/// One version.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "gateway_configs")]
pub struct Model {
    /// Whose it is.
    #[sea_orm(primary_key, auto_increment = false)]
    pub organization_id: Uuid,
    /// Its number, from 1.
    #[sea_orm(primary_key, auto_increment = false)]
    pub version: i64,
    /// The document, JSON as it was sent.
    #[sea_orm(column_type = "Text")]
    pub document: String,
    /// Who wrote it.
    pub author: String,
    /// When it was written.
    pub created_at: DateTimeUtc,
    /// Whether it is the one in force. One of an organization's is.
    pub active: bool,
    /// The number of the change that brought it, by which replicas know whether they have seen it.
    pub revision: i64,
}

/// Relations are followed by explicit queries.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
