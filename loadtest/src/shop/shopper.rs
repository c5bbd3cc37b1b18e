//! A user of the shop: its orders and coupons, and the choice of the next request.

use std::time::Duration;

use dibs_common::identifiers::{ClaimId, CouponId};
use serde_json::json;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{
    random,
    response::ApiResponse,
    session::{GooseFailure, Session},
};
use crate::record::{ClaimObservation, ClaimResponse, ExpectedState, Operation, Receipt};

/// How often a user polls a pending outcome.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// How long the outcome of a command may take: the worker may be killed meanwhile.
const OUTCOME_TIMEOUT: Duration = Duration::from_secs(90);
/// A user with more pending outcomes only polls.
const MAX_PENDING: usize = 3;
/// The most orders of each kind, and coupons, that a user remembers.
const MAX_TRACKED: usize = 50;

pub struct Shopper<'g> {
    session: Session<'g>,
    unpaid: Vec<Uuid>,
    paid: Vec<Uuid>,
    /// Confirmed or cancelled.
    ended: Vec<Uuid>,
    coupons: Vec<ClaimId>,
    pending: Vec<Pending>,
}

/// An outcome that a 202 promised.
struct Pending {
    location: String,
    since: Instant,
    next_poll: Instant,
}

impl<'g> Shopper<'g> {
    pub fn new(session: Session<'g>) -> Self {
        let (unpaid, paid, ended) = (Vec::new(), Vec::new(), Vec::new());
        Self { session, unpaid, paid, ended, coupons: Vec::new(), pending: Vec::new() }
    }

    /// Sends requests until the end of the load, then polls the pending outcomes.
    pub async fn run(mut self) -> Result<(), GooseFailure> {
        while Instant::now() < self.session.shop.end {
            self.poll_pending().await?;
            // A stack that falls behind must not be loaded with ever more orders of the same user.
            if self.pending.len() > MAX_PENDING {
                sleep(POLL_INTERVAL).await;
            } else {
                self.send_next().await?;
            }
        }
        while !self.pending.is_empty() {
            sleep(POLL_INTERVAL).await;
            self.poll_pending().await?;
        }
        Ok(())
    }

    async fn send_next(&mut self) -> Result<(), GooseFailure> {
        match self.session.rng.u8(..100) {
            0..12 => self.read(Operation::ListProducts, "/products?limit=20").await,
            12..26 => {
                let product = self.session.rng.usize(..self.session.shop.products.len());
                let path = format!("/products/{}", self.session.shop.products[product]);
                self.read(Operation::ShowProduct, &path).await
            }
            26..32 => self.charge().await,
            32..35 => self.claim().await,
            35..39 => self.list_coupons().await,
            39..65 => self.place().await,
            65..77 => self.pay().await,
            77..81 => self.confirm().await,
            81..88 => self.cancel().await,
            88..92 => {
                let path = format!("/orders?userId={}", self.session.user);
                self.read(Operation::ListOrders, &path).await
            }
            92..96 => {
                let path = format!("/points?userId={}", self.session.user);
                self.read(Operation::Balance, &path).await
            }
            96..98 => {
                let path = format!("/points/history?userId={}", self.session.user);
                self.read(Operation::History, &path).await
            }
            _ => match self.paid.last().or(self.unpaid.last()).copied() {
                Some(order) => self.read(Operation::ShowOrder, &format!("/orders/{order}")).await,
                None => self.place().await,
            },
        }
    }

    async fn read(&mut self, operation: Operation, path: &str) -> Result<(), GooseFailure> {
        self.session.get(operation, path).await.map(drop)
    }

    async fn charge(&mut self) -> Result<(), GooseFailure> {
        // Less on average than is spent, so that points run out now and then.
        let amount = 10_000 * self.session.rng.i64(1..=12);
        let body = json!({"userId": self.session.user, "amount": amount});
        let response = self.session.post_with_key(Operation::Charge, "/points", &body).await?;
        let Some(response) = response.filter(ApiResponse::is_success) else { return Ok(()) };
        self.expect(
            if response.status == 202 { ExpectedState::ChargeAccepted } else { ExpectedState::Charged },
            response.id("chargeId"),
        );
        self.follow(response);
        Ok(())
    }

    async fn claim(&mut self) -> Result<(), GooseFailure> {
        let coupon = self.session.shop.campaigns[self.session.rng.usize(..self.session.shop.campaigns.len())];
        let body = json!({"userId": self.session.user, "couponId": coupon});
        let response = self.session.post(Operation::Claim, "/coupons/issue", &body).await?;
        self.record_claim(coupon, response);
        Ok(())
    }

    fn record_claim(&self, coupon: CouponId, response: Option<ApiResponse>) {
        let receipt = |response: &ApiResponse| serde_json::from_value::<Receipt>(response.body.clone()).ok();
        // A claim without a final response may have been accepted all the same.
        let is_uncertain = response.as_ref().is_none_or(|response| response.status == 503);
        let claim = match response {
            Some(response) if response.status == 202 => receipt(&response).map(ClaimResponse::Accepted),
            Some(response) if response.code() == "COUPON_ALREADY_ISSUED" => {
                let first = response.body["claim"]["claimId"].as_str().and_then(|id| id.parse().ok());
                Some(ClaimResponse::AlreadyIssued(first.map(ClaimId)))
            }
            Some(response) if response.code() == "COUPON_EXHAUSTED" => Some(ClaimResponse::Exhausted),
            // A response that breaks the contract is an anomaly already.
            _ if is_uncertain => Some(ClaimResponse::Unanswered),
            _ => None,
        };
        let user = self.session.user;
        let uncertain_attempts = self.session.uncertain_attempts + u32::from(is_uncertain);
        let observation = claim.map(|response| ClaimObservation { user, response, uncertain_attempts });
        self.session.shop.claimed(coupon, |record| record.observations.extend(observation));
    }

    async fn list_coupons(&mut self) -> Result<(), GooseFailure> {
        let path = format!("/users/{}/coupons?status=USABLE&limit={MAX_TRACKED}", self.session.user);
        let Some(response) = self.session.get(Operation::Coupons, &path).await? else { return Ok(()) };
        let items = response.body["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let ids = items.iter().filter_map(|item| item["userCouponId"].as_str()?.parse().ok());
        self.coupons = ids.map(ClaimId).collect();
        Ok(())
    }

    async fn place(&mut self) -> Result<(), GooseFailure> {
        let basket = self.session.shop.basket(&mut self.session.rng);
        let items: Vec<_> =
            basket.iter().map(|(product, quantity)| json!({"productId": product, "quantity": quantity})).collect();
        let mut body =
            json!({"userId": self.session.user, "items": items, "pay": random::percent(&mut self.session.rng, 45)});
        if random::percent(&mut self.session.rng, 30)
            && let Some(coupon) = random::take(&mut self.session.rng, &mut self.coupons)
        {
            body["userCouponId"] = json!(coupon);
        }
        let response = self.session.post_with_key(Operation::Place, "/orders", &body).await?;
        let Some(response) = response.filter(ApiResponse::is_success) else { return Ok(()) };
        if response.status == 202 {
            self.expect(ExpectedState::PlaceAccepted, response.id("orderId"));
            self.follow(response);
        } else {
            self.learn(&response);
        }
        Ok(())
    }

    async fn pay(&mut self) -> Result<(), GooseFailure> {
        // Some paid orders, too: none may be paid twice.
        let orders = if random::percent(&mut self.session.rng, 10) { &mut self.paid } else { &mut self.unpaid };
        let Some(order) = random::take(&mut self.session.rng, orders) else { return self.place().await };
        let body = json!({"userId": self.session.user, "orderId": order});
        let response = self.session.post_with_key(Operation::Pay, "/payments/confirm", &body).await?;
        match response {
            Some(response) if response.status == 200 => {
                self.expect(ExpectedState::Paid, response.id("orderId"));
                remember(&mut self.paid, order);
            }
            Some(response) if response.status == 202 => {
                remember(&mut self.paid, order);
                self.expect(ExpectedState::CommandAccepted, response.id("commandId"));
                self.follow(response);
            }
            Some(response) if response.code() == "POINTS_INSUFFICIENT" => remember(&mut self.unpaid, order),
            _ => {}
        }
        Ok(())
    }

    async fn confirm(&mut self) -> Result<(), GooseFailure> {
        let Some(order) = random::take(&mut self.session.rng, &mut self.paid) else { return self.place().await };
        // Remembered before the response: one without a response may have had its effect.
        remember(&mut self.ended, order);
        self.change(Operation::Confirm, order, "confirm").await
    }

    async fn cancel(&mut self) -> Result<(), GooseFailure> {
        let orders = match self.session.rng.u8(..10) {
            0..4 => &mut self.unpaid,
            4..9 => &mut self.paid,
            // Too late, or a second time.
            _ => &mut self.ended,
        };
        let Some(order) = random::take(&mut self.session.rng, orders) else { return self.place().await };
        remember(&mut self.ended, order);
        self.change(Operation::Cancel, order, "cancel").await
    }

    async fn change(&mut self, operation: Operation, order: Uuid, verb: &str) -> Result<(), GooseFailure> {
        let body = json!({"userId": self.session.user});
        let response = self.session.post_with_key(operation, &format!("/orders/{order}/{verb}"), &body).await?;
        match response {
            Some(response) if response.status == 202 => {
                self.expect(ExpectedState::CommandAccepted, response.id("commandId"));
                self.follow(response);
            }
            Some(response) if response.is_success() => self.learn(&response),
            _ => {}
        }
        Ok(())
    }

    /// Remembers the order of a response by its status.
    fn learn(&mut self, response: &ApiResponse) {
        let order = response.id("orderId");
        let (state, orders) = match response.text("status") {
            "DEPOSIT_WAIT" => (ExpectedState::Placed, Some(&mut self.unpaid)),
            "PAY_DONE" => (ExpectedState::Paid, Some(&mut self.paid)),
            "BUY_CONFIRM" => (ExpectedState::Confirmed, None),
            "CANCELLED" => (ExpectedState::Cancelled, None),
            _ => return,
        };
        if let (Some(orders), Some(order)) = (orders, order) {
            remember(orders, order);
        }
        self.expect(state, order);
    }

    fn expect(&self, state: ExpectedState, id: Option<Uuid>) {
        match id {
            Some(id) => self.session.shop.expect(self.session.user, state, id),
            None => self
                .session
                .shop
                .anomaly(Operation::PollOutcome, &format!("a response names no id of {}", state.describe())),
        }
    }

    /// Polls the `Location` of a 202 from now on.
    fn follow(&mut self, response: ApiResponse) {
        if response.status != 202 {
            return;
        }
        match response.location {
            Some(location) => {
                let now = Instant::now();
                self.pending.push(Pending { location, since: now, next_poll: now + POLL_INTERVAL });
            }
            None => self.session.shop.anomaly(Operation::PollOutcome, "202 without a Location"),
        }
    }

    async fn poll_pending(&mut self) -> Result<(), GooseFailure> {
        let now = Instant::now();
        // Backwards, since swap_remove moves the last one into the place of the removed one.
        for place in (0..self.pending.len()).rev() {
            if self.pending[place].next_poll > now {
                continue;
            }
            let Pending { location, since, .. } = &self.pending[place];
            let (location, since) = (location.clone(), *since);
            let response = self.session.get(Operation::PollOutcome, &location).await?;
            let is_decided = |response: &ApiResponse| {
                response.status == 200 && !["PENDING", "READY"].contains(&response.text("status"))
            };
            if let Some(response) = response.filter(is_decided) {
                self.pending.swap_remove(place);
                // A charge or command has its own Location, and its response is no order.
                if location == format!("/orders/{}", response.text("orderId")) {
                    self.learn(&response);
                }
            } else if since.elapsed() > OUTCOME_TIMEOUT {
                self.pending.swap_remove(place);
                let limit = OUTCOME_TIMEOUT.as_secs();
                self.session
                    .shop
                    .anomaly(Operation::PollOutcome, &format!("{location} had no outcome after {limit} s"));
            } else {
                self.pending[place].next_poll = Instant::now() + POLL_INTERVAL;
            }
        }
        Ok(())
    }
}

/// Adds an order unless too many are remembered already.
fn remember(orders: &mut Vec<Uuid>, order: Uuid) {
    if orders.len() < MAX_TRACKED {
        orders.push(order);
    }
}
