//! The table `epochs`: which restores to an earlier state `MySQL` went through.
//!
//! An epoch is a row and not a column of each event: a restore brings back events of earlier epochs, which keep their
//! ids.

use sqlx::{MySqlConnection, MySqlExecutor};

use super::{Database, retrying, with_timeout};
use crate::{
    clock::Timestamp,
    domain::event::{Epoch, Position},
    error::Result,
};

/// The epochs, the latest first, and the last sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Epochs {
    /// Each with the sequence after which it began.
    begins: Vec<(Epoch, u64)>,
    last_sequence: u64,
}

impl Epochs {
    /// The epoch in which an event got its sequence.
    pub fn of(&self, sequence: u64) -> Epoch {
        self.begins.iter().find(|(_, after)| *after < sequence).map_or(Epoch::default(), |(epoch, _)| *epoch)
    }

    pub fn position(&self) -> Position {
        let epoch = self.begins.first().map_or(Epoch::default(), |(epoch, _)| *epoch);
        Position { epoch, sequence: self.last_sequence }
    }
}

/// All epochs: a handful of rows.
pub async fn list(connection: &mut MySqlConnection) -> Result<Epochs, sqlx::Error> {
    let rows: Vec<(u64, u64, u64)> = sqlx::query_as(
        "SELECT /* epochs::list */ epoch, after_sequence, last_sequence FROM epochs, outbox_sequence ORDER BY epoch DESC",
    )
    .fetch_all(connection)
    .await?;
    let last_sequence = rows.first().map_or(0, |(.., last_sequence)| *last_sequence);
    Ok(Epochs { begins: rows.into_iter().map(|(epoch, after, _)| (Epoch(epoch), after)).collect(), last_sequence })
}

/// The current epoch, and the last sequence.
pub async fn position(executor: impl MySqlExecutor<'_>) -> Result<Position, sqlx::Error> {
    let (epoch, sequence): (u64, u64) = sqlx::query_as(
        "SELECT /* epochs::position */ (SELECT MAX(epoch) FROM epochs) AS epoch, last_sequence FROM outbox_sequence",
    )
    .fetch_one(executor)
    .await?;
    Ok(Position { epoch: Epoch(epoch), sequence })
}

/// Begins an epoch after the last sequence, because of a restore. With a `lost` position only while `MySQL` is behind
/// it: none when another process has begun one.
pub async fn begin(
    database: &Database,
    lost: Option<Position>,
    reason: &str,
    now: Timestamp,
) -> Result<Option<Position>> {
    retrying("begin_epoch", || with_timeout(begin_in_transaction(database, lost, reason, now))).await
}

async fn begin_in_transaction(
    database: &Database,
    lost: Option<Position>,
    reason: &str,
    now: Timestamp,
) -> Result<Option<Position>, sqlx::Error> {
    let mut transaction = database.begin().await?;
    // The lock that gives sequences: none is given meanwhile, and only one process begins an epoch.
    let sequence: u64 =
        sqlx::query_scalar("SELECT /* epochs::begin_in_transaction */ last_sequence FROM outbox_sequence FOR UPDATE")
            .fetch_one(&mut *transaction)
            .await?;
    let current: u64 = sqlx::query_scalar("SELECT /* epochs::begin_in_transaction */ MAX(epoch) FROM epochs")
        .fetch_one(&mut *transaction)
        .await?;
    if lost.is_some_and(|lost| Position { epoch: Epoch(current), sequence } >= lost) {
        return Ok(None);
    }
    // The time, as the restore has taken back a counter as well. Higher than every epoch that is known, whatever the
    // clock says.
    let known = current.max(lost.map_or(0, |lost| lost.epoch.0));
    let epoch = u64::try_from(now.timestamp()).unwrap_or(0).max(known + 1);
    sqlx::query(
        "INSERT INTO epochs /* epochs::begin_in_transaction */ (epoch, after_sequence, reason, began_at) VALUES (?, ?, ?, ?)",
    )
    .bind(epoch)
    .bind(sequence)
    .bind(reason)
    .bind(now)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(Some(Position { epoch: Epoch(epoch), sequence }))
}
