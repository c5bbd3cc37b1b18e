//! Notices that `MySQL` was restored to an earlier state, from a backup or by an asynchronous failover, and begins an
//! epoch.
//!
//! Redis remembers how far `MySQL` was. Whatever is remembered was committed before, so a `MySQL` that is read later
//! and is behind it has lost something. No event gets a sequence until an epoch has begun, so a sequence never names
//! two events of one epoch. The rest follows by itself: what Redis holds of campaigns and sales carries the epoch that
//! it is of, and is rebuilt when that is not the current one.

use std::time::Duration;

use dibs_common::{
    clock,
    db::{self, Database},
    domain::event::Position,
    error::{Error, Result},
    redis::{Redis, database_position, scripts::remember_position},
    retry::{self, RetryPolicy},
};

/// How long `MySQL` may be behind before an epoch begins: a server of a cluster may be late.
const CONFIRMATION: RetryPolicy = RetryPolicy::constant(Duration::from_millis(200)).within(Duration::from_secs(1));

/// Compares `MySQL` with the position that Redis remembers, and with one that this process has seen, and begins an
/// epoch when `MySQL` is behind. Returns the position of `MySQL`, which Redis remembers from then on.
pub async fn check(database: &Database, redis: &Redis, seen: Position) -> Result<Position> {
    // Before MySQL: the other way round, events that get their sequence meanwhile would look like lost ones.
    let remembered = seen.max(database_position::find(redis).await?.unwrap_or_default());
    let position = retry::await_value(CONFIRMATION, async || {
        let position = db::within(db::epochs::position(&database.pool())).await?;
        Ok::<_, Error>((position >= remembered).then_some(position))
    });
    let position = match position.await? {
        Some(position) => position,
        None => begin(database, remembered).await?,
    };
    if position > remembered {
        remember_position(redis, position).await?;
    }
    Ok(position)
}

async fn begin(database: &Database, lost: Position) -> Result<Position> {
    let begun = db::epochs::begin(database, Some(lost), "noticed by a worker", clock::now()).await?;
    let Some(begun) = begun else { return db::within(db::epochs::position(&database.pool())).await };
    metrics::counter!("dibs_restores_noticed_total").increment(1);
    tracing::error!(%lost, %begun, "mysql returned to an earlier state; a new epoch begins");
    Ok(begun)
}
