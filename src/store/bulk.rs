//! Many rows at once, for the ledger: statements that are built once and filled again and again.
//!
//! Building an INSERT of a thousand values costs more than running it. The text of a statement depends only on the table
//! and the number of rows, so it is built for the first batch of that length and kept; the driver then finds it prepared.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ActiveModelTrait, ConnectionTrait, DatabaseBackend, EntityName, EntityTrait, Iterable, PrimaryKeyToColumn,
    QueryTrait, Statement,
};

use uuid::Uuid;

use super::StoreError;

/// Most rows of one INSERT on Postgres, where each is a round trip. A prepared statement grows with each of them.
const MAX_ROWS: usize = 64;
/// Most rows of one INSERT on SQLite. It works in this process: longer ones would keep a processor from whoever waits for
/// an answer, and save little.
const MAX_ROWS_EMBEDDED: usize = 16;

/// The texts of INSERT statements.
#[derive(Clone, Default, Debug)]
pub(super) struct Inserts(Arc<Mutex<Texts>>);

/// Texts by table and number of rows.
type Texts = HashMap<(String, usize), Arc<str>>;

impl Inserts {
    /// Inserts rows whose columns are all set, and says how many. Those whose primary key is there already are passed over.
    pub(super) async fn run<A>(
        &self,
        db: &impl ConnectionTrait,
        rows: impl Iterator<Item = A> + Send,
    ) -> Result<u64, StoreError>
    where
        A: ActiveModelTrait + Send,
    {
        let mut inserted = 0;
        let mut rows = Parts::of(rows, most_rows(db));
        while let Some(part) = rows.next() {
            inserted += db.execute_raw(self.statement(db, part)).await?.rows_affected();
        }
        Ok(inserted)
    }

    /// Does the same with rows that have an `id`, and says which of them were not there. It costs more.
    pub(super) async fn run_for_new<A>(
        &self,
        db: &impl ConnectionTrait,
        rows: impl Iterator<Item = A> + Send,
    ) -> Result<HashSet<Uuid>, StoreError>
    where
        A: ActiveModelTrait + Send,
    {
        let mut new = HashSet::new();
        let mut rows = Parts::of(rows, most_rows(db));
        while let Some(part) = rows.next() {
            let mut statement = self.statement(db, part);
            statement.sql.push_str(" RETURNING \"id\"");
            for row in db.query_all_raw(statement).await? {
                new.insert(row.try_get("", "id")?);
            }
        }
        Ok(new)
    }

    /// The statement that inserts these rows.
    fn statement<A: ActiveModelTrait>(&self, db: &impl ConnectionTrait, mut rows: Vec<A>) -> Statement {
        let sql = self.text(db, &rows);
        let mut values = Vec::with_capacity(rows.len() * <A::Entity as EntityTrait>::Column::iter().count());
        for row in &mut rows {
            values
                .extend(<A::Entity as EntityTrait>::Column::iter().filter_map(|column| row.take(column).into_value()));
        }
        Statement::from_sql_and_values(db.get_database_backend(), &*sql, values)
    }

    /// The statement for so many rows.
    fn text<A: ActiveModelTrait>(&self, db: &impl ConnectionTrait, rows: &[A]) -> Arc<str> {
        let key = (A::Entity::default().table_name().to_owned(), rows.len());
        if let Some(text) = self.0.lock().get(&key) {
            return text.clone();
        }
        let primary = <A::Entity as EntityTrait>::PrimaryKey::iter().map(|part| part.into_column());
        let unless_there = OnConflict::columns(primary).do_nothing().to_owned();
        let insert = A::Entity::insert_many(rows.iter().cloned()).on_conflict(unless_there);
        let text: Arc<str> = insert.build(db.get_database_backend()).sql.into();
        self.0.lock().insert(key, text.clone());
        text
    }
}

/// Rows in parts of a statement's length, each made when its turn comes: a batch of a thousand rows takes megabytes.
struct Parts<I: Iterator> {
    rows: I,
    /// Most rows of a statement.
    most: usize,
    /// The next ones, at most as many as a statement takes.
    ready: VecDeque<I::Item>,
}

impl<I: Iterator> Parts<I> {
    fn of(rows: I, most: usize) -> Self {
        Self {
            rows,
            most,
            ready: VecDeque::with_capacity(most),
        }
    }

    fn next(&mut self) -> Option<Vec<I::Item>> {
        let missing = self.most - self.ready.len();
        self.ready.extend(self.rows.by_ref().take(missing));
        let length = next_length(self.ready.len())?;
        Some(self.ready.drain(..length).collect())
    }
}

fn most_rows(db: &impl ConnectionTrait) -> usize {
    match db.get_database_backend() {
        DatabaseBackend::Sqlite => MAX_ROWS_EMBEDDED,
        _ => MAX_ROWS,
    }
}

/// The length of the next statement when so many rows are ready: a power of two, so that few lengths are ever met. With a
/// length for every batch that comes along, hardly any statement would be met again.
fn next_length(rows: usize) -> Option<usize> {
    Some(1 << rows.checked_ilog2()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_rows_is_made_of_few_lengths_in_order() {
        for (rows, most) in (0..500).zip([MAX_ROWS, MAX_ROWS_EMBEDDED].into_iter().cycle()) {
            let mut parts = Parts::of(0..rows, most);
            let mut seen = Vec::new();
            while let Some(part) = parts.next() {
                assert!(part.len().is_power_of_two() && part.len() <= most);
                seen.extend(part);
            }
            assert!(seen.into_iter().eq(0..rows));
        }
    }
}
