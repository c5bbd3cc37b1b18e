//! The state that all users of a shop share: products, campaigns, the end of the load, and the record.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use dibs_common::identifiers::{CouponId, ProductId, UserId};
use fastrand::Rng;
use tokio::time::Instant;
use uuid::Uuid;

use super::{random, response::ApiResponse};
use crate::record::{ClientRecord, Expectation, ExpectedState, Operation, ShopRecord};

pub struct ShopState {
    /// The first product is in half of all orders.
    pub products: Vec<ProductId>,
    pub campaigns: Vec<CouponId>,
    /// No request is sent after it, except to poll pending outcomes.
    pub end: Instant,
    pub seed: u64,
    /// Whether faults are injected: then a user repeats a request that got no response, or a 503.
    pub has_faults: bool,
    record: Mutex<ShopRecord>,
}

impl ShopState {
    pub fn new(products: Vec<ProductId>, campaigns: Vec<CouponId>, end: Instant, seed: u64) -> Self {
        Self { products, campaigns, end, seed, has_faults: false, record: Mutex::default() }
    }

    pub fn with_record<T>(&self, change: impl FnOnce(&mut ShopRecord) -> T) -> T {
        change(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Records a response that breaks the contract, or one that never came.
    pub fn anomaly(&self, operation: Operation, what: &str) {
        self.with_record(|record| record.anomalies.add(format!("{}: {what}", operation.name())));
    }

    /// Records the state of an order, command or charge that a response promised.
    pub fn expect(&self, user: UserId, state: ExpectedState, id: Uuid) {
        self.with_record(|record| record.expectations.push(Expectation { id, user, state }));
    }

    /// Records an observation of a campaign's claims.
    pub fn claimed(&self, coupon: CouponId, change: impl FnOnce(&mut ClientRecord)) {
        self.with_record(|record| change(record.claims.entry(coupon).or_default()));
    }

    /// Records a response and its latency.
    pub fn responded(&self, operation: Operation, response: &ApiResponse, latency: Duration) {
        self.with_record(|record| {
            let stats = record.operations.entry(operation).or_default();
            stats.latencies.record(latency);
            // A claim is always accepted with 202, and a poll of a pending outcome is not a new command.
            let is_command = !matches!(operation, Operation::Claim | Operation::PollOutcome);
            stats.accepted += u64::from(response.status == 202 && is_command);
            if !response.is_success() {
                *stats.rejections.entry(response.rejection()).or_default() += 1;
            }
        });
        if !response.is_expected_of(operation) {
            self.anomaly(operation, &format!("{} {}", response.status, response.body));
        }
    }

    /// The items of an order: 1 to 3 products, 1 to 3 units each.
    pub fn basket(&self, rng: &mut Rng) -> Vec<(ProductId, usize)> {
        let (hot, others) = self.products.split_first().expect("a shop has products");
        let mut others = others.to_vec();
        let mut basket = Vec::new();
        // A hot product makes batches contend for one row, as a real sale does.
        if random::percent(rng, 50) || others.is_empty() {
            basket.push(*hot);
        }
        let wanted = rng.usize(1..=3);
        while basket.len() < wanted
            && let Some(product) = random::take(rng, &mut others)
        {
            basket.push(product);
        }
        basket.into_iter().map(|product| (product, rng.usize(1..=3))).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shop(products: u64) -> ShopState {
        let products = (1..=products).map(|id| ProductId::try_from(id).expect("an id")).collect();
        ShopState::new(products, Vec::new(), Instant::now(), 1)
    }

    #[test]
    fn half_of_all_orders_contain_the_first_product() {
        let (shop, mut rng) = (shop(20), Rng::with_seed(1));
        let baskets: Vec<_> = (0..2000).map(|_| shop.basket(&mut rng)).collect();
        let hot =
            baskets.iter().filter(|basket| basket.iter().any(|(product, _)| *product == shop.products[0])).count();
        assert!((900..1100).contains(&hot), "{hot}");
        assert!(baskets.iter().all(|basket| (1..=3).contains(&basket.len())));
        assert!(baskets.iter().flatten().all(|(_, quantity)| (1..=3).contains(quantity)));
    }

    #[test]
    fn a_shop_with_one_product_sells_it() {
        let (shop, mut rng) = (shop(1), Rng::with_seed(1));
        assert!((0..100).all(|_| shop.basket(&mut rng).len() == 1));
    }

    #[test]
    fn a_response_is_counted_by_operation_and_code() {
        let shop = shop(1);
        let respond = |operation, status, code: &str| {
            let response = ApiResponse { status, location: None, retry_after: None, body: json!({"code": code}) };
            shop.responded(operation, &response, Duration::from_millis(1));
        };
        respond(Operation::Place, 201, "");
        respond(Operation::Place, 202, "");
        respond(Operation::Place, 422, "STOCK_INSUFFICIENT");
        respond(Operation::Place, 422, "STOCK_INSUFFICIENT");
        // The 202 of a claim is not one of a command: a claim is always accepted with 202.
        respond(Operation::Claim, 202, "");
        let record = shop.with_record(std::mem::take);
        let place = &record.operations[&Operation::Place];
        assert_eq!((place.latencies.count(), place.accepted, place.rejections["422 STOCK_INSUFFICIENT"]), (4, 1, 2));
        assert_eq!(record.operations[&Operation::Claim].accepted, 0);
        assert_eq!(record.anomalies.count(), 0);
    }

    #[test]
    fn a_response_that_breaks_the_contract_is_an_anomaly() {
        let shop = shop(1);
        let response =
            ApiResponse { status: 500, location: None, retry_after: None, body: json!({"code": "INTERNAL"}) };
        shop.responded(Operation::Pay, &response, Duration::ZERO);
        let record = shop.with_record(std::mem::take);
        assert_eq!(record.anomalies.samples(), [r#"POST /payments/confirm: 500 {"code":"INTERNAL"}"#]);
        assert_eq!(record.operations[&Operation::Pay].rejections["500 INTERNAL"], 1);
    }
}
