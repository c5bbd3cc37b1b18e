//! Compares the responses that a client recorded with MySQL.

use std::collections::{HashMap, HashSet};

use anyhow::{Context as _, Result};
use dibs_common::identifiers::{ClaimId, CouponId, UserId};
use sqlx::{MySqlPool, QueryBuilder};
use uuid::Uuid;

use super::{BATCH_SIZE, check::Check, rows};
use crate::{
    numbers::grouped,
    record::{ClientRecord, Receipt},
};

/// The record of a client, indexed for the audit.
pub struct ClientAudit<'r> {
    record: &'r ClientRecord,
    accepted: HashMap<ClaimId, UserId>,
    uncertain: HashSet<UserId>,
}

impl<'r> ClientAudit<'r> {
    pub fn new(record: &'r ClientRecord) -> Self {
        let accepted = record.accepted().map(|(user, receipt)| (receipt.claim_id, user)).collect();
        Self { record, accepted, uncertain: record.uncertain_users() }
    }

    /// Whether the user received the claim in a 202, or may have lost its response.
    pub fn knows(&self, claim: ClaimId, user: UserId) -> bool {
        self.accepted.get(&claim) == Some(&user) || self.uncertain.contains(&user)
    }

    /// Every claim has a final response that keeps the contract.
    pub fn responses(&self) -> Check {
        let mut check = Check::new("responses");
        let counts = self.record.counts();
        check.require(counts.unanswered == 0, || format!("{} claims have no final response", counts.unanswered));
        for sample in self.record.unexpected_samples() {
            check.require(false, || sample.to_owned());
        }
        check.compared(format!(
            "{} claims: each with a final response, as expected",
            grouped(self.record.observations.len() as u64)
        ));
        check
    }

    /// No user received more than `limit` claims.
    pub fn per_user(&self, limit: u16) -> Check {
        let mut check = Check::new("I2");
        let received = self.record.accepted().map(|(user, receipt)| (user, receipt.claim_id));
        let mut received: Vec<(UserId, ClaimId)> = received.collect();
        // Sorted, not in a map: of a million users. The replay of a claim has the id of the first response.
        received.sort_unstable();
        received.dedup();
        let mut users = 0;
        for claims in received.chunk_by(|(one, _), (other, _)| one == other) {
            users += 1;
            check.require(claims.len() <= usize::from(limit), || {
                format!("user {} received a 202 for {} different claims", claims[0].0, claims.len())
            });
        }
        check.compared(format!("client: {} users with a 202, limit {limit}", grouped(users)));
        check
    }

    /// Every 202 has its outcome in MySQL, and every user with a 409 holds a coupon.
    pub async fn outcomes(&self, pool: &MySqlPool, coupon: CouponId) -> Result<Check> {
        let mut check = Check::new("I3");
        let accepted: Vec<(UserId, Receipt)> = self.record.accepted().collect();
        for batch in accepted.chunks(BATCH_SIZE) {
            let claims: Vec<ClaimId> = batch.iter().map(|(_, receipt)| receipt.claim_id).collect();
            let outcomes = rows::outcomes(pool, &claims).await?;
            for (user, Receipt { claim_id, sequence }) in batch {
                let expected = (coupon.get(), user.get(), *sequence);
                let found = outcomes.get(claim_id).map(|outcome| (outcome.coupon, outcome.user, outcome.sequence));
                check.require(found == Some(expected), || {
                    format!(
                        "claim {claim_id} received a 202 (coupon, user, sequence: {expected:?}); MySQL has {found:?}"
                    )
                });
            }
        }
        let holders: Vec<_> = self.record.holders().collect();
        for batch in holders.chunks(BATCH_SIZE) {
            check_holders(&mut check, pool, coupon, batch).await?;
        }
        let (accepted, holders) = (grouped(accepted.len() as u64), grouped(holders.len() as u64));
        check.compared(format!("client: {accepted} responses 202 and {holders} responses 409, as in MySQL"));
        Ok(check)
    }
}

async fn check_holders(
    check: &mut Check,
    pool: &MySqlPool,
    coupon: CouponId,
    holders: &[(UserId, Option<ClaimId>)],
) -> Result<()> {
    let mut query = QueryBuilder::new(
        "SELECT /* audit check_holders */ user_id, user_coupon_id FROM user_coupons WHERE coupon_id = ",
    );
    query.push_bind(coupon.get()).push(" AND user_id IN (");
    let mut users = query.separated(", ");
    for (user, _) in holders {
        users.push_bind(user.get());
    }
    query.push(")");
    let held: HashSet<(u64, Uuid)> =
        query.build_query_as().fetch_all(pool).await.context("reading the coupons of users")?.into_iter().collect();
    let holders_in_mysql: HashSet<u64> = held.iter().map(|(user, _)| *user).collect();
    for (user, first) in holders {
        let is_held = match first {
            // The API names the first claim of the user, which must be one that the user holds.
            Some(claim) => held.contains(&(user.get(), claim.0)),
            None => holders_in_mysql.contains(&user.get()),
        };
        check.require(is_held, || {
            format!("user {user} received a 409 that names claim {first:?}, and does not hold it")
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{ClaimObservation, ClaimResponse};

    fn user(number: u64) -> UserId {
        number.try_into().expect("an id")
    }

    fn accepted(number: u64) -> ClaimObservation {
        let receipt = Receipt { claim_id: ClaimId::generate(), sequence: 1 };
        ClaimObservation { user: user(number), response: ClaimResponse::Accepted(receipt), uncertain_attempts: 0 }
    }

    fn record(observations: Vec<ClaimObservation>) -> ClientRecord {
        ClientRecord { observations, ..ClientRecord::default() }
    }

    #[test]
    fn i2_a_user_with_two_202_is_a_difference_above_the_limit_only() {
        let once = accepted(1);
        let record = record(vec![once.clone(), once, accepted(2), accepted(2)]);
        let differences = |limit| ClientAudit::new(&record).per_user(limit).differences();
        // The same claim twice is a replay; two claims of user 2 are not.
        assert_eq!((differences(1), differences(2)), (1, 0));
    }

    #[test]
    fn a_claim_is_known_to_its_user_and_to_users_who_lost_a_response() {
        let uncertain = ClaimObservation { response: ClaimResponse::Exhausted, uncertain_attempts: 1, ..accepted(2) };
        let record = record(vec![accepted(1), uncertain]);
        let ClaimResponse::Accepted(receipt) = record.observations[0].response else { panic!("accepted before") };
        let client = ClientAudit::new(&record);
        assert!(client.knows(receipt.claim_id, user(1)));
        assert!(client.knows(ClaimId::generate(), user(2)));
        assert!(!client.knows(receipt.claim_id, user(3)) && !client.knows(ClaimId::generate(), user(1)));
    }

    #[test]
    fn missing_and_unexpected_responses_are_differences() {
        let of = |response| ClaimObservation { response, ..accepted(1) };
        let record = record(vec![
            of(ClaimResponse::Exhausted),
            of(ClaimResponse::Unanswered),
            of(ClaimResponse::Unexpected("500 broken".into())),
        ]);
        let check = ClientAudit::new(&record).responses();
        assert_eq!(check.examples(), ["1 claims have no final response", "500 broken"]);
    }
}
