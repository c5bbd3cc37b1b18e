//! The claims of a rush: one list, shuffled, from which all goose users take the next.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use dibs_common::identifiers::UserId;
use tokio::sync::Notify;

use crate::{
    record::{Answer, ClientRecord, Entry},
    rng::Rng,
};

/// What is claimed by whom, and what was answered.
pub struct ClaimList {
    users: Vec<UserId>,
    next: AtomicUsize,
    seats: AtomicU64,
    ceiling: AtomicU64,
    ceiling_raised: Notify,
    record: Mutex<ClientRecord>,
}

impl ClaimList {
    /// `requests` claims of `users` users: everybody claims, some twice, some three times. The same `seed` gives the
    /// same order.
    pub fn new(users: u64, requests: u64, seed: u64) -> Self {
        // Of five who claim again, one does so twice.
        let again = (0..requests.saturating_sub(users)).map(|extra| extra * 5 / 6 % users);
        let ids = (0..users).chain(again).filter_map(|number| UserId::try_from(number + 1).ok());
        let mut users: Vec<UserId> = ids.collect();
        Rng::new(seed).shuffle(&mut users);
        Self {
            users,
            next: AtomicUsize::new(0),
            seats: AtomicU64::new(0),
            ceiling: AtomicU64::new(u64::MAX),
            ceiling_raised: Notify::new(),
            record: Mutex::default(),
        }
    }

    /// How many claims there are.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Who claims next; waits while as many seats are taken as the ceiling allows.
    pub async fn next(&self) -> Option<UserId> {
        loop {
            // Registered before the ceiling is read, lest it be raised in between.
            let raised = self.ceiling_raised.notified();
            if self.seats_taken() < self.ceiling.load(Relaxed) {
                return self.users.get(self.next.fetch_add(1, Relaxed)).copied();
            }
            raised.await;
        }
    }

    /// Keeps what was answered.
    pub fn answered(&self, entry: Entry) {
        let is_new_seat = match entry.answer {
            Answer::Accepted(_) => true,
            // Most likely of a try of this claim that was never answered.
            Answer::AlreadyIssued(_) => entry.doubtful_tries > 0,
            _ => false,
        };
        self.seats.fetch_add(u64::from(is_new_seat), Relaxed);
        self.with_record(|record| record.entries.push(entry));
    }

    /// Adds to the record.
    pub fn with_record<T>(&self, change: impl FnOnce(&mut ClientRecord) -> T) -> T {
        change(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Seats that claims have taken so far, as far as their answers tell.
    pub fn seats_taken(&self) -> u64 {
        self.seats.load(Relaxed)
    }

    /// Hands out no claim while so many seats are taken, until the ceiling is raised.
    pub fn set_ceiling(&self, seats: u64) {
        self.ceiling.store(seats, Relaxed);
        self.ceiling_raised.notify_waiters();
    }

    /// Whether all have been handed out.
    pub fn is_exhausted(&self) -> bool {
        self.next.load(Relaxed) >= self.users.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn claims_by_user(list: &ClaimList) -> HashMap<UserId, u64> {
        let mut claims = HashMap::new();
        list.users.iter().for_each(|user| *claims.entry(*user).or_default() += 1);
        claims
    }

    #[test]
    fn everybody_claims_and_some_twice_or_three_times() {
        let list = ClaimList::new(100_000, 130_000, 1);
        let claims = claims_by_user(&list);
        let with = |count| claims.values().filter(|&&claims| claims == count).count();
        assert_eq!((list.len(), claims.len()), (130_000, 100_000));
        assert_eq!((with(1), with(2), with(3)), (75_000, 20_000, 5_000));
    }

    #[test]
    fn the_seed_decides_the_order() {
        let users = |seed| ClaimList::new(100, 130, seed).users;
        assert_eq!(users(1), users(1));
        assert_ne!(users(1), users(2));
    }

    #[tokio::test]
    async fn nothing_is_handed_out_at_the_ceiling() {
        let list = ClaimList::new(2, 2, 1);
        list.set_ceiling(0);
        let (first, ()) = tokio::join!(list.next(), async { list.set_ceiling(1) });
        assert!(first.is_some());
        assert!(list.next().await.is_some());
        assert!(list.next().await.is_none() && list.is_exhausted());
    }
}
