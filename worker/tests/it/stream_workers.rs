//! Stream workers that are slow, frozen, or two on one stream.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dibs_common::{
    clock::Timestamp,
    error::Result,
    identifiers::ClaimId,
    redis::streams::{ClaimEntry, ClaimStream},
    testing::{FIRST, eventually},
};
use dibs_worker::streams::{Handler, Limits, ReclaimPolicy, StreamWorker};
use futures::{StreamExt as _, stream};

use crate::{campaign_test::CampaignTest, support::Running};

const POLICY: ReclaimPolicy =
    ReclaimPolicy { min_idle: Duration::from_millis(600), poll_interval: Duration::from_millis(50) };
const ENTRIES: u64 = 1_500;

type Deliveries = Arc<Mutex<HashMap<ClaimId, u32>>>;

/// Takes 100 ms for 50 entries: 3 s for all of them, five times as long as `min_idle`.
struct SlowHandler(Deliveries);

impl Handler for SlowHandler {
    type Entry = ClaimEntry;
    type Outcome = ();

    const LIMITS: Limits = Limits { read: 500, queued_reads: 3, entries: 50, load: 50, processing: 1, in_flight: 1 };

    const KEYS_SHARE_ROWS: bool = false;

    fn key(_: &ClaimEntry) -> u64 {
        0
    }

    async fn find_locked(&self, entries: &[&ClaimEntry]) -> Result<Vec<bool>> {
        Ok(vec![false; entries.len()])
    }

    fn load(entry: &ClaimEntry) -> usize {
        entry.claims.len()
    }

    async fn process(&self, entries: &[&ClaimEntry]) -> Result<Vec<()>> {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut deliveries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for claim in entries.iter().flat_map(|entry| &entry.claims) {
            *deliveries.entry(claim.record.claim_id).or_default() += 1;
        }
        Ok(vec![(); entries.len()])
    }

    async fn publish(&self, _: &[&ClaimEntry], _: &[()]) {}

    fn measure(&self, _: &[&ClaimEntry], _: &[()], _: Timestamp) {}
}

#[tokio::test]
async fn entries_in_flight_of_a_slow_worker_are_not_delivered_to_another() {
    let test = CampaignTest::new(2_000).await;
    stream::iter(1..=ENTRIES).for_each_concurrent(16, async |user| drop(test.accept([user]).await)).await;
    let deliveries = Deliveries::default();
    let worker = || {
        let handler = SlowHandler(Arc::clone(&deliveries));
        Running::start(StreamWorker::new(handler, &test.database, &test.redis, POLICY))
    };
    let workers = [worker(), worker()];
    let look = ClaimStream::open(&test.redis, FIRST, "look".into()).await.expect("opened");
    eventually("the stream is empty", Duration::from_secs(20), async || look.len().await.expect("a length") == 0).await;
    for worker in workers {
        worker.stop().await;
    }
    let deliveries = deliveries.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let repeated = deliveries.values().filter(|times| **times > 1).count();
    assert_eq!((deliveries.len(), repeated), (1_500, 0), "claims delivered, and those delivered more than once");
    test.end().await;
}

/// A frozen process does not refresh. When it goes on, it does not take back what others have reclaimed.
#[tokio::test]
async fn a_refresh_keeps_entries_and_their_delivery_counts_and_takes_none_from_others() {
    let test = CampaignTest::with_accepted(5, [1]).await;
    let frozen = ClaimStream::open(&test.redis, FIRST, "frozen".into()).await.expect("opened");
    let other = ClaimStream::open(&test.redis, FIRST, "other".into()).await.expect("opened");
    assert_eq!(frozen.read(10).await.expect("read").len(), 1);
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(frozen.refresh().await.expect("refreshed"), 1);
    let idle = Duration::from_millis(100);
    assert_eq!(other.reclaim(idle, 10).await.expect("looked").len(), 0, "it was refreshed just now");
    tokio::time::sleep(idle).await;
    let reclaimed = other.reclaim(idle, 10).await.expect("reclaimed");
    assert_eq!(reclaimed.iter().map(|delivery| delivery.attempts).collect::<Vec<_>>(), [2], "a refresh is no delivery");
    assert_eq!(frozen.refresh().await.expect("refreshed"), 0, "it is the other's now");
    assert_eq!(other.refresh().await.expect("refreshed"), 1);
    assert_eq!(other.acknowledge(&[reclaimed[0].id.clone()]).await.expect("acknowledged"), 1);
    test.end().await;
}
