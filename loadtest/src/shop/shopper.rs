//! A user of the shop: what he has, and what he does next.

use std::time::Duration;

use dibs_common::identifiers::{ClaimId, CouponId};
use serde_json::json;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{
    answer::Answer,
    visit::{Broken, Visit},
};
use crate::record::{Answer as ClaimAnswer, Call, Entry, Receipt, Told};

/// How often a user looks what became of something.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long the outcome of a command may take.
const OUTCOME_LIMIT: Duration = Duration::from_secs(90);
/// Things without an outcome, beyond which a user waits.
const PATIENCE: usize = 3;
/// Orders, and coupons, that a user keeps in mind.
const REMEMBERED: usize = 50;

/// A user.
pub struct Shopper<'g> {
    visit: Visit<'g>,
    unpaid: Vec<Uuid>,
    paid: Vec<Uuid>,
    over: Vec<Uuid>,
    coupons: Vec<ClaimId>,
    pending: Vec<Pending>,
}

/// Something that was answered 202.
struct Pending {
    location: String,
    since: Instant,
    next_look: Instant,
}

impl<'g> Shopper<'g> {
    /// A user with empty hands.
    pub fn new(visit: Visit<'g>) -> Self {
        let (unpaid, paid, over) = (Vec::new(), Vec::new(), Vec::new());
        Self { visit, unpaid, paid, over, coupons: Vec::new(), pending: Vec::new() }
    }

    /// Shops until the market closes, then waits for what is still to come.
    pub async fn shop(mut self) -> Result<(), Broken> {
        while Instant::now() < self.visit.market.end {
            self.look_at_pending().await?;
            if self.pending.len() > PATIENCE {
                sleep(LOOK_EVERY).await;
            } else {
                self.do_something().await?;
            }
        }
        while !self.pending.is_empty() {
            sleep(LOOK_EVERY).await;
            self.look_at_pending().await?;
        }
        Ok(())
    }

    async fn do_something(&mut self) -> Result<(), Broken> {
        match self.visit.dice.below(100) {
            0..12 => self.look(Call::ListProducts, "/products?limit=20").await,
            12..26 => {
                let product = self.visit.dice.below(self.visit.market.products.len());
                let path = format!("/products/{}", self.visit.market.products[product]);
                self.look(Call::ShowProduct, &path).await
            }
            26..32 => self.charge().await,
            32..35 => self.claim().await,
            35..39 => self.find_coupons().await,
            39..65 => self.place().await,
            65..77 => self.pay().await,
            77..81 => self.confirm().await,
            81..88 => self.cancel().await,
            88..92 => {
                let path = format!("/orders?userId={}", self.visit.user);
                self.look(Call::ListOrders, &path).await
            }
            92..96 => {
                let path = format!("/points?userId={}", self.visit.user);
                self.look(Call::Balance, &path).await
            }
            96..98 => {
                let path = format!("/points/history?userId={}", self.visit.user);
                self.look(Call::History, &path).await
            }
            _ => match self.paid.last().or(self.unpaid.last()).copied() {
                Some(order) => self.look(Call::ShowOrder, &format!("/orders/{order}")).await,
                None => self.place().await,
            },
        }
    }

    async fn look(&mut self, call: Call, path: &str) -> Result<(), Broken> {
        self.visit.get(call, path).await.map(drop)
    }

    async fn charge(&mut self) -> Result<(), Broken> {
        // Less, on the whole, than is spent: points run out now and then.
        let amount = 10_000 * (1 + self.visit.dice.below(12));
        let body = json!({"userId": self.visit.user, "amount": amount});
        let answer = self.visit.post_with_key(Call::Charge, "/points", &body).await?;
        let Some(answer) = answer.filter(Answer::is_success) else { return Ok(()) };
        self.note(if answer.status == 202 { Told::ChargeTaken } else { Told::Charged }, answer.id("chargeId"));
        self.follow(answer);
        Ok(())
    }

    async fn claim(&mut self) -> Result<(), Broken> {
        let coupon = self.visit.market.campaigns[self.visit.dice.below(self.visit.market.campaigns.len())];
        let body = json!({"userId": self.visit.user, "couponId": coupon});
        let answer = self.visit.post(Call::Claim, "/coupons/issue", &body).await?;
        self.note_claim(coupon, answer);
        Ok(())
    }

    fn note_claim(&self, coupon: CouponId, answer: Option<Answer>) {
        let receipt = |answer: &Answer| serde_json::from_value::<Receipt>(answer.body.clone()).ok();
        // One that was not answered for good may have been accepted all the same.
        let is_doubtful = answer.as_ref().is_none_or(|answer| answer.status == 503);
        let of_claim = match answer {
            Some(answer) if answer.status == 202 => receipt(&answer).map(ClaimAnswer::Accepted),
            Some(answer) if answer.code() == "COUPON_ALREADY_ISSUED" => {
                let first = answer.body["claim"]["claimId"].as_str().and_then(|id| id.parse().ok());
                Some(ClaimAnswer::AlreadyIssued(first.map(ClaimId)))
            }
            Some(answer) if answer.code() == "COUPON_EXHAUSTED" => Some(ClaimAnswer::Exhausted),
            // An answer that no claim may have is noted where it came.
            _ if is_doubtful => Some(ClaimAnswer::Unanswered),
            _ => None,
        };
        let entry = of_claim.map(|answer| Entry { user: self.visit.user, answer, doubtful_tries: is_doubtful.into() });
        self.visit.market.claimed(coupon, |record| record.entries.extend(entry));
    }

    async fn find_coupons(&mut self) -> Result<(), Broken> {
        let path = format!("/users/{}/coupons?status=USABLE&limit={REMEMBERED}", self.visit.user);
        let Some(answer) = self.visit.get(Call::Coupons, &path).await? else { return Ok(()) };
        let items = answer.body["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let ids = items.iter().filter_map(|item| item["userCouponId"].as_str()?.parse().ok());
        self.coupons = ids.map(ClaimId).collect();
        Ok(())
    }

    async fn place(&mut self) -> Result<(), Broken> {
        let basket = self.visit.market.basket(&mut self.visit.dice);
        let items: Vec<_> =
            basket.iter().map(|(product, quantity)| json!({"productId": product, "quantity": quantity})).collect();
        let mut body = json!({"userId": self.visit.user, "items": items, "pay": self.visit.dice.percent(45)});
        if self.visit.dice.percent(30)
            && let Some(coupon) = self.visit.dice.take(&mut self.coupons)
        {
            body["userCouponId"] = json!(coupon);
        }
        let answer = self.visit.post_with_key(Call::Place, "/orders", &body).await?;
        let Some(answer) = answer.filter(Answer::is_success) else { return Ok(()) };
        if answer.status == 202 {
            self.note(Told::PlaceTaken, answer.id("orderId"));
            self.follow(answer);
        } else {
            self.learn(&answer);
        }
        Ok(())
    }

    async fn pay(&mut self) -> Result<(), Broken> {
        // Now and then what is paid already, which must not be paid twice.
        let orders = if self.visit.dice.percent(10) { &mut self.paid } else { &mut self.unpaid };
        let Some(order) = self.visit.dice.take(orders) else { return self.place().await };
        let body = json!({"userId": self.visit.user, "orderId": order});
        let answer = self.visit.post_with_key(Call::Pay, "/payments/confirm", &body).await?;
        match answer {
            Some(answer) if answer.status == 200 => {
                self.note(Told::Paid, answer.id("orderId"));
                remember(&mut self.paid, order);
            }
            Some(answer) if answer.status == 202 => {
                remember(&mut self.paid, order);
                self.note(Told::CommandTaken, answer.id("commandId"));
                self.follow(answer);
            }
            Some(answer) if answer.code() == "POINTS_INSUFFICIENT" => remember(&mut self.unpaid, order),
            _ => {}
        }
        Ok(())
    }

    async fn confirm(&mut self) -> Result<(), Broken> {
        let Some(order) = self.visit.dice.take(&mut self.paid) else { return self.place().await };
        remember(&mut self.over, order);
        self.change(Call::Confirm, order, "confirm").await
    }

    async fn cancel(&mut self) -> Result<(), Broken> {
        let orders = match self.visit.dice.below(10) {
            0..4 => &mut self.unpaid,
            4..9 => &mut self.paid,
            // Too late, or once more.
            _ => &mut self.over,
        };
        let Some(order) = self.visit.dice.take(orders) else { return self.place().await };
        remember(&mut self.over, order);
        self.change(Call::Cancel, order, "cancel").await
    }

    async fn change(&mut self, call: Call, order: Uuid, verb: &str) -> Result<(), Broken> {
        let body = json!({"userId": self.visit.user});
        let answer = self.visit.post_with_key(call, &format!("/orders/{order}/{verb}"), &body).await?;
        match answer {
            Some(answer) if answer.status == 202 => {
                self.note(Told::CommandTaken, answer.id("commandId"));
                self.follow(answer);
            }
            Some(answer) if answer.is_success() => self.learn(&answer),
            _ => {}
        }
        Ok(())
    }

    /// Keeps in mind what an answer says of an order.
    fn learn(&mut self, answer: &Answer) {
        let order = answer.id("orderId");
        let (told, orders) = match answer.text("status") {
            "DEPOSIT_WAIT" => (Told::Placed, Some(&mut self.unpaid)),
            "PAY_DONE" => (Told::Paid, Some(&mut self.paid)),
            "BUY_CONFIRM" => (Told::Confirmed, None),
            "CANCELLED" => (Told::Cancelled, None),
            _ => return,
        };
        if let (Some(orders), Some(order)) = (orders, order) {
            remember(orders, order);
        }
        self.note(told, order);
    }

    fn note(&self, told: Told, id: Option<Uuid>) {
        match id {
            Some(id) => self.visit.market.told(self.visit.user, told, id),
            None => self.visit.market.strange(Call::FollowUp, &format!("an answer names no id of {}", told.describe())),
        }
    }

    /// Will look where a 202 says.
    fn follow(&mut self, answer: Answer) {
        if answer.status != 202 {
            return;
        }
        match answer.location {
            Some(location) => {
                let now = Instant::now();
                self.pending.push(Pending { location, since: now, next_look: now + LOOK_EVERY });
            }
            None => self.visit.market.strange(Call::FollowUp, "202 without a Location"),
        }
    }

    async fn look_at_pending(&mut self) -> Result<(), Broken> {
        let now = Instant::now();
        for place in (0..self.pending.len()).rev() {
            if self.pending[place].next_look > now {
                continue;
            }
            let Pending { location, since, .. } = &self.pending[place];
            let (location, since) = (location.clone(), *since);
            let answer = self.visit.get(Call::FollowUp, &location).await?;
            let is_decided =
                |answer: &Answer| answer.status == 200 && !["PENDING", "READY"].contains(&answer.text("status"));
            if let Some(answer) = answer.filter(is_decided) {
                self.pending.swap_remove(place);
                if location == format!("/orders/{}", answer.text("orderId")) {
                    self.learn(&answer);
                }
            } else if since.elapsed() > OUTCOME_LIMIT {
                self.pending.swap_remove(place);
                let limit = OUTCOME_LIMIT.as_secs();
                self.visit.market.strange(Call::FollowUp, &format!("{location} had no outcome after {limit} s"));
            } else {
                self.pending[place].next_look = Instant::now() + LOOK_EVERY;
            }
        }
        Ok(())
    }
}

/// Adds to what is kept in mind, as long as there is room.
fn remember(orders: &mut Vec<Uuid>, order: Uuid) {
    if orders.len() < REMEMBERED {
        orders.push(order);
    }
}
