//! `usage_hourly` and `usage_daily`: the sums over the requests of each hour and each day, by cut and cell.
//!
//! Both have the same columns. `cut` says what told requests apart; a column that its cut does not use is nil or empty.

macro_rules! rollup {
    ($(#[$doc:meta])* $module:ident, $table:literal) => {
        $(#[$doc])*
        pub mod $module {
            use sea_orm::entity::prelude::*;

            /// The sums of one cell over one span.
            #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
            #[sea_orm(table_name = $table)]
            pub struct Model {
                /// Whose requests.
                #[sea_orm(primary_key, auto_increment = false)]
                pub organization_id: Uuid,
                /// By what they were told apart.
                #[sea_orm(primary_key, auto_increment = false)]
                pub cut: String,
                /// When the span begins, in UTC.
                #[sea_orm(primary_key, auto_increment = false)]
                pub starts_at: DateTimeUtc,
                /// Their key, or nil.
                #[sea_orm(primary_key, auto_increment = false)]
                pub key_id: Uuid,
                /// Their key's team at the time, or nil.
                #[sea_orm(primary_key, auto_increment = false)]
                pub team_id: Uuid,
                /// The provider that served them, or empty.
                #[sea_orm(primary_key, auto_increment = false)]
                pub provider: String,
                /// The model that served them, or empty.
                #[sea_orm(primary_key, auto_increment = false)]
                pub model: String,
                /// How many.
                pub requests: i64,
                /// Those that did not end well, by class: a JSON object of counts.
                pub errors: String,
                /// Answers out of the response cache.
                pub cache_hits: i64,
                /// Attempts at providers.
                pub attempts: i64,
                /// Requests whose tokens were estimated.
                pub estimated: i64,
                /// Requests whose cost is unknown.
                pub unpriced: i64,
                /// Tokens read, cached ones included.
                pub input_tokens: i64,
                /// Part of them out of a prompt cache.
                pub cached_tokens: i64,
                /// Part of them into a prompt cache.
                pub cache_write_tokens: i64,
                /// Tokens generated, reasoning included.
                pub output_tokens: i64,
                /// Part of them spent on reasoning.
                pub reasoning_tokens: i64,
                /// Known cost in nano-dollars.
                pub cost_nanousd: i64,
                /// What the response cache saved, in nano-dollars.
                pub saved_nanousd: i64,
                /// Microseconds to the end of answers, as a sketch; empty: there are none.
                pub latency: Vec<u8>,
                /// Microseconds to first events, as a sketch; empty: there are none.
                pub first_token: Vec<u8>,
            }

            /// Relations are followed by explicit queries.
            #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
            pub enum Relation {}

            impl ActiveModelBehavior for ActiveModel {}
        }
    };
}

rollup! {
    /// The sums of hours.
    hourly, "usage_hourly"
}
rollup! {
    /// The sums of days, made from those of hours.
    daily, "usage_daily"
}
