//! `gateway_price_versions`: the rates behind the names that rows of the ledger have of their prices. A version's figures are
//! part of its name, so a row never changes.

use sea_orm::entity::prelude::*;

/// One price.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "gateway_price_versions")]
pub struct Model {
    /// The version, as `price_version` of the ledger has it.
    #[sea_orm(primary_key, auto_increment = false)]
    pub version: String,
    /// Its rates, as JSON.
    #[sea_orm(column_type = "Text")]
    pub rates: String,
    /// When it was first charged.
    pub first_seen_at: DateTimeUtc,
}

/// Relations are followed by explicit queries.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
