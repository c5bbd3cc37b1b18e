//! Claims, and their second check: what becomes of a batch of accepted claims, given the locked rows.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::campaign::Campaign;
use crate::{
    clock::Timestamp,
    identifiers::{ClaimId, CouponId, UserId},
};

/// What is kept of an accepted claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimRecord {
    /// Its id.
    pub claim_id: ClaimId,
    /// Its place in the order of acceptance, from 1.
    pub sequence: u32,
    /// When it was accepted, by the clock of Redis.
    pub accepted_at: DateTime<Utc>,
}

/// An accepted claim, as the stream carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Of which campaign.
    pub coupon: CouponId,
    /// Whose.
    pub user: UserId,
    /// What was kept of it.
    pub record: ClaimRecord,
    /// The request that made it; empty when that has the claim's own id.
    pub request: String,
}

/// Why an accepted claim got no coupon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Rejection {
    /// The database knows no such campaign.
    CouponNotFound,
    /// The user holds as many as allowed, from a claim that Redis had forgotten.
    CouponAlreadyIssued,
    /// The database has issued all of them, more than Redis knew.
    CouponExhausted,
}

impl Rejection {
    const ALL: [Self; 3] = [Self::CouponNotFound, Self::CouponAlreadyIssued, Self::CouponExhausted];

    /// The code that users and the database see.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CouponNotFound => "COUPON_NOT_FOUND",
            Self::CouponAlreadyIssued => "COUPON_ALREADY_ISSUED",
            Self::CouponExhausted => "COUPON_EXHAUSTED",
        }
    }

    /// The rejection of that code, if there is one.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rejection| rejection.as_str() == code)
    }
}

/// The durable answer to a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The user has the coupon, usable until then.
    Issued {
        /// End of its validity.
        valid_until: Timestamp,
    },
    /// The user does not get it.
    Rejected(Rejection),
}

/// What the database already holds about the users and claims of a batch.
#[derive(Clone, Debug, Default)]
pub struct Existing {
    /// How many coupons of a campaign a user holds.
    pub held: HashMap<(CouponId, UserId), u16>,
    /// Claims that have their answer.
    pub answered: HashMap<ClaimId, Outcome>,
}

/// A row to insert into `user_coupons`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuance {
    /// Of which campaign.
    pub coupon: CouponId,
    /// Whose.
    pub user: UserId,
    /// The claim it answers, whose id it takes.
    pub record: ClaimRecord,
    /// First, second, .. of this user in this campaign.
    pub ordinal: u16,
    /// End of its validity.
    pub valid_until: Timestamp,
}

/// What to do with a batch of claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Rows to insert.
    pub issuances: Vec<Issuance>,
    /// Claims to refuse, as places in the batch.
    pub rejections: Vec<(usize, Rejection)>,
    /// The outcome of each claim of the batch, in its order: old, new, or of its twin in the batch.
    pub outcomes: Vec<Outcome>,
}

/// Decides a batch of claims in order, on the locked campaigns and what the database already holds.
///
/// A claim that has an answer keeps it. Otherwise the user must be below the campaign's limit and the campaign
/// below its quantity. The window is not asked again: Redis decided it when it accepted the claim.
///
/// Source: `002` section 2-1-2, where the scheduler confirms under a pessimistic lock.
pub fn confirm(campaigns: &[Campaign], existing: &Existing, claims: &[Claim], now: Timestamp) -> Plan {
    let mut issued: HashMap<CouponId, (&Campaign, u32)> =
        campaigns.iter().map(|campaign| (campaign.id, (campaign, campaign.issued))).collect();
    let mut gained: HashMap<(CouponId, UserId), u16> = HashMap::new();
    let mut decided: HashMap<ClaimId, Outcome> = HashMap::with_capacity(claims.len());
    let mut plan = Plan::default();
    for (place, claim) in claims.iter().enumerate() {
        let id = claim.record.claim_id;
        if let Some(outcome) = existing.answered.get(&id).or_else(|| decided.get(&id)) {
            plan.outcomes.push(*outcome);
            continue;
        }
        let holder = (claim.coupon, claim.user);
        let outcome = match issued.get_mut(&claim.coupon) {
            None => Outcome::Rejected(Rejection::CouponNotFound),
            Some((campaign, issued)) => {
                let gained = gained.entry(holder).or_default();
                let held = existing.held.get(&holder).copied().unwrap_or(0) + *gained;
                if held >= campaign.terms.per_user_limit {
                    Outcome::Rejected(Rejection::CouponAlreadyIssued)
                } else if *issued >= campaign.terms.total_quantity {
                    Outcome::Rejected(Rejection::CouponExhausted)
                } else {
                    *issued += 1;
                    *gained += 1;
                    let valid_until = campaign.terms.validity.end(now);
                    plan.issuances.push(Issuance {
                        coupon: claim.coupon,
                        user: claim.user,
                        record: claim.record,
                        ordinal: held + 1,
                        valid_until,
                    });
                    Outcome::Issued { valid_until }
                }
            }
        };
        if let Outcome::Rejected(rejection) = outcome {
            plan.rejections.push((place, rejection));
        }
        decided.insert(id, outcome);
        plan.outcomes.push(outcome);
    }
    plan
}

/// Whether a batch may be decided on [`Existing::default`], without asking what the database already holds: the
/// keys of `user_coupons` would refuse anything that was there. Not so where a user may hold several, or where a
/// claim may have been refused before.
pub fn may_skip_existing(campaigns: &[Campaign], claims: &[Claim]) -> bool {
    let known: HashSet<CouponId> = campaigns.iter().map(|campaign| campaign.id).collect();
    let plain = |campaign: &Campaign| campaign.terms.per_user_limit == 1 && campaign.rejected == 0;
    campaigns.iter().all(plain) && claims.iter().all(|claim| known.contains(&claim.coupon))
}
