use std::{collections::BTreeMap, time::Duration};

use dibs_common::{
    clock,
    db::{self, Database, HeldLease, Lease},
    domain::rebuild::Rebuild,
    error::Result,
    identifiers::CouponId,
    redis::Redis,
};
use tokio_util::sync::CancellationToken;

use super::rebuild::rebuild;

const LEASE: &str = "campaign rebuilds";
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Requests of one round.
const BATCH_SIZE: u32 = 100;

/// Executes the rebuilds that administrators request. One process does so at a time, any number may run this.
pub(crate) async fn run_requested(database: Database, redis: Redis, stopping: CancellationToken) {
    let lease = HeldLease::new(&database, LEASE);
    let round = async move |lease: &mut Lease| rebuild_pending(&database, &redis, lease).await.map(drop);
    lease.run(POLL_INTERVAL, stopping, round).await;
}

/// Executes the rebuilds that are requested. Returns how many; none when another process holds the lease.
pub async fn rebuild_requested(database: &Database, redis: &Redis) -> Result<usize> {
    let done = HeldLease::once(database, LEASE, async |lease| rebuild_pending(database, redis, lease).await);
    Ok(done.await?.unwrap_or(0))
}

async fn rebuild_pending(database: &Database, redis: &Redis, lease: &mut Lease) -> Result<usize> {
    let pending = db::within(db::rebuilds::list_pending(&mut *lease.reader().await?, BATCH_SIZE)).await?;
    // All that were requested before a rebuild begins are done by it.
    let mut by_coupon: BTreeMap<CouponId, Vec<Rebuild>> = BTreeMap::new();
    for request in pending {
        by_coupon.entry(request.coupon_id).or_default().push(request);
    }
    let mut done = 0;
    for (coupon, requests) in by_coupon {
        let Some(campaign) = db::within(db::campaigns::find(&database.pool(), coupon)).await? else { continue };
        lease.ensure_held()?;
        let Some(counts) = rebuild(database, redis, &campaign).await? else {
            tracing::debug!(%coupon, "another process rebuilds the campaign; the request waits");
            continue;
        };
        for request in requests {
            let connection = lease.begin().await?;
            let marking = db::rebuilds::mark_done(connection, request.rebuild_id, counts.claimed, clock::now());
            db::within(marking).await?;
            done += 1;
        }
        lease.commit().await?;
    }
    Ok(done)
}
