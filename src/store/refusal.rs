//! Telling a database that refuses a row from a database that does not work.
//!
//! After the first, trying the same row again is of no use; after the second it is all that can be done.

use std::borrow::Cow;

use sea_orm::{DbErr, RuntimeErr};

use super::StoreError;

/// SQLite's primary result codes that are about values: too big, constraint, mismatch, range
/// (<https://www.sqlite.org/rescode.html>).
const SQLITE_DATA: [u32; 4] = [18, 19, 20, 25];
/// Postgres' classes that are about values: data exception, integrity constraint violation, program limit exceeded
/// (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
const POSTGRES_DATA: [&str; 3] = ["22", "23", "54"];

/// The database's code for what it does not like about the values it was given; `None` if the error is about anything
/// else. Only the code is kept: the database's words may quote the row.
pub(super) fn refusal(error: &StoreError) -> Option<String> {
    let (DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error))) = error else {
        return None;
    };
    match &**error {
        sqlx::Error::Database(error) => error.code().filter(|code| is_about_data(code)).map(Cow::into_owned),
        // The driver could not even write the values down.
        sqlx::Error::Encode(_) => Some("encode".to_owned()),
        _ => None,
    }
}

/// Postgres' codes have five characters, SQLite's are numbers whose low byte is the primary code.
fn is_about_data(code: &str) -> bool {
    if code.len() == 5 {
        return POSTGRES_DATA.iter().any(|class| code.starts_with(class));
    }
    code.parse::<u32>()
        .is_ok_and(|code| SQLITE_DATA.contains(&(code & 0xff)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_codes_about_values_blame_the_row() {
        // A check, a number out of range, a NUL byte, an index row too large; SQLite's constraint, also by a trigger.
        for code in ["23514", "22003", "22021", "54000", "19", "1811", "18"] {
            assert!(is_about_data(code), "{code}");
        }
        // No connection, out of disk, shutdown, no such table, serialization; SQLite busy, I/O error, full, no such table.
        for code in ["08006", "53100", "57P01", "42P01", "40001", "5", "10", "266", "13", "1"] {
            assert!(!is_about_data(code), "{code}");
        }
    }
}
