//! Statements as text, sent together: a batch of any size is written in one round trip, or in few.
//!
//! The server parses a prepared statement with thousands of placeholders again for each batch size, so values are
//! rendered as literals. Each is a number, an id in hexadecimal or a time, which need no escaping; text goes through
//! [`text`].

use std::fmt::Write as _;

use chrono::SubsecRound as _;
use sqlx::MySqlConnection;
use uuid::Uuid;

use crate::{clock::Timestamp, domain::event::Event};

/// Statements that wait to be sent.
#[derive(Debug)]
pub struct Statements {
    max_bytes: usize,
    /// Texts that are full; `sql` is the one that still takes statements.
    full: Vec<String>,
    sql: String,
}

impl Statements {
    /// None yet. They are sent in texts of at most `max_bytes`, see [`super::Database::statement_bytes`]; a single row
    /// or statement that is longer is sent as it is.
    pub const fn new(max_bytes: usize) -> Self {
        Self { max_bytes, full: Vec::new(), sql: String::new() }
    }

    /// Adds a statement of `head`, the rows with commas between them, and `tail`; several where one would be too long,
    /// and none without rows.
    pub fn push_rows<R>(
        &mut self,
        head: &str,
        tail: &str,
        rows: impl IntoIterator<Item = R>,
        mut write: impl FnMut(&mut String, R),
    ) {
        // Reused for every row: a batch has thousands.
        let mut row = String::new();
        let mut is_open = false;
        for value in rows {
            row.clear();
            write(&mut row, value);
            let is_too_long = self.sql.len() + head.len() + row.len() + tail.len() + 2 > self.max_bytes;
            if is_too_long && !self.sql.is_empty() {
                if is_open {
                    self.sql.push_str(tail);
                }
                self.full.push(std::mem::take(&mut self.sql));
                is_open = false;
            }
            self.sql.push_str(if is_open { "," } else { head });
            self.sql.push_str(&row);
            is_open = true;
        }
        if is_open {
            self.sql.push_str(tail);
            self.sql.push(';');
        }
    }

    pub fn push(&mut self, statement: &str) {
        if self.sql.len() + statement.len() + 1 > self.max_bytes && !self.sql.is_empty() {
            self.full.push(std::mem::take(&mut self.sql));
        }
        self.sql.push_str(statement);
        self.sql.push(';');
    }

    /// Adds events to the outbox. They commit with the change that they report.
    pub fn push_events(&mut self, events: &[Event], now: Timestamp) {
        let head = "INSERT INTO outbox_events /* statements::push_events */ (aggregate_type, aggregate_id, type, payload, created_at, traces) VALUES ";
        let now = moment(now);
        self.push_rows(head, "", events, |sql, event| {
            let Event { aggregate, kind, payload, traces } = event;
            write_into(sql, format_args!("('{}','{}','{kind}',", aggregate.into_str(), aggregate.id()));
            text(sql, payload);
            let traces = if traces.is_empty() { None } else { serde_json::to_string(traces).ok() };
            write_into(sql, format_args!(",{now},{})", or_null(traces, |json| format!("'{json}'"))));
        });
    }

    /// Sends them, and returns how many rows they affected.
    pub async fn send(mut self, connection: &mut MySqlConnection) -> Result<u64, sqlx::Error> {
        self.full.push(self.sql);
        let mut affected = 0;
        // As raw text, because the server executes several statements of one text in one round trip. A prepared
        // statement is always a single one.
        for sql in self.full.into_iter().filter(|sql| !sql.is_empty()) {
            affected += sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *connection).await?.rows_affected();
        }
        Ok(affected)
    }
}

/// Inserts one event, in the transaction of the change that it reports.
pub async fn insert_event(connection: &mut MySqlConnection, event: Event, now: Timestamp) -> Result<(), sqlx::Error> {
    // One statement is sent whole, however long it is.
    let mut statements = Statements::new(usize::MAX);
    statements.push_events(&[event], now);
    statements.send(connection).await.map(drop)
}

/// Appends formatted text.
pub fn write_into(sql: &mut String, formatted: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _written: std::fmt::Result = sql.write_fmt(formatted);
}

/// Appends any text as a literal. Text with a quote or a backslash is written in hexadecimal, which is safe in every
/// SQL mode (`NO_BACKSLASH_ESCAPES`, `ANSI_QUOTES`).
pub fn text(sql: &mut String, value: &str) {
    if value.contains(['\'', '\\']) {
        sql.push_str("_utf8mb4 x'");
        for byte in value.bytes() {
            write_into(sql, format_args!("{byte:02x}"));
        }
    } else {
        sql.push('\'');
        sql.push_str(value);
    }
    sql.push('\'');
}

/// A timestamp as a literal, to the millisecond as the columns are.
pub fn moment(timestamp: Timestamp) -> String {
    format!("'{}'", timestamp.trunc_subsecs(3).format("%Y-%m-%d %H:%M:%S%.3f"))
}

/// A literal, or `NULL`.
pub fn or_null<T>(value: Option<T>, literal: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "NULL".into(), literal)
}

/// An id as a literal.
pub fn id(id: Uuid) -> String {
    format!("x'{}'", id.simple())
}

/// Literals of ids for an `IN` list: in order, so that every transaction locks rows in the same order, and each once.
pub fn ids(ids: impl IntoIterator<Item = Uuid>) -> String {
    let ids: std::collections::BTreeSet<Uuid> = ids.into_iter().collect();
    ids.into_iter().map(id).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_cut_where_they_would_be_too_long() {
        let mut statements = Statements::new(14);
        statements.push_rows("A ", " Z", ["one", "two", "three"], String::push_str);
        statements.push("B");
        statements.push_rows("C ", "", [] as [&str; 0], String::push_str);
        assert_eq!((statements.full, statements.sql.as_str()), (vec!["A one,two Z".to_owned()], "A three Z;B;"));
    }

    #[test]
    fn text_that_quotes_cannot_hold_is_hexadecimal() {
        let literal = |value: &str| {
            let mut sql = String::new();
            text(&mut sql, value);
            sql
        };
        assert_eq!(literal("커피"), "'커피'");
        assert_eq!(literal("a'b"), "_utf8mb4 x'612762'");
        assert_eq!(literal("\\"), "_utf8mb4 x'5c'");
    }
}
