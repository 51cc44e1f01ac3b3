//! `gateway_payloads`: what was asked and answered, sealed, where an organization wants it kept.

use sea_orm::entity::prelude::*;

/// The payload of one request.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "gateway_payloads")]
pub struct Model {
    /// The request.
    #[sea_orm(primary_key, auto_increment = false)]
    pub request_id: Uuid,
    /// Whose it is.
    pub organization_id: Uuid,
    /// When the request came.
    pub created_at: DateTimeUtc,
    /// From when on it is deleted.
    pub expires_at: DateTimeUtc,
    /// What was asked and answered, sealed for this organization and this request.
    pub sealed: Vec<u8>,
}

/// Relations are followed by explicit queries.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
