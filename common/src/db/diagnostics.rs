//! What `dibs-worker doctor` asks the database server about itself.

use std::collections::BTreeMap;

use sqlx::{FromRow, MySqlPool};

use super::server::Server;
use crate::clock::Timestamp;

/// The settings of the server that Dibs depends on.
#[derive(Clone, Debug, FromRow)]
pub struct ServerSettings {
    /// That of a session of Dibs.
    pub session_time_zone: String,
    /// `innodb_flush_log_at_trx_commit`
    pub flush_log_at_commit: i64,
    pub max_connections: i64,
    pub clock: Timestamp,
}

pub async fn find_settings(pool: &MySqlPool) -> Result<ServerSettings, sqlx::Error> {
    sqlx::query_as(
        "SELECT /* diagnostics::find_settings */ @@session.time_zone AS session_time_zone, \
         CAST(@@global.innodb_flush_log_at_trx_commit AS SIGNED) AS flush_log_at_commit, \
         CAST(@@global.max_connections AS SIGNED) AS max_connections, UTC_TIMESTAMP(6) AS clock",
    )
    .fetch_one(pool)
    .await
}

/// Sessions that the server has now, of all its clients; and the most it ever had.
pub async fn count_sessions(pool: &MySqlPool) -> Result<(u64, u64), sqlx::Error> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SHOW GLOBAL STATUS WHERE /* diagnostics::count_sessions */ \
         Variable_name IN ('Threads_connected', 'Max_used_connections')",
    )
    .fetch_all(pool)
    .await?;
    let rows: BTreeMap<String, String> = rows.into_iter().collect();
    let number = |name: &str| rows.get(name).and_then(|value| value.parse().ok()).unwrap_or(0);
    Ok((number("Threads_connected"), number("Max_used_connections")))
}

/// The CHECK constraints of the tables: how many there are, and how many the server does not enforce.
pub async fn count_constraints(pool: &MySqlPool, server: &Server) -> Result<(i64, i64), sqlx::Error> {
    let sql = if server.is_mariadb() {
        "SELECT /* diagnostics::count_constraints */ COUNT(*), \
         CAST(IF(@@global.check_constraint_checks, 0, COUNT(*)) AS SIGNED) FROM information_schema.CHECK_CONSTRAINTS \
         WHERE CONSTRAINT_SCHEMA = DATABASE()"
    } else {
        "SELECT /* diagnostics::count_constraints */ COUNT(*), \
         CAST(COALESCE(SUM(ENFORCED = 'NO'), 0) AS SIGNED) FROM information_schema.TABLE_CONSTRAINTS \
         WHERE CONSTRAINT_SCHEMA = DATABASE() AND CONSTRAINT_TYPE = 'CHECK'"
    };
    sqlx::query_as(sql).fetch_one(pool).await
}
