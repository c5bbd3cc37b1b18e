use std::collections::HashSet;

use dibs_common::{
    db::{self, Database},
    domain::claim::ClaimOutcome,
    error::Result,
    identifiers::{ClaimId, CouponId, UserId},
    redis::streams::ClaimOutcomeMessage,
};

use crate::outcome_waiters::{AwaitedOutcome, LOOK_UP_TIMEOUT};

/// A claim whose outcome a caller waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AwaitedClaim {
    pub id: ClaimId,
    pub coupon: CouponId,
    pub user: UserId,
}

impl AwaitedOutcome for ClaimOutcome {
    type Id = ClaimId;
    type Subject = AwaitedClaim;
    const KIND: &'static str = "claim";

    fn id(claim: &AwaitedClaim) -> ClaimId {
        claim.id
    }

    fn decode_all(message: &[u8]) -> impl Iterator<Item = (ClaimId, Self)> {
        ClaimOutcomeMessage::read_all(message).map(|message| (message.claim, message.outcome))
    }

    async fn look_up(database: &Database, claims: &[AwaitedClaim]) -> Result<Vec<(ClaimId, Self)>> {
        let ids: Vec<ClaimId> = claims.iter().map(|claim| claim.id).collect();
        let pool = &database.pool();
        let decided = db::issuances::find_outcomes(pool, &ids);
        let decided = db::within_limit(LOOK_UP_TIMEOUT, decided).await?;
        // A row of the same id, but of another user or campaign, says nothing of this claim.
        let asked: HashSet<&AwaitedClaim> = claims.iter().collect();
        let of_asked = decided.into_iter().filter_map(|(id, decided)| {
            let claim = AwaitedClaim { id, coupon: decided.coupon, user: decided.user };
            asked.contains(&claim).then_some((id, decided.outcome))
        });
        Ok(of_asked.collect())
    }
}
