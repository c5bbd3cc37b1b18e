//! Compares what a client was answered with what became of it.

use std::collections::{HashMap, HashSet};

use anyhow::{Context as _, Result};
use dibs_common::identifiers::{ClaimId, CouponId, UserId};
use sqlx::{MySqlPool, QueryBuilder};
use uuid::Uuid;

use super::{STEP, check::Check, rows};
use crate::{
    numbers::grouped,
    record::{ClientRecord, Receipt},
};

/// A client's record, in the form in which an audit asks it.
pub struct Witness<'r> {
    record: &'r ClientRecord,
    accepted: HashMap<ClaimId, UserId>,
    doubtful: HashSet<UserId>,
}

impl<'r> Witness<'r> {
    /// Of that record.
    pub fn new(record: &'r ClientRecord) -> Self {
        let accepted = record.accepted().map(|(user, receipt)| (receipt.claim_id, user)).collect();
        Self { record, accepted, doubtful: record.doubtful_users() }
    }

    /// Whether the user was told of that claim, or may have made it without being told.
    pub fn knows(&self, claim: ClaimId, user: UserId) -> bool {
        self.accepted.get(&claim) == Some(&user) || self.doubtful.contains(&user)
    }

    /// Every claim was answered for good, as a claim may be.
    pub fn answers(&self) -> Check {
        let mut check = Check::new("answers");
        let counts = self.record.counts();
        check.require(counts.unanswered == 0, || format!("{} claims were never answered", counts.unanswered));
        for sample in self.record.unexpected_samples() {
            check.require(false, || sample.to_owned());
        }
        check.compared(format!("{} claims: answered for good, as expected", grouped(self.record.entries.len() as u64)));
        check
    }

    /// No user was given more than `limit`.
    pub fn per_user(&self, limit: u16) -> Check {
        let mut check = Check::new("I2");
        let mut given: HashMap<UserId, HashSet<ClaimId>> = HashMap::new();
        for (user, receipt) in self.record.accepted() {
            given.entry(user).or_default().insert(receipt.claim_id);
        }
        for (user, claims) in &given {
            check.require(claims.len() <= usize::from(limit), || {
                format!("user {user} was answered 202 for {} different claims", claims.len())
            });
        }
        check.compared(format!("client: {} users answered 202, limit {limit}", grouped(given.len() as u64)));
        check
    }

    /// Every 202 has its outcome, and whoever was told that he has one already has one.
    pub async fn outcomes(&self, pool: &MySqlPool, coupon: CouponId) -> Result<Check> {
        let mut check = Check::new("I3");
        let accepted: Vec<(UserId, Receipt)> = self.record.accepted().collect();
        for step in accepted.chunks(STEP) {
            let claims: Vec<ClaimId> = step.iter().map(|(_, receipt)| receipt.claim_id).collect();
            let outcomes = rows::outcomes(pool, &claims).await?;
            for (user, Receipt { claim_id, sequence }) in step {
                let expected = (coupon.get(), user.get(), *sequence);
                let found = outcomes.get(claim_id).map(|outcome| (outcome.coupon, outcome.user, outcome.sequence));
                check.require(found == Some(expected), || {
                    format!("claim {claim_id} was answered 202 (coupon, user, sequence: {expected:?}), found {found:?}")
                });
            }
        }
        let holders: Vec<_> = self.record.holders().collect();
        for step in holders.chunks(STEP) {
            check_holders(&mut check, pool, coupon, step).await?;
        }
        let (accepted, holders) = (grouped(accepted.len() as u64), grouped(holders.len() as u64));
        check.compared(format!("client: {accepted} answers 202 and {holders} answers 409 in MySQL"));
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
    let holding: HashSet<u64> = held.iter().map(|(user, _)| *user).collect();
    for (user, first) in holders {
        let is_right = match first {
            Some(claim) => held.contains(&(user.get(), claim.0)),
            None => holding.contains(&user.get()),
        };
        check.require(is_right, || format!("user {user} was told 409 of claim {first:?}, but does not hold it"));
    }
    Ok(())
}
