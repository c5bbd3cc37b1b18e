//! The table `processes`: what runs, and the settings that all of it must share.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use sqlx::{FromRow, MySqlPool, types::Json};
use uuid::Uuid;

use crate::clock;

/// A process that was seen within this time runs.
pub const SEEN_WITHIN: Duration = Duration::from_secs(30);

/// Settings by name.
pub type SharedSettings = BTreeMap<String, String>;

/// What a process says of itself.
#[derive(Clone, Debug)]
pub struct Presence {
    pub id: Uuid,
    pub program: &'static str,
    pub address: String,
    /// Those that all processes must share.
    pub settings: SharedSettings,
    /// The most that its pool opens.
    pub database_connections: u32,
}

/// A process that runs.
#[derive(Clone, Debug, PartialEq, Eq, FromRow, Serialize, Deserialize)]
pub struct Running {
    pub program: String,
    pub version: String,
    pub address: String,
    #[sqlx(json)]
    pub settings: SharedSettings,
    pub database_connections: u32,
    /// The clock of the process, less that of the database.
    pub clock_offset_ms: i64,
}

/// Records that the process runs, and forgets those that ended without a word.
pub async fn report(pool: &MySqlPool, presence: &Presence) -> Result<(), sqlx::Error> {
    // The clock is compared within the statement, so only the way to the server is part of the difference.
    sqlx::query(
        "INSERT INTO processes /* processes::report */ (process_id, program, version, address, settings, \
         database_connections, clock_offset_ms, started_at, seen_at) \
         VALUES (?, ?, ?, ?, ?, ?, TIMESTAMPDIFF(MICROSECOND, UTC_TIMESTAMP(6), ?) DIV 1000, UTC_TIMESTAMP(3), \
         UTC_TIMESTAMP(3)) \
         ON DUPLICATE KEY UPDATE clock_offset_ms = VALUES(clock_offset_ms), seen_at = VALUES(seen_at)",
    )
    .bind(presence.id)
    .bind(presence.program)
    .bind(env!("CARGO_PKG_VERSION"))
    .bind(&presence.address)
    .bind(Json(&presence.settings))
    .bind(presence.database_connections)
    .bind(clock::now())
    .execute(pool)
    .await?;
    sqlx::query("DELETE /* processes::report */ FROM processes WHERE seen_at < UTC_TIMESTAMP(3) - INTERVAL 1 HOUR")
        .execute(pool)
        .await
        .map(drop)
}

/// The process ends.
pub async fn forget(pool: &MySqlPool, id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE /* processes::forget */ FROM processes WHERE process_id = ?")
        .bind(id)
        .execute(pool)
        .await
        .map(drop)
}

/// The processes that run, workers last.
pub async fn list_running(pool: &MySqlPool) -> Result<Vec<Running>, sqlx::Error> {
    sqlx::query_as(
        "SELECT /* processes::list_running */ program, version, address, settings, database_connections, clock_offset_ms \
         FROM processes WHERE seen_at > UTC_TIMESTAMP(3) - INTERVAL ? SECOND ORDER BY program, started_at",
    )
    .bind(SEEN_WITHIN.as_secs())
    .fetch_all(pool)
    .await
}
