//! A condition on ids, however many they are.
//!
//! Each id of a plain `IN` is a value of its own in the statement, of which SQLite takes 32,766 and Postgres 65,535. Ids that
//! may be more than a few, such as an organization's keys, go as one value that the database takes apart.

use sea_orm::DatabaseBackend;
use sea_orm::sea_query::{Expr, ExprTrait as _, Query, SimpleExpr};
use uuid::Uuid;

/// As many as this go as values of their own, which is what databases plan best.
const FEW: usize = 500;

/// Whether a column is one of these ids.
pub(super) fn one_of(backend: DatabaseBackend, column: Expr, ids: impl IntoIterator<Item = Uuid>) -> SimpleExpr {
    let ids: Vec<Uuid> = ids.into_iter().collect();
    if ids.len() <= FEW {
        return column.is_in(ids);
    }
    let taken_apart = match backend {
        DatabaseBackend::Postgres => {
            let list: Vec<String> = ids.iter().map(Uuid::to_string).collect();
            Expr::cust_with_values("CAST(unnest(string_to_array($1, ',')) AS uuid)", [list.join(",")])
        }
        // Ids are bytes there.
        _ => {
            let list: Vec<String> = ids.iter().map(|id| format!("\"{}\"", id.simple())).collect();
            Expr::cust_with_values("unhex(value) FROM json_each(?)", [format!("[{}]", list.join(","))])
        }
    };
    column.in_subquery(Query::select().expr(taken_apart).take())
}
