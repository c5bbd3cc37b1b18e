//! What the clients of a run observed: the third source of an audit, beside MySQL and Redis.

mod deliveries;
mod shop;

use std::collections::HashSet;

pub use deliveries::{Deliveries, DeliveryAttempt, SinkDeliveries};
use dibs_common::identifiers::{ClaimId, UserId};
use serde::Deserialize;
pub use shop::{Anomalies, DuplicateRequests, Expectation, ExpectedState, Operation, OperationStats, ShopRecord};

use crate::latency::Latencies;

const MAX_SAMPLES: usize = 5;

/// The last response to a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimResponse {
    /// 202.
    Accepted(Receipt),
    /// 409, with the first claim of the user where the response names it.
    AlreadyIssued(Option<ClaimId>),
    /// 422: sold out.
    Exhausted,
    /// Retried until the timeout without a final response.
    Unanswered,
    /// A response that breaks the contract: status and body.
    Unexpected(String),
}

/// The body of a 202.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    pub claim_id: ClaimId,
    pub sequence: u32,
}

/// A claim as its client observed it.
#[derive(Clone, Debug)]
pub struct ClaimObservation {
    pub user: UserId,
    pub response: ClaimResponse,
    /// Earlier attempts that ended in a 503 or a broken connection. Each may have been accepted all the same.
    pub uncertain_attempts: u32,
}

/// Claims by response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub accepted: u64,
    pub already_issued: u64,
    pub exhausted: u64,
    pub unanswered: u64,
    pub unexpected: u64,
    /// Attempts that were retried after a 503 or a broken connection.
    pub uncertain_attempts: u64,
}

/// All claims of a client on one campaign.
#[derive(Clone, Debug, Default)]
pub struct ClientRecord {
    /// One for each claim.
    pub observations: Vec<ClaimObservation>,
    /// Of every final response.
    pub latencies: Latencies,
}

impl ClientRecord {
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for observation in &self.observations {
            counts.uncertain_attempts += u64::from(observation.uncertain_attempts);
            *match observation.response {
                ClaimResponse::Accepted(_) => &mut counts.accepted,
                ClaimResponse::AlreadyIssued(_) => &mut counts.already_issued,
                ClaimResponse::Exhausted => &mut counts.exhausted,
                ClaimResponse::Unanswered => &mut counts.unanswered,
                ClaimResponse::Unexpected(_) => &mut counts.unexpected,
            } += 1;
        }
        counts
    }

    /// Claims with a 202.
    pub fn accepted(&self) -> impl Iterator<Item = (UserId, Receipt)> {
        self.observations.iter().filter_map(|observation| match observation.response {
            ClaimResponse::Accepted(receipt) => Some((observation.user, receipt)),
            _ => None,
        })
    }

    /// Users with a 409, and the claim that it named.
    pub fn holders(&self) -> impl Iterator<Item = (UserId, Option<ClaimId>)> {
        self.observations.iter().filter_map(|observation| match observation.response {
            ClaimResponse::AlreadyIssued(first) => Some((observation.user, first)),
            _ => None,
        })
    }

    /// Users who may hold a coupon whose response they never received.
    pub fn uncertain_users(&self) -> HashSet<UserId> {
        // A 409 after a lost response is uncertain, too: the first attempt may have been the accepted one.
        let uncertain = self.observations.iter().filter(|observation| {
            observation.uncertain_attempts > 0 || observation.response == ClaimResponse::Unanswered
        });
        uncertain.map(|observation| observation.user).collect()
    }

    /// A few of the responses that break the contract.
    pub fn unexpected_samples(&self) -> Vec<&str> {
        let unexpected = self.observations.iter().filter_map(|observation| match &observation.response {
            ClaimResponse::Unexpected(text) => Some(text.as_str()),
            _ => None,
        });
        unexpected.take(MAX_SAMPLES).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: u64) -> UserId {
        number.try_into().expect("an id")
    }

    fn record() -> ClientRecord {
        let receipt = Receipt { claim_id: ClaimId::generate(), sequence: 3 };
        let observations = [
            (1, ClaimResponse::Accepted(receipt), 0),
            (2, ClaimResponse::Exhausted, 2),
            (3, ClaimResponse::Unanswered, 0),
            (4, ClaimResponse::AlreadyIssued(Some(receipt.claim_id)), 0),
            (5, ClaimResponse::Unexpected("500 broken".into()), 0),
        ]
        .map(|(number, response, uncertain_attempts)| ClaimObservation {
            user: user(number),
            response,
            uncertain_attempts,
        });
        ClientRecord { observations: observations.to_vec(), ..ClientRecord::default() }
    }

    #[test]
    fn claims_are_counted_by_response() {
        let expected = Counts {
            accepted: 1,
            already_issued: 1,
            exhausted: 1,
            unanswered: 1,
            unexpected: 1,
            uncertain_attempts: 2,
        };
        assert_eq!(record().counts(), expected);
    }

    #[test]
    fn users_are_found_by_response() {
        let record = record();
        assert_eq!(
            record.accepted().map(|(user, receipt)| (user, receipt.sequence)).collect::<Vec<_>>(),
            [(user(1), 3)]
        );
        assert_eq!(record.holders().map(|(user, _)| user).collect::<Vec<_>>(), [user(4)]);
        assert_eq!(record.uncertain_users(), HashSet::from([user(2), user(3)]));
    }

    #[test]
    fn only_a_few_unexpected_responses_are_shown() {
        let mut record = record();
        let unexpected = record.observations[4].clone();
        record.observations.extend(vec![unexpected; 20]);
        assert_eq!(record.unexpected_samples(), ["500 broken"; MAX_SAMPLES]);
    }

    #[test]
    fn a_receipt_ignores_the_other_fields_of_a_202() {
        let body = r#"{"claimId": "01a1fd52-4571-74a3-98c8-4e67be4d0151", "sequence": 7, "status": "PENDING"}"#;
        assert_eq!(serde_json::from_str::<Receipt>(body).expect("a receipt").sequence, 7);
        assert!(serde_json::from_str::<Receipt>(r#"{"sequence": 7}"#).is_err());
    }
}
