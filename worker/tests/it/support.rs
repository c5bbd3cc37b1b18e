use std::time::Duration;

use bytes::Bytes;
use dibs_common::{
    domain::campaign::Campaign,
    identifiers::{ClaimId, UserId},
    redis::scripts::{ClaimRequest, Decision, claim},
    testing::{FIRST, TestEnvironment},
};
use dibs_worker::issuance::{Consumer, ReclaimPolicy};

/// A pace that does not make a test wait.
pub const IMPATIENT: ReclaimPolicy = ReclaimPolicy { min_idle: Duration::ZERO, poll_interval: Duration::ZERO };

pub fn user(number: u64) -> UserId {
    number.try_into().expect("an id")
}

pub fn request(number: u64) -> ClaimRequest {
    ClaimRequest { user: user(number), claim: ClaimId::generate(), request: Bytes::new() }
}

/// Claims as these users, in one call; all are accepted.
pub async fn accept(
    place: &TestEnvironment,
    campaign: &Campaign,
    users: impl IntoIterator<Item = u64>,
) -> Vec<ClaimId> {
    let requests: Vec<ClaimRequest> = users.into_iter().map(request).collect();
    let decided = claim(&place.redis, campaign.partition, campaign.id, "", &requests).await.expect("redis");
    let decided = decided.expect("a known campaign").decisions;
    assert!(decided.iter().all(|decision| matches!(decision, Decision::Accepted(_))), "{decided:?}");
    requests.into_iter().map(|request| request.claim).collect()
}

pub async fn consumer(place: &TestEnvironment, name: &str) -> Consumer {
    Consumer::join(&place.database, &place.redis, FIRST, name.into(), IMPATIENT).await.expect("joined")
}

/// Works until nothing is left that can be ended.
pub async fn work(place: &TestEnvironment) {
    let consumer = consumer(place, "worker").await;
    while consumer.run_once().await.expect("worked") > 0 {}
}
