//! What all users of a shop share: what is on offer, until when, and the record of their answers.

use std::sync::{Mutex, PoisonError};

use dibs_common::identifiers::{CouponId, ProductId, UserId};
use tokio::time::Instant;
use uuid::Uuid;

use super::answer::Answer;
use crate::{
    record::{Call, ClientRecord, Promise, ShopRecord, Told},
    rng::Rng,
};

/// Where they shop.
pub struct ShopState {
    /// The products; the first is the one that everybody wants.
    pub products: Vec<ProductId>,
    /// The campaigns.
    pub campaigns: Vec<CouponId>,
    /// When the last call is made, but for outcomes that are still to come.
    pub end: Instant,
    /// Decides what the users do.
    pub seed: u64,
    record: Mutex<ShopRecord>,
}

impl ShopState {
    /// A market that nobody has visited yet.
    pub fn new(products: Vec<ProductId>, campaigns: Vec<CouponId>, end: Instant, seed: u64) -> Self {
        Self { products, campaigns, end, seed, record: Mutex::default() }
    }

    /// Adds to the record.
    pub fn with_record<T>(&self, change: impl FnOnce(&mut ShopRecord) -> T) -> T {
        change(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes an answer that no call may have, or one that never came.
    pub fn strange(&self, call: Call, what: &str) {
        self.with_record(|record| record.strange.add(format!("{}: {what}", call.name())));
    }

    /// Notes what a user was told.
    pub fn told(&self, user: UserId, told: Told, id: Uuid) {
        self.with_record(|record| record.promises.push(Promise { id, user, told }));
    }

    /// Notes an answer, and what became of a claim.
    pub fn claimed(&self, coupon: CouponId, note: impl FnOnce(&mut ClientRecord)) {
        self.with_record(|record| note(record.claims.entry(coupon).or_default()));
    }

    /// Notes an answer with the time that it took.
    pub fn answered(&self, call: Call, answer: &Answer, took: std::time::Duration) {
        self.with_record(|record| {
            let of_call = record.calls.entry(call).or_default();
            of_call.latencies.record(took);
            of_call.taken += u64::from(answer.status == 202 && !matches!(call, Call::Claim | Call::FollowUp));
            super::answer::count(&mut of_call.refusals, answer);
        });
        if !answer.is_expected_of(call) {
            self.strange(call, &format!("{} {}", answer.status, answer.body));
        }
    }

    /// Products for an order, 1 to 3 of them: in half of all orders the first is that which everybody wants.
    pub fn basket(&self, dice: &mut Rng) -> Vec<(ProductId, usize)> {
        let (hot, others) = self.products.split_first().expect("a market has products");
        let mut others = others.to_vec();
        let mut basket = Vec::new();
        if dice.percent(50) || others.is_empty() {
            basket.push(*hot);
        }
        let wanted = 1 + dice.below(3);
        while basket.len() < wanted
            && let Some(product) = dice.take(&mut others)
        {
            basket.push(product);
        }
        basket.into_iter().map(|product| (product, 1 + dice.below(3))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_all_orders_are_for_the_first_product() {
        let products: Vec<ProductId> = (1..=20).map(|id| ProductId::try_from(id).expect("an id")).collect();
        let market = ShopState::new(products.clone(), Vec::new(), Instant::now(), 1);
        let mut dice = Rng::new(1);
        let baskets: Vec<_> = (0..2000).map(|_| market.basket(&mut dice)).collect();
        let hot = baskets.iter().filter(|basket| basket.iter().any(|(product, _)| *product == products[0])).count();
        assert!((900..1100).contains(&hot), "{hot}");
        assert!(baskets.iter().all(|basket| (1..=3).contains(&basket.len())));
        assert!(baskets.iter().flatten().all(|(_, quantity)| (1..=3).contains(quantity)));
    }
}
