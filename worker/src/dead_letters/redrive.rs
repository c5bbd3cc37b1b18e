use std::time::Duration;

use dibs_common::{
    clock,
    db::{self, Database, HeldLease, Lease},
    domain::dead_letter::{CLAIMS, COMMANDS, DeadLetter, Redriven},
    error::Result,
    identifiers::{CouponId, DeadLetterId},
    redis::{
        Redis,
        streams::{self, ClaimEntry, OrderEntry},
    },
};
use tokio_util::sync::CancellationToken;

use crate::campaigns;

const LEASE: &str = "dead letters of streams";
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Letters of a source that one round redrives.
const BATCH_SIZE: u32 = 100;

/// Redrives the letters of claims and commands. One process does so at a time, any number may run this.
pub(crate) async fn run(database: Database, redis: Redis, stopping: CancellationToken) {
    let lease = HeldLease::new(&database, LEASE);
    let round = async move |lease: &mut Lease| redrive_requested(&database, &redis, lease).await.map(drop);
    lease.run(POLL_INTERVAL, stopping, round).await;
}

/// Redrives the letters of claims and commands whose redrive is requested. Returns how many; none when another process
/// holds the lease.
pub async fn redrive_once(database: &Database, redis: &Redis) -> Result<usize> {
    let redriven = HeldLease::once(database, LEASE, async |lease| redrive_requested(database, redis, lease).await);
    Ok(redriven.await?.unwrap_or(0))
}

async fn redrive_requested(database: &Database, redis: &Redis, lease: &mut Lease) -> Result<usize> {
    let mut redriven = 0;
    for source in [CLAIMS, COMMANDS] {
        let mut after: Option<DeadLetterId> = None;
        loop {
            let mut reader = lease.reader().await?;
            let page = db::dead_letters::list_to_redrive(&mut reader, source, after, BATCH_SIZE);
            let letters = db::within(page).await?;
            drop(reader);
            let Some(last) = letters.last() else { break };
            after = Some(last.id);
            for letter in &letters {
                redriven += usize::from(redrive_letter(database, redis, lease, letter).await?);
            }
        }
    }
    Ok(redriven)
}

/// Appends the entry of a letter to its stream again, with the same fields: a claim keeps its id, and a claim or
/// command that has its outcome meanwhile keeps that. The append comes before the status, so a death between them
/// appends the entry twice, which the same ids make harmless.
async fn redrive_letter(database: &Database, redis: &Redis, lease: &mut Lease, letter: &DeadLetter) -> Result<bool> {
    let (partition, fields) = match streams::stored_entry(letter) {
        Ok(stored) => stored,
        Err(malformed) => {
            let dead = Redriven::Dead { reason: malformed.to_string(), attempts: 0 };
            return mark(lease, letter, &dead).await.map(|()| false);
        }
    };
    let sent = Redriven::Sent { attempts: 0 };
    if letter.source == COMMANDS {
        streams::append::<OrderEntry>(redis, partition, fields).await?;
        return mark(lease, letter, &sent).await.map(|()| true);
    }
    // A rebuild reads the stream and then the letters. Were the entry to move the other way meanwhile, the rebuild
    // would not count its claims.
    let Some(rebuild) = lease_of_rebuild(database, letter).await? else { return Ok(false) };
    let redriven = async {
        streams::append::<ClaimEntry>(redis, partition, fields).await?;
        mark(lease, letter, &sent).await
    };
    let redriven = redriven.await;
    rebuild.release().await.and(redriven).map(|()| true)
}

/// None while the campaign of a letter is rebuilt: the letter waits for the next round. Without a known campaign no
/// rebuild reads the letter, and a lease of its own serves.
async fn lease_of_rebuild(database: &Database, letter: &DeadLetter) -> Result<Option<Lease>> {
    let coupon: Option<u64> = letter.aggregate_id.as_ref().and_then(|id| id.parse().ok());
    let name = match coupon.and_then(|id| CouponId::try_from(id).ok()) {
        Some(coupon) => campaigns::rebuild_lease(coupon),
        None => format!("redrive {}", letter.id),
    };
    database.try_lease(&name).await
}

async fn mark(lease: &mut Lease, letter: &DeadLetter, outcome: &Redriven) -> Result<()> {
    db::within(db::dead_letters::mark_redriven(lease.begin().await?, letter.id, outcome, clock::now())).await?;
    lease.commit().await?;
    match outcome {
        Redriven::Sent { .. } => tracing::info!(id = %letter.id, source = letter.source, "dead letter redriven"),
        Redriven::Dead { reason, .. } => {
            tracing::error!(id = %letter.id, source = letter.source, reason, "dead letter cannot be redriven");
        }
    }
    Ok(())
}
