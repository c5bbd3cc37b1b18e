use std::collections::{BTreeMap, HashMap};

use dibs_common::identifiers::{CouponId, UserId};
use uuid::Uuid;

use super::{ClientRecord, MAX_SAMPLES};
use crate::latency::Latencies;

/// The operations of the API that users of a shop call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    ListProducts,
    ShowProduct,
    Charge,
    Balance,
    History,
    Claim,
    Coupons,
    Place,
    Pay,
    Confirm,
    Cancel,
    ShowOrder,
    ListOrders,
    /// Polls the `Location` of a 202.
    PollOutcome,
}

impl Operation {
    /// Method and path.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ListProducts => "GET /products",
            Self::ShowProduct => "GET /products/{productId}",
            Self::Charge => "POST /points",
            Self::Balance => "GET /points",
            Self::History => "GET /points/history",
            Self::Claim => "POST /coupons/issue",
            Self::Coupons => "GET /users/{userId}/coupons",
            Self::Place => "POST /orders",
            Self::Pay => "POST /payments/confirm",
            Self::Confirm => "POST /orders/{orderId}/confirm",
            Self::Cancel => "POST /orders/{orderId}/cancel",
            Self::ShowOrder => "GET /orders/{orderId}",
            Self::ListOrders => "GET /orders",
            Self::PollOutcome => "GET Location of a 202",
        }
    }
}

/// The state in MySQL that a response promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::EnumIter)]
pub enum ExpectedState {
    Placed,
    PlaceAccepted,
    Paid,
    Confirmed,
    Cancelled,
    CommandAccepted,
    Charged,
    ChargeAccepted,
}

impl ExpectedState {
    /// Whether the response was a 202, so that the outcome came later.
    pub const fn is_pending(self) -> bool {
        matches!(self, Self::PlaceAccepted | Self::CommandAccepted | Self::ChargeAccepted)
    }

    pub const fn describe(self) -> &'static str {
        match self {
            Self::Placed => "a placed order",
            Self::PlaceAccepted => "an order, placed or rejected",
            Self::Paid => "a paid order",
            Self::Confirmed => "a confirmed order",
            Self::Cancelled => "a cancelled order",
            Self::CommandAccepted => "a command with an outcome",
            Self::Charged => "an approved charge",
            Self::ChargeAccepted => "a charge, approved or declined",
        }
    }
}

/// A response whose promise is compared with the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// Of an order, a command or a charge.
    pub id: Uuid,
    pub user: UserId,
    pub state: ExpectedState,
}

/// Observations that must not happen. All are counted, a few are kept.
#[derive(Clone, Debug, Default)]
pub struct Anomalies {
    count: u64,
    samples: Vec<String>,
}

impl Anomalies {
    pub fn add(&mut self, anomaly: String) {
        self.count += 1;
        if self.samples.len() < MAX_SAMPLES {
            self.samples.push(anomaly);
        }
    }

    pub const fn count(&self) -> u64 {
        self.count
    }

    pub fn samples(&self) -> &[String] {
        &self.samples
    }
}

/// Requests that were sent twice with the same idempotency key.
#[derive(Clone, Debug, Default)]
pub struct DuplicateRequests {
    /// Both at the same time.
    pub concurrent: u64,
    /// The second after the response to the first.
    pub sequential: u64,
    /// Of both kinds, those with a 409 `IDEMPOTENCY_IN_PROGRESS`.
    pub in_progress: u64,
    /// Pairs of responses that differ.
    pub mismatches: Anomalies,
}

/// The responses of one operation.
#[derive(Clone, Debug, Default)]
pub struct OperationStats {
    pub latencies: Latencies,
    /// 202 of a command or a charge.
    pub accepted: u64,
    /// By status and code.
    pub rejections: BTreeMap<String, u64>,
}

/// What all users of a shop observed.
#[derive(Clone, Debug, Default)]
pub struct ShopRecord {
    pub operations: BTreeMap<Operation, OperationStats>,
    pub expectations: Vec<Expectation>,
    pub duplicates: DuplicateRequests,
    /// Requests that were repeated after a 503 or a broken connection.
    pub repeats: u64,
    /// Responses that break the contract, and outcomes that never came.
    pub anomalies: Anomalies,
    pub claims: HashMap<CouponId, ClientRecord>,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use strum::IntoEnumIterator as _;

    use super::{
        ExpectedState::{ChargeAccepted, CommandAccepted, PlaceAccepted},
        *,
    };

    #[test]
    fn all_anomalies_are_counted_and_a_few_are_kept() {
        let mut anomalies = Anomalies::default();
        (0..20).for_each(|number| anomalies.add(number.to_string()));
        assert_eq!((anomalies.count(), anomalies.samples()), (20, &["0", "1", "2", "3", "4"].map(String::from)[..]));
    }

    #[test]
    fn a_pending_state_is_one_of_a_202() {
        let pending: Vec<ExpectedState> = ExpectedState::iter().filter(|state| state.is_pending()).collect();
        assert_eq!(pending, [PlaceAccepted, CommandAccepted, ChargeAccepted]);
    }

    #[test]
    fn each_state_has_a_description_of_its_own() {
        let descriptions: HashSet<&str> = ExpectedState::iter().map(ExpectedState::describe).collect();
        assert_eq!(descriptions.len(), ExpectedState::iter().count());
    }
}
