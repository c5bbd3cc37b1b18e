//! Campaigns: terms, window and status.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray};
use utoipa::ToSchema;

pub use super::discount::{Discount, DiscountType};
use crate::{
    clock::{Timestamp, from_millis},
    domain::{
        FieldError,
        event::Epoch,
        text::{text_error, trimmed},
    },
    identifiers::{CouponId, Partition},
};

/// The largest amount of money, in won: what every JSON reader represents exactly.
pub const MAX_AMOUNT: i64 = crate::identifiers::MAX_ID.cast_signed();

crate::json::read_by_spelling!(CampaignStatus);

/// How long an issued coupon can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Validity {
    /// So many days of 24 hours from issuance, 1 to 3,650.
    #[schema(value_type = ValidityDays)]
    Days(u32),
    /// Up to that moment.
    #[serde(deserialize_with = "crate::json::time", serialize_with = "crate::clock::serialize")]
    Until(DateTime<Utc>),
}

/// Days of validity.
// In the document a number of a variant cannot have bounds itself.
#[derive(ToSchema)]
#[schema(value_type = u32, minimum = 1, maximum = 3650)]
#[expect(dead_code, reason = "only its schema is used")]
struct ValidityDays(u32);

impl Validity {
    /// The end of the validity of a coupon issued at `issued_at`.
    pub fn end(self, issued_at: Timestamp) -> Timestamp {
        match self {
            Self::Days(days) => issued_at + TimeDelta::days(i64::from(days)),
            Self::Until(until) => until,
        }
    }
}

/// What an administrator says of a new campaign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CampaignTerms {
    /// 1 to 100 characters.
    #[schema(min_length = 1, max_length = 100)]
    pub name: String,
    /// What the coupon takes off an order.
    #[serde(deserialize_with = "crate::json::object")]
    pub discount: Discount,
    /// The smallest order total, in won, that the coupon can be used on.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_u64)]
    pub minimum_order_amount: i64,
    /// How many coupons there are, 1 to 4,000,000,000.
    #[schema(minimum = 1, maximum = 4_000_000_000_u64)]
    pub total_quantity: u32,
    /// How many a user may hold, 1 to 100.
    #[serde(default = "one")]
    #[schema(minimum = 1, maximum = 100)]
    pub per_user_limit: u16,
    /// From then on claims are accepted.
    #[serde(deserialize_with = "crate::json::time", serialize_with = "crate::clock::serialize")]
    pub opens_at: DateTime<Utc>,
    /// From then on they are not.
    #[serde(deserialize_with = "crate::json::time", serialize_with = "crate::clock::serialize")]
    pub closes_at: DateTime<Utc>,
    /// How long an issued coupon can be used.
    pub validity: Validity,
}

const fn one() -> u16 {
    1
}

/// The largest total quantity of a campaign.
pub const MAX_QUANTITY: u32 = 4_000_000_000;

impl CampaignTerms {
    /// The terms as they are stored: times to the millisecond, the name trimmed.
    #[must_use]
    pub fn normalized(mut self) -> Self {
        // As the columns keep it: Redis and MySQL must not differ by what one of them cuts off.
        let to_millisecond = |moment: Timestamp| from_millis(moment.timestamp_millis());
        (self.opens_at, self.closes_at) = (to_millisecond(self.opens_at), to_millisecond(self.closes_at));
        if let Validity::Until(until) = self.validity {
            self.validity = Validity::Until(to_millisecond(until));
        }
        self.name = trimmed(&self.name).to_owned();
        self
    }

    pub fn errors(&self) -> Vec<FieldError> {
        let mut errors: Vec<FieldError> = text_error("name", &self.name, 100).into_iter().collect();
        let mut expect = |holds: bool, field: &'static str, message: &str| {
            if !holds {
                errors.push(FieldError::new(field, message));
            }
        };
        let money = format!("expected 1 to {MAX_AMOUNT} won");
        match self.discount.kind {
            DiscountType::Fixed => {
                let amount = (1..=MAX_AMOUNT).contains(&self.discount.value);
                expect(amount, "discount.value", &money);
                let uncapped = self.discount.max_amount.is_none();
                expect(uncapped, "discount.maxAmount", "expected only with a PERCENT discount");
            }
            DiscountType::Percent => {
                let percent = (1..=100).contains(&self.discount.value);
                expect(percent, "discount.value", "expected 1 to 100 percent");
                let cap = self.discount.max_amount.is_none_or(|amount| (1..=MAX_AMOUNT).contains(&amount));
                expect(cap, "discount.maxAmount", &money);
            }
        }
        let minimum = (0..=MAX_AMOUNT).contains(&self.minimum_order_amount);
        expect(minimum, "minimumOrderAmount", &format!("expected 0 to {MAX_AMOUNT} won"));
        let quantity = (1..=MAX_QUANTITY).contains(&self.total_quantity);
        expect(quantity, "totalQuantity", "expected 1 to 4000000000");
        expect((1..=100).contains(&self.per_user_limit), "perUserLimit", "expected 1 to 100");
        expect(in_calendar(self.opens_at), "opensAt", "expected a time from 1970 to 9999");
        expect(in_calendar(self.closes_at), "closesAt", "expected a time from 1970 to 9999");
        expect(self.opens_at < self.closes_at, "closesAt", "expected a time after opensAt");
        match self.validity {
            Validity::Days(days) => {
                expect((1..=3650).contains(&days), "validity.days", "expected 1 to 3650 days");
            }
            Validity::Until(until) => {
                // A coupon that is claimed at the last moment must still be usable.
                let usable = in_calendar(until) && until >= self.closes_at;
                expect(usable, "validity.until", "expected a time not before closesAt, before the year 9999");
            }
        }
        errors
    }

    /// The invalid fields of a campaign that is created at `now`: also a window that is over, and what
    /// [`Self::minimum_error`] finds.
    pub fn errors_at(&self, now: Timestamp) -> Vec<FieldError> {
        let mut errors = self.errors();
        // Each field once: what is invalid by itself needs no second message.
        let is_new = |error: &FieldError| errors.iter().all(|known| known.field != error.field);
        let further = [self.minimum_error(), self.window_error(now)].map(|found| found.filter(is_new));
        errors.extend(further.into_iter().flatten());
        errors
    }

    /// A window that is over at `now`.
    pub fn window_error(&self, now: Timestamp) -> Option<FieldError> {
        (self.closes_at <= now).then(|| FieldError::new("closesAt", "expected a time in the future"))
    }

    /// A smallest order that the coupon would pay for more than once. Older campaigns may have it, so only what sets it is
    /// checked. Without a smallest order, a coupon that is worth more than the order pays all of it.
    pub fn minimum_error(&self) -> Option<FieldError> {
        let Discount { kind, value: worth, .. } = self.discount;
        let is_below = kind == DiscountType::Fixed && (1..worth).contains(&self.minimum_order_amount);
        let expected = format!("expected 0 (none), or at least the {worth} won that the coupon takes off");
        is_below.then(|| FieldError::new("minimumOrderAmount", expected))
    }
}

/// Whether MySQL and JSON readers can represent the time.
fn in_calendar(moment: Timestamp) -> bool {
    (0..253_370_764_800_000).contains(&moment.timestamp_millis())
}

/// What an administrator set. [`CampaignStatus`] follows from it and the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema, EnumString, IntoStaticStr, VariantArray)]
#[serde(rename_all = "UPPERCASE")]
#[strum(serialize_all = "UPPERCASE", const_into_str)]
pub enum CampaignState {
    /// Claims are accepted within the window.
    Active,
    Paused,
    /// Closed for good.
    Closed,
}

/// A campaign as the database holds it.
#[derive(Clone, Debug)]
pub struct Campaign {
    pub id: CouponId,
    pub terms: CampaignTerms,
    /// The partition of its keys in Redis.
    pub partition: Partition,
    pub state: CampaignState,
    /// Raised by each change of an administrator, from 1.
    pub revision: u32,
    pub issued: u32,
    /// Of those that are issued, the coupons that an administrator revoked.
    pub revoked: u32,
    /// Claims that Redis accepted and MySQL rejected.
    pub rejected: u32,
    /// The current epoch of the database.
    pub epoch: Epoch,
    /// Since when Redis has enforced this state and window, by its clock. None: it enforces others, or MySQL does not
    /// know.
    pub enforced_since: Option<Timestamp>,
}

/// A campaign's state as the public sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema, EnumString, IntoStaticStr, VariantArray)]
#[serde(rename_all = "UPPERCASE")]
#[strum(serialize_all = "UPPERCASE", const_into_str)]
pub enum CampaignStatus {
    /// Its window has not begun.
    Scheduled,
    /// It takes claims.
    Open,
    /// The whole quantity is claimed; open again when a slot returns.
    Exhausted,
    /// An administrator paused it.
    Paused,
    /// Its window is over, or an administrator closed it.
    Closed,
}

impl Campaign {
    /// How many claims may be accepted in all: one for each coupon of the quantity, and one more for each that was
    /// revoked.
    ///
    /// Redis enforces it as a term, and never lowers its count of claims for a revocation. So a revocation takes effect
    /// once, however often it is written.
    pub const fn capacity(&self) -> u32 {
        self.terms.total_quantity.saturating_add(self.revoked)
    }

    /// The status at `now`, when `claimed` claims are accepted.
    pub fn status(&self, claimed: u32, now: Timestamp) -> CampaignStatus {
        // Closed before Scheduled: a campaign that was closed before its window will not open.
        if self.state == CampaignState::Closed || now >= self.terms.closes_at {
            CampaignStatus::Closed
        } else if now < self.terms.opens_at {
            CampaignStatus::Scheduled
        } else if self.state == CampaignState::Paused {
            CampaignStatus::Paused
        } else if claimed >= self.capacity() {
            CampaignStatus::Exhausted
        } else {
            CampaignStatus::Open
        }
    }
}

#[cfg(any(test, feature = "testing"))]
impl CampaignTerms {
    /// Ten coupons, one for each user: 1,000 won off any order within 30 days.
    pub fn example(opens_at: Timestamp, closes_at: Timestamp) -> Self {
        Self {
            name: "autumn".into(),
            discount: Discount { kind: DiscountType::Fixed, value: 1000, max_amount: None },
            minimum_order_amount: 0,
            total_quantity: 10,
            per_user_limit: 1,
            opens_at,
            closes_at,
            validity: Validity::Days(30),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::clock::from_millis;

    pub(crate) fn terms() -> CampaignTerms {
        CampaignTerms::example(from_millis(1_000_000), from_millis(2_000_000))
    }

    fn wrong(change: impl FnOnce(&mut CampaignTerms)) -> Vec<String> {
        let mut changed = terms();
        change(&mut changed);
        changed.errors().into_iter().map(|error| error.field.into_owned()).collect()
    }

    #[test]
    fn each_wrong_field_is_named() {
        assert_eq!(wrong(|_| ()), Vec::<String>::new());
        assert_eq!(wrong(|terms| terms.name = "  ".into()), ["name"]);
        assert_eq!(wrong(|terms| terms.discount.value = 0), ["discount.value"]);
        assert_eq!(wrong(|terms| terms.discount.max_amount = Some(1)), ["discount.maxAmount"]);
        assert_eq!(wrong(|terms| terms.discount.kind = DiscountType::Percent), ["discount.value"]);
        assert_eq!(wrong(|terms| terms.minimum_order_amount = -1), ["minimumOrderAmount"]);
        assert_eq!(wrong(|terms| terms.total_quantity = 0), ["totalQuantity"]);
        assert_eq!(wrong(|terms| terms.per_user_limit = 101), ["perUserLimit"]);
        assert_eq!(wrong(|terms| terms.closes_at = terms.opens_at), ["closesAt"]);
        assert_eq!(wrong(|terms| terms.validity = Validity::Days(0)), ["validity.days"]);
        let until_before_the_close = |terms: &mut CampaignTerms| {
            terms.validity = Validity::Until(terms.closes_at - TimeDelta::milliseconds(1));
        };
        assert_eq!(wrong(until_before_the_close), ["validity.until"]);
        assert_eq!(wrong(|terms| terms.validity = Validity::Until(terms.closes_at)), Vec::<String>::new());
    }

    #[test]
    fn a_campaign_wholly_in_the_past_is_not_created() {
        let fields = |now| terms().errors_at(now).into_iter().map(|error| error.field.into_owned()).collect::<Vec<_>>();
        assert_eq!(fields(from_millis(1_999_999)), Vec::<String>::new());
        assert_eq!(fields(from_millis(2_000_000)), ["closesAt"]);
    }

    #[test]
    fn the_smallest_order_is_not_below_what_the_coupon_is_worth() {
        let is_refused = |kind, value, minimum| {
            let discount = Discount { kind, value, max_amount: None };
            CampaignTerms { discount, minimum_order_amount: minimum, ..terms() }.minimum_error().is_some()
        };
        let refused = [0, 1, 999, 1_000].map(|minimum| is_refused(DiscountType::Fixed, 1_000, minimum));
        assert_eq!(refused, [false, true, true, false]);
        assert!(!is_refused(DiscountType::Percent, 100, 1));
    }

    #[test]
    fn a_discount_never_exceeds_the_total_nor_its_cap() {
        let discount = |kind, value, max_amount| Discount { kind, value, max_amount };
        assert_eq!(discount(DiscountType::Fixed, 1_000, None).amount_for(700), 700);
        assert_eq!(discount(DiscountType::Fixed, 1_000, None).amount_for(7_000), 1_000);
        assert_eq!(discount(DiscountType::Percent, 15, None).amount_for(999), 149);
        assert_eq!(discount(DiscountType::Percent, 15, Some(100)).amount_for(999), 100);
        assert_eq!(discount(DiscountType::Percent, 100, None).amount_for(MAX_AMOUNT), MAX_AMOUNT);
    }

    #[test]
    fn status_follows_window_state_and_claimed_quantity() {
        let campaign = |state| Campaign {
            id: CouponId::try_from(1).expect("a valid id"),
            terms: terms(),
            partition: Partition(0),
            state,
            revision: 1,
            issued: 0,
            revoked: 0,
            rejected: 0,
            epoch: Epoch::default(),
            enforced_since: None,
        };
        let (before, within, after) = (from_millis(999_999), from_millis(1_000_000), from_millis(2_000_000));
        let active = campaign(CampaignState::Active);
        assert_eq!(active.status(0, before), CampaignStatus::Scheduled);
        assert_eq!(active.status(9, within), CampaignStatus::Open);
        assert_eq!(active.status(10, within), CampaignStatus::Exhausted);
        assert_eq!(active.status(0, after), CampaignStatus::Closed);
        assert_eq!(campaign(CampaignState::Paused).status(10, within), CampaignStatus::Paused);
        assert_eq!(campaign(CampaignState::Closed).status(0, before), CampaignStatus::Closed);
    }
}
