//! From rows and the values of columns to the types of the domain, and the way back.

use std::str::FromStr;

use serde::Serialize;
use sqlx::{FromRow, MySqlExecutor, mysql::MySqlRow};

/// The row that a statement finds whose one parameter is an id.
pub(super) async fn find_row<R>(
    executor: impl MySqlExecutor<'_>,
    sql: String,
    id: u64,
) -> Result<Option<R>, sqlx::Error>
where
    R: for<'r> FromRow<'r, MySqlRow> + Send + Unpin,
{
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(id).fetch_optional(executor).await
}

/// Rows as one JSON parameter, which `JSON_TABLE` reads: the statement stays the same for any number of them.
pub(super) fn json_rows(rows: &impl Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(rows).map_err(|error| sqlx::Error::Encode(error.into()))
}

/// An identifier from an unsigned column.
pub(super) fn identifier<T: TryFrom<u64, Error = String>>(number: u64) -> Result<T, sqlx::Error> {
    T::try_from(number).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// A domain enum from the spelling in `column`, such as `orders.status`. A newer version may have written a value that
/// this one does not know.
pub(super) fn parse<T: FromStr>(column: &str, value: &str) -> Result<T, sqlx::Error> {
    value.parse().map_err(|_| sqlx::Error::Decode(format!("{column}: unknown value '{value}'").into()))
}
