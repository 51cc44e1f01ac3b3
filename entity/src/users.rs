//! `users`: people who manage the gateway.

use sea_orm::entity::prelude::*;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "users")]
pub struct Model {
    /// Their id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Their organization.
    pub organization_id: Uuid,
    /// Their team in it, if they have one.
    pub team_id: Option<Uuid>,
    /// What they sign in with, in lower case; unique in the installation.
    #[sea_orm(unique)]
    pub email: String,
    /// Their name for people.
    pub name: String,
    /// What they are: `platform_admin`, `owner`, `admin`, `team_admin`, `member` or `viewer`.
    pub role: String,
    /// The hash of their password in its own text form; none: they cannot sign in with one.
    #[sea_orm(column_type = "Text", nullable)]
    pub password_hash: Option<String>,
    /// Whether they must change it before they do anything else.
    pub must_change_password: bool,
    /// Whether they may not sign in.
    pub disabled: bool,
    /// The issuer and the subject of whoever is vouched for from outside; unique.
    #[sea_orm(unique)]
    pub external_id: Option<String>,
    /// When they last signed in.
    pub last_sign_in_at: Option<DateTimeUtc>,
    /// When they were created.
    pub created_at: DateTimeUtc,
    /// When they last changed.
    pub updated_at: DateTimeUtc,
    /// The number of that change. Tokens from before it are not good any more.
    pub revision: i64,
}

/// Relations are followed by explicit queries.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
