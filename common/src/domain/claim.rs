//! Claims, and the decision of MySQL on a batch of claims that Redis accepted.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray};
use utoipa::ToSchema;

use super::{
    campaign::{Campaign, CampaignState},
    event::{Aggregate, Event},
    trace_context::TraceContext,
};
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
    #[serde(serialize_with = "crate::clock::serialize")]
    pub accepted_at: DateTime<Utc>,
}

/// An accepted claim, as an entry of the stream has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub coupon: CouponId,
    pub user: UserId,
    pub record: ClaimRecord,
    /// The id of the request that created the claim; empty when it is the claim's own id.
    pub request: String,
    /// An administrator assigns the coupon: neither the claim window nor a pause applies.
    pub is_assigned: bool,
    /// The request, when it is sampled.
    pub trace: Option<TraceContext>,
}

/// Why a claim got no coupon.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    ToSchema,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE", const_into_str)]
pub enum ClaimRejectReason {
    /// MySQL has no such campaign.
    CouponNotFound,
    /// The user is at the limit, by a claim that Redis lost.
    CouponAlreadyIssued,
    /// MySQL has issued the whole quantity: more than Redis counted.
    CouponExhausted,
    /// It came before the window. As with the two below, it was never accepted, or Redis had returned to older terms.
    CampaignNotOpen,
    /// It came while an administrator had paused the campaign.
    CampaignPaused,
    /// It came after the window, or when an administrator had closed the campaign.
    CampaignClosed,
    /// It could not be processed: an administrator dropped its dead letter.
    ClaimFailed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimOutcome {
    Issued { valid_until: Timestamp },
    Rejected(ClaimRejectReason),
}

/// What the database already holds about the users and claims of a batch.
#[derive(Clone, Debug, Default)]
pub struct ExistingClaims {
    /// Coupons of a campaign that a user holds.
    pub held: HashMap<(CouponId, UserId), u16>,
    pub decided: HashMap<ClaimId, DecidedClaim>,
}

/// A claim that has a durable outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecidedClaim {
    pub coupon: CouponId,
    pub user: UserId,
    pub outcome: ClaimOutcome,
}

impl DecidedClaim {
    /// The outcome of a claim with the same id. Ids are unique; if two claims had the same id nevertheless, the later
    /// one is rejected, so that its user does not get another user's outcome.
    fn outcome_for(&self, claim: &Claim) -> ClaimOutcome {
        if (self.coupon, self.user) == (claim.coupon, claim.user) {
            self.outcome
        } else {
            ClaimOutcome::Rejected(ClaimRejectReason::CouponAlreadyIssued)
        }
    }
}

/// A row to insert into `user_coupons`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuance {
    pub coupon: CouponId,
    pub user: UserId,
    /// The claim. The row has the same id.
    pub record: ClaimRecord,
    /// Counts the coupons of this user in this campaign, from 1.
    pub ordinal: u16,
    pub valid_until: Timestamp,
}

/// A place among the coupons of a campaign: by the end of their validity, and then by claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IssuedPosition {
    pub valid_until: Timestamp,
    pub claim: ClaimId,
}

/// The outcomes of a batch of claims, and the rows to write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IssuancePlan {
    /// Rows to insert.
    pub issuances: Vec<Issuance>,
    /// Rejections to insert, with the index of the claim in the batch.
    pub rejections: Vec<(usize, ClaimRejectReason)>,
    /// One for each claim of the batch, in order. A claim with the id of another user's or campaign's claim is rejected
    /// without a row, because a row with this id exists.
    pub outcomes: Vec<ClaimOutcome>,
    /// The sampled requests of issuances.
    pub traces: HashMap<ClaimId, TraceContext>,
}

impl IssuancePlan {
    /// Events of the issuances. An event has up to [`EVENT_BATCH_SIZE`] issuances of a campaign: a row of the outbox
    /// for each issuance would cost more than the issuance itself.
    pub fn events(&self, now: Timestamp) -> Vec<Event> {
        let mut alike: BTreeMap<(CouponId, Timestamp), Vec<(UserId, ClaimId)>> = BTreeMap::new();
        for Issuance { coupon, user, record, valid_until, .. } in &self.issuances {
            alike.entry((*coupon, *valid_until)).or_default().push((*user, record.claim_id));
        }
        let mut events = Vec::new();
        for ((coupon_id, valid_until), issuances) in alike {
            for issuances in issuances.chunks(EVENT_BATCH_SIZE) {
                let payload = CouponsIssued { coupon_id, issued_at: now, valid_until, issuances };
                let mut event = Event::new(Aggregate::Coupon(coupon_id), COUPON_ISSUED, &payload);
                if !self.traces.is_empty() {
                    let traced = issuances.iter().zip(0..);
                    event.traces =
                        traced.filter_map(|((_, claim), place)| Some((place, *self.traces.get(claim)?))).collect();
                }
                events.push(event);
            }
        }
        events
    }
}

/// The type of the event of issuances.
pub const COUPON_ISSUED: &str = "coupon.issued";

const EVENT_BATCH_SIZE: usize = 100;

/// The payload of `coupon.expired`: a coupon that ended unused, or came back from an order after its validity.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CouponExpired {
    pub user_coupon_id: ClaimId,
    pub coupon_id: CouponId,
    pub user_id: UserId,
    #[serde(serialize_with = "crate::clock::serialize")]
    pub expired_at: Timestamp,
}

impl CouponExpired {
    pub fn event(&self) -> Event {
        Event::new(Aggregate::Coupon(self.coupon_id), "coupon.expired", self)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CouponsIssued<'i> {
    coupon_id: CouponId,
    #[serde(serialize_with = "crate::clock::serialize")]
    issued_at: Timestamp,
    #[serde(serialize_with = "crate::clock::serialize")]
    valid_until: Timestamp,
    // Pairs and not objects: MySQL parses each byte, writes it to its logs, and holds it for days.
    issuances: &'i [(UserId, ClaimId)],
}

/// Decides a batch of claims in order, on the locked campaigns and what the database already holds.
///
/// A claim that has an outcome keeps it. Otherwise it must meet the state and window that were in force when Redis
/// accepted it, the user must be below the campaign's limit, and the campaign below its quantity.
///
/// Source: `002` section 2-1-2, where the scheduler confirms under a pessimistic lock.
pub fn confirm(campaigns: &[Campaign], existing: &ExistingClaims, claims: &[Claim], now: Timestamp) -> IssuancePlan {
    let mut issued: HashMap<CouponId, (&Campaign, u32)> =
        campaigns.iter().map(|campaign| (campaign.id, (campaign, campaign.issued))).collect();
    let mut gained: HashMap<(CouponId, UserId), u16> = HashMap::new();
    let mut decided: HashMap<ClaimId, DecidedClaim> = HashMap::with_capacity(claims.len());
    let mut plan = IssuancePlan::default();
    for (index, claim) in claims.iter().enumerate() {
        let id = claim.record.claim_id;
        // A redelivered claim, or one that comes twice in this batch.
        if let Some(decided) = existing.decided.get(&id).or_else(|| decided.get(&id)) {
            plan.outcomes.push(decided.outcome_for(claim));
            continue;
        }
        let holder = (claim.coupon, claim.user);
        let outcome = match issued.get_mut(&claim.coupon) {
            None => ClaimOutcome::Rejected(ClaimRejectReason::CouponNotFound),
            Some((campaign, issued)) => {
                let gained = gained.entry(holder).or_default();
                let held = existing.held.get(&holder).copied().unwrap_or(0) + *gained;
                if let Some(reason) = outside_terms(campaign, claim) {
                    ClaimOutcome::Rejected(reason)
                } else if held >= campaign.terms.per_user_limit {
                    ClaimOutcome::Rejected(ClaimRejectReason::CouponAlreadyIssued)
                } else if *issued >= campaign.capacity() {
                    ClaimOutcome::Rejected(ClaimRejectReason::CouponExhausted)
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
                    if let Some(trace) = claim.trace {
                        plan.traces.insert(claim.record.claim_id, trace);
                    }
                    ClaimOutcome::Issued { valid_until }
                }
            }
        };
        if let ClaimOutcome::Rejected(reason) = outcome {
            plan.rejections.push((index, reason));
        }
        decided.insert(id, DecidedClaim { coupon: claim.coupon, user: claim.user, outcome });
        plan.outcomes.push(outcome);
    }
    plan
}

/// How far the clocks of two Redis servers may differ, one of which replaced the other.
pub const CLOCK_TOLERANCE: TimeDelta = TimeDelta::milliseconds(100);

/// Why a claim is rejected that Redis accepted although the state or the window did not allow it: Redis had returned to
/// older terms, such as those of a replica.
///
/// MySQL knows the present terms only, so they say nothing about a claim that was accepted before Redis had them. Both
/// times are by the clock of Redis.
fn outside_terms(campaign: &Campaign, claim: &Claim) -> Option<ClaimRejectReason> {
    let accepted_at = claim.record.accepted_at;
    if accepted_at <= campaign.enforced_since? + CLOCK_TOLERANCE {
        return None;
    }
    let is_public = !claim.is_assigned;
    match campaign.state {
        CampaignState::Closed => Some(ClaimRejectReason::CampaignClosed),
        _ if is_public && accepted_at >= campaign.terms.closes_at => Some(ClaimRejectReason::CampaignClosed),
        _ if is_public && accepted_at < campaign.terms.opens_at => Some(ClaimRejectReason::CampaignNotOpen),
        CampaignState::Paused if is_public => Some(ClaimRejectReason::CampaignPaused),
        CampaignState::Paused | CampaignState::Active => None,
    }
}

/// Rejects the claims of a batch that have no outcome.
pub fn reject_failed(existing: &ExistingClaims, claims: &[Claim]) -> IssuancePlan {
    let mut plan = IssuancePlan::default();
    let mut rejected = HashSet::new();
    for (index, claim) in claims.iter().enumerate() {
        let id = claim.record.claim_id;
        let outcome = existing.decided.get(&id).map_or_else(
            || {
                if rejected.insert(id) {
                    plan.rejections.push((index, ClaimRejectReason::ClaimFailed));
                }
                ClaimOutcome::Rejected(ClaimRejectReason::ClaimFailed)
            },
            |decided| decided.outcome_for(claim),
        );
        plan.outcomes.push(outcome);
    }
    plan
}

/// Whether a batch may be decided with [`ExistingClaims::default`], without a query, as long as the plan rejects
/// nothing: the unique keys of `user_coupons` refuse what exists already. They do not where a user may hold several
/// coupons, or where a claim may have been rejected before.
pub fn may_skip_existing(campaigns: &[Campaign], claims: &[Claim]) -> bool {
    let known: HashSet<CouponId> = campaigns.iter().map(|campaign| campaign.id).collect();
    let is_covered_by_keys = |campaign: &Campaign| campaign.terms.per_user_limit == 1 && campaign.rejected == 0;
    campaigns.iter().all(is_covered_by_keys) && claims.iter().all(|claim| known.contains(&claim.coupon))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::{clock::from_millis, domain::campaign::tests::terms, identifiers::Partition};

    fn campaign(id: u64, total_quantity: u32, per_user_limit: u16) -> Campaign {
        Campaign {
            id: CouponId::try_from(id).expect("an id"),
            terms: crate::domain::campaign::CampaignTerms { total_quantity, per_user_limit, ..terms() },
            partition: Partition(0),
            state: CampaignState::Active,
            revision: 1,
            issued: 0,
            revoked: 0,
            rejected: 0,
            epoch: crate::domain::event::Epoch::default(),
            enforced_since: None,
        }
    }

    fn claim((coupon, user, id): (u64, u64, u8)) -> Claim {
        Claim {
            coupon: CouponId::try_from(coupon).expect("an id"),
            user: UserId::try_from(user).expect("an id"),
            record: ClaimRecord {
                claim_id: ClaimId(Uuid::from_u128(u128::from(id) << 32 | u128::from(coupon) << 16 | u128::from(user))),
                sequence: u32::from(id),
                accepted_at: from_millis(0),
            },
            request: String::new(),
            is_assigned: false,
            trace: None,
        }
    }

    /// The tables, and a worker that confirms batches on them.
    #[derive(Default)]
    struct Tables {
        existing: ExistingClaims,
        issued: BTreeMap<CouponId, u32>,
    }

    impl Tables {
        fn confirm(&mut self, campaigns: &[Campaign], batch: &[Claim]) -> Vec<ClaimOutcome> {
            let mut locked = campaigns.to_vec();
            for campaign in &mut locked {
                campaign.issued = self.issued.get(&campaign.id).copied().unwrap_or(0);
            }
            let plan = confirm(&locked, &self.existing, batch, from_millis(0));
            for issuance in &plan.issuances {
                *self.issued.entry(issuance.coupon).or_default() += 1;
                let held = self.existing.held.entry((issuance.coupon, issuance.user)).or_default();
                *held += 1;
                assert_eq!(*held, issuance.ordinal, "ordinals have no gap");
                let outcome = ClaimOutcome::Issued { valid_until: issuance.valid_until };
                let decided = DecidedClaim { coupon: issuance.coupon, user: issuance.user, outcome };
                let before = self.existing.decided.insert(issuance.record.claim_id, decided);
                assert_eq!(before, None, "a claim is decided once");
            }
            for (place, rejection) in &plan.rejections {
                let Claim { coupon, user, record, .. } = batch[*place];
                let decided = DecidedClaim { coupon, user, outcome: ClaimOutcome::Rejected(*rejection) };
                let before = self.existing.decided.insert(record.claim_id, decided);
                assert_eq!(before, None, "a claim is decided once");
            }
            plan.outcomes
        }
    }

    #[test]
    fn claims_that_fail_are_rejected_once_and_decided_ones_keep_their_outcome() {
        let (decided, failed) = (claim((1, 1, 1)), claim((1, 2, 2)));
        let issued = ClaimOutcome::Issued { valid_until: from_millis(0) };
        let answer = DecidedClaim { coupon: decided.coupon, user: decided.user, outcome: issued };
        let existing = ExistingClaims { decided: [(decided.record.claim_id, answer)].into(), ..Default::default() };
        let plan = reject_failed(&existing, &[decided, failed.clone(), failed]);
        let rejected = ClaimOutcome::Rejected(ClaimRejectReason::ClaimFailed);
        assert_eq!(plan.outcomes, [issued, rejected, rejected]);
        assert_eq!(plan.rejections, [(1, ClaimRejectReason::ClaimFailed)]);
        assert_eq!(plan.issuances, []);
    }

    #[test]
    fn a_claim_does_not_get_the_outcome_of_another_claim_with_its_id() {
        let campaigns = [campaign(1, 10, 1), campaign(2, 10, 1)];
        let first = claim((1, 1, 1));
        let with_its_id = |coupon, user| Claim { record: first.record, ..claim((coupon, user, 1)) };
        let batch = [first.clone(), with_its_id(1, 2), with_its_id(2, 1), first.clone(), claim((1, 2, 2))];
        let refused = ClaimOutcome::Rejected(ClaimRejectReason::CouponAlreadyIssued);
        let expect = |outcomes: &[ClaimOutcome]| {
            assert_eq!(outcomes[1..3], [refused, refused]);
            assert_eq!(outcomes[3], outcomes[0]);
            for place in [0, 4] {
                assert!(matches!(outcomes[place], ClaimOutcome::Issued { .. }), "{outcomes:?}");
            }
        };
        let mut tables = Tables::default();
        expect(&tables.confirm(&campaigns, &batch));
        expect(&tables.confirm(&campaigns, &batch));
        assert_eq!(tables.issued, BTreeMap::from([(campaigns[0].id, 2)]), "only the first two users have a coupon");
    }

    proptest! {
        /// The second check agrees with the script once Redis had these terms; before that it takes the word of the
        /// script. The window of the terms is 1,000 s to 2,000 s.
        #[test]
        fn terms_apply_to_claims_that_were_accepted_after_redis_had_them(
            state in prop::sample::select(CampaignState::VARIANTS),
            accepted_at in 900_000..2_100_000_i64,
            enforced_since in prop::option::of(900_000..2_100_000_i64),
            is_assigned: bool,
        ) {
            let mut campaign = campaign(1, 10, 1);
            campaign.state = state;
            campaign.enforced_since = enforced_since.map(from_millis);
            let mut claim = claim((1, 1, 1));
            claim.record.accepted_at = from_millis(accepted_at);
            claim.is_assigned = is_assigned;
            let plan = confirm(&[campaign], &ExistingClaims::default(), &[claim], from_millis(0));
            let in_force = enforced_since.is_some_and(|since| accepted_at > since + CLOCK_TOLERANCE.num_milliseconds());
            let expected = match state {
                _ if !in_force => None,
                CampaignState::Closed => Some(ClaimRejectReason::CampaignClosed),
                _ if is_assigned => None,
                _ if accepted_at >= 2_000_000 => Some(ClaimRejectReason::CampaignClosed),
                _ if accepted_at < 1_000_000 => Some(ClaimRejectReason::CampaignNotOpen),
                CampaignState::Paused => Some(ClaimRejectReason::CampaignPaused),
                CampaignState::Active => None,
            };
            prop_assert_eq!(plan.rejections, expected.map(|reason| (0, reason)).into_iter().collect::<Vec<_>>());
            prop_assert_eq!(plan.issuances.len(), usize::from(expected.is_none()));
        }

        /// I1, I2 and I3 for any claims in any batches: the outcomes are those of one claim at a time, whatever
        /// comes twice.
        #[test]
        fn any_cut_into_batches_decides_as_one_at_a_time(
            claims in prop::collection::vec((1..4_u64, 1..6_u64, 0..4_u8).prop_map(claim), 0..60),
            cuts in prop::collection::vec(1..9_usize, 1..60),
            (total, limit) in (0..8_u32, 1..3_u16),
        ) {
            // Campaign 3 is not in the database.
            let campaigns = [campaign(1, total, limit), campaign(2, 3, 1)];
            let mut one_at_a_time = Tables::default();
            let expected: Vec<ClaimOutcome> =
                claims.iter().flat_map(|claim| one_at_a_time.confirm(&campaigns, std::slice::from_ref(claim))).collect();
            let mut in_batches = Tables::default();
            let (mut outcomes, mut rest, mut cuts) = (Vec::new(), &claims[..], cuts.into_iter().cycle());
            while !rest.is_empty() {
                let (batch, after) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
                outcomes.extend(in_batches.confirm(&campaigns, batch));
                rest = after;
            }
            prop_assert_eq!(&outcomes, &expected);
            prop_assert_eq!(&in_batches.issued, &one_at_a_time.issued);
            for campaign in &campaigns {
                let issued = in_batches.issued.get(&campaign.id).copied().unwrap_or(0);
                prop_assert!(issued <= campaign.terms.total_quantity);
            }
            for ((coupon, _), held) in &in_batches.existing.held {
                let limit = campaigns.iter().find(|campaign| campaign.id == *coupon).map(|c| c.terms.per_user_limit);
                prop_assert!(Some(*held) <= limit);
            }
        }
    }
}
