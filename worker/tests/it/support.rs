use std::time::Duration;

use bytes::Bytes;
use dibs_common::{
    domain::campaign::Campaign,
    identifiers::{ClaimId, UserId},
    redis::scripts::{ClaimRequest, Decision, claim},
    testing::{FIRST, Place},
};
use dibs_worker::issuance::{Consumer, Pace};

/// A pace that does not make a test wait.
pub const IMPATIENT: Pace = Pace { take_over_after: Duration::ZERO, look_every: Duration::ZERO };

pub fn user(number: u64) -> UserId {
    number.try_into().expect("an id")
}

pub fn request(number: u64) -> ClaimRequest {
    ClaimRequest { user: user(number), claim: ClaimId::generate(), request: Bytes::new() }
}

/// Claims as these users, in one call; all are accepted.
pub async fn accept(place: &Place, campaign: &Campaign, users: impl IntoIterator<Item = u64>) -> Vec<ClaimId> {
    let requests: Vec<ClaimRequest> = users.into_iter().map(request).collect();
    let decided = claim(&place.redis, campaign.partition, campaign.id, "", &requests).await.expect("redis");
    let decided = decided.expect("a known campaign").decisions;
    assert!(decided.iter().all(|decision| matches!(decision, Decision::Accepted(_))), "{decided:?}");
    requests.into_iter().map(|request| request.claim).collect()
}

pub async fn consumer(place: &Place, name: &str) -> Consumer {
    Consumer::join(&place.database, &place.redis, FIRST, name.into(), IMPATIENT).await.expect("joined")
}

/// Works until nothing is left that can be ended.
pub async fn work(place: &Place) {
    let consumer = consumer(place, "worker").await;
    while consumer.run_once().await.expect("worked") > 0 {}
}
