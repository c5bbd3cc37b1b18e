//! The claims of a burst: one shuffled list, from which all goose users take the next claim.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use dibs_common::identifiers::UserId;
use tokio::sync::Notify;

use crate::record::{ClaimObservation, ClaimResponse, ClientRecord};

/// The claims to send, and the observed responses.
pub struct ClaimList {
    users: Vec<UserId>,
    next: AtomicUsize,
    accepted: AtomicU64,
    accepted_limit: AtomicU64,
    limit_raised: Notify,
    record: Mutex<ClientRecord>,
}

impl ClaimList {
    /// `requests` claims of `users` users: each user claims once, some twice, some three times. The same `seed` gives
    /// the same order.
    pub fn new(users: u64, requests: u64, seed: u64) -> Self {
        // Of five users who claim again, one claims twice more.
        let duplicates = (0..requests.saturating_sub(users)).map(|extra| extra * 5 / 6 % users);
        // Ids of users start with 1.
        let ids = (0..users).chain(duplicates).filter_map(|number| UserId::try_from(number + 1).ok());
        let mut users: Vec<UserId> = ids.collect();
        fastrand::Rng::with_seed(seed).shuffle(&mut users);
        Self {
            users,
            next: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
            // No limit without faults.
            accepted_limit: AtomicU64::new(u64::MAX),
            limit_raised: Notify::new(),
            record: Mutex::default(),
        }
    }

    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// The user of the next claim; none at the end. Waits while as many claims are accepted as the limit allows.
    pub async fn next(&self) -> Option<UserId> {
        loop {
            // Registered before the limit is read: a limit that is raised in between must wake this task.
            let raised = self.limit_raised.notified();
            if self.accepted() < self.accepted_limit.load(Relaxed) {
                return self.users.get(self.next.fetch_add(1, Relaxed)).copied();
            }
            raised.await;
        }
    }

    /// Records the response to a claim.
    pub fn record(&self, observation: ClaimObservation) {
        let is_accepted = match observation.response {
            ClaimResponse::Accepted(_) => true,
            // Most likely an earlier attempt of this claim was accepted and its response got lost.
            ClaimResponse::AlreadyIssued(_) => observation.uncertain_attempts > 0,
            _ => false,
        };
        self.accepted.fetch_add(u64::from(is_accepted), Relaxed);
        self.with_record(|record| record.observations.push(observation));
    }

    pub fn with_record<T>(&self, change: impl FnOnce(&mut ClientRecord) -> T) -> T {
        change(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Claims accepted so far, according to the responses.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// Hands out no claim while `accepted` claims are accepted, until the limit is raised.
    pub fn set_accepted_limit(&self, accepted: u64) {
        self.accepted_limit.store(accepted, Relaxed);
        // All goose users wait, not one.
        self.limit_raised.notify_waiters();
    }

    /// Whether all claims are handed out.
    pub fn is_exhausted(&self) -> bool {
        self.next.load(Relaxed) >= self.users.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use dibs_common::identifiers::ClaimId;

    use super::*;
    use crate::record::Receipt;

    fn claims_by_user(list: &ClaimList) -> HashMap<UserId, u64> {
        let mut claims = HashMap::new();
        list.users.iter().for_each(|user| *claims.entry(*user).or_default() += 1);
        claims
    }

    fn observation(response: ClaimResponse, uncertain_attempts: u32) -> ClaimObservation {
        ClaimObservation { user: UserId::try_from(1).expect("an id"), response, uncertain_attempts }
    }

    #[test]
    fn every_user_claims_and_some_twice_or_three_times() {
        let list = ClaimList::new(100_000, 130_000, 1);
        let claims = claims_by_user(&list);
        let with = |count| claims.values().filter(|&&claims| claims == count).count();
        assert_eq!((list.len(), claims.len()), (130_000, 100_000));
        assert_eq!((with(1), with(2), with(3)), (75_000, 20_000, 5_000));
    }

    #[test]
    fn the_seed_determines_the_order() {
        let users = |seed| ClaimList::new(100, 130, seed).users;
        assert_eq!(users(1), users(1));
        assert_ne!(users(1), users(2));
    }

    #[tokio::test]
    async fn no_claim_is_handed_out_at_the_limit() {
        let list = ClaimList::new(2, 2, 1);
        list.set_accepted_limit(0);
        let (first, ()) = tokio::join!(list.next(), async { list.set_accepted_limit(1) });
        assert!(first.is_some());
        assert!(list.next().await.is_some());
        assert!(list.next().await.is_none() && list.is_exhausted());
    }

    #[test]
    fn a_409_after_a_lost_response_counts_as_accepted() {
        let list = ClaimList::new(1, 1, 1);
        list.record(observation(ClaimResponse::Exhausted, 0));
        list.record(observation(ClaimResponse::AlreadyIssued(None), 0));
        assert_eq!(list.accepted(), 0);
        list.record(observation(ClaimResponse::AlreadyIssued(None), 1));
        list.record(observation(ClaimResponse::Accepted(Receipt { claim_id: ClaimId::generate(), sequence: 1 }), 0));
        assert_eq!(list.accepted(), 2);
        assert_eq!(list.with_record(|record| record.observations.len()), 4);
    }
}
