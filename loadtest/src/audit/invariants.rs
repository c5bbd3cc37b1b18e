//! The invariants of a campaign, one function each.

use std::{collections::HashSet, pin::pin};

use anyhow::Result;
use dibs_common::{
    domain::{campaign::Campaign, claim::ClaimRecord},
    identifiers::{ClaimId, CouponId, UserId},
    redis::campaign_state::Counts,
};
use futures::TryStreamExt as _;

use super::{
    BATCH_SIZE,
    check::Check,
    client::ClientAudit,
    redis_claims,
    rows::{self, Totals},
};
use crate::{numbers::grouped, stores::Stores};

/// I1: no more coupons are issued than the total quantity, in Redis and in MySQL.
pub fn quantity(campaign: &Campaign, totals: Totals, counts: Option<Counts>) -> Check {
    let mut check = Check::new("I1");
    // A revoked coupon has freed its place, and its claim is counted still.
    let total = u64::from(campaign.terms.total_quantity) + totals.revoked;
    // A campaign that Redis does not hold has claimed nothing; I11 checks whether it must be there.
    let claimed = counts.map_or(0, |counts| counts.claimed.into());
    check.require(totals.issued <= total, || format!("{} issued of {total}", totals.issued));
    check.require(claimed <= total, || format!("{claimed} claimed of {total} in Redis"));
    let (issued, claimed) = (grouped(totals.issued), grouped(claimed));
    check.compared(format!("{issued} issued in MySQL, {claimed} claimed in Redis, of {}", grouped(total)));
    check
}

/// I2: no user holds more coupons than the limit.
pub async fn per_user(stores: &Stores, campaign: &Campaign) -> Result<Check> {
    let mut check = Check::new("I2");
    let limit = campaign.terms.per_user_limit;
    for (user, held) in rows::users_above(&stores.database.pool(), campaign.id, limit).await? {
        check.require(false, || format!("user {user} holds {held}"));
    }
    check.compared(format!("coupons of each user in MySQL, limit {limit}"));
    Ok(check)
}

/// Claims in Redis, and their users.
#[derive(Clone, Copy, Debug, Default)]
pub struct Claims {
    records: u64,
    users: u64,
}

/// I3, and I2 in Redis: every claim in Redis is issued.
pub async fn claims_have_outcomes(stores: &Stores, campaign: &Campaign) -> Result<(Check, Claims)> {
    let mut check = Check::new("I3");
    let limit = usize::from(campaign.terms.per_user_limit);
    let mut claims = Claims::default();
    let mut pages = pin!(redis_claims::scan(&stores.redis, campaign.partition, campaign.id));
    while let Some(page) = pages.try_next().await? {
        claims.users += page.len() as u64;
        for (user, records) in &page {
            claims.records += records.len() as u64;
            check.require(records.len() <= limit, || format!("I2: user {user} has {} claims in Redis", records.len()));
        }
        let held: Vec<(UserId, ClaimRecord)> = page
            .into_iter()
            .flat_map(|(user, records)| records.into_iter().map(move |record| (user, record)))
            .collect();
        for batch in held.chunks(BATCH_SIZE) {
            check_outcomes(&mut check, stores, campaign.id, batch).await?;
        }
    }
    check.compared(format!("{} claims in Redis: each issued in MySQL", grouped(claims.records)));
    Ok((check, claims))
}

async fn check_outcomes(
    check: &mut Check,
    stores: &Stores,
    coupon: CouponId,
    held: &[(UserId, ClaimRecord)],
) -> Result<()> {
    let ids: Vec<ClaimId> = held.iter().map(|(_, record)| record.claim_id).collect();
    let outcomes = rows::outcomes(&stores.database.pool(), &ids).await?;
    for (user, record) in held {
        let claim = record.claim_id;
        match outcomes.get(&claim) {
            None => check.require(false, || format!("claim {claim} of user {user} has no outcome")),
            Some(outcome) => {
                check.require(outcome.is_issued, || {
                    format!("claim {claim} of user {user} was rejected in MySQL, and still counts in Redis")
                });
                let (found, expected) =
                    ((outcome.coupon, outcome.user, outcome.sequence), (coupon.get(), user.get(), record.sequence));
                check.require(found == expected, || {
                    format!("claim {claim} is {expected:?} in Redis, {found:?} in MySQL (coupon, user, sequence)")
                });
            }
        }
    }
    Ok(())
}

/// I4: every issuance has its claim in Redis and in the client's record.
pub async fn issuances_have_claims(
    stores: &Stores,
    campaign: &Campaign,
    totals: Totals,
    client: Option<&ClientAudit<'_>>,
) -> Result<Check> {
    let mut check = Check::new("I4");
    let mut last = None;
    loop {
        let batch = rows::issuances(&stores.database.pool(), campaign.id, last).await?;
        let Some(&end) = batch.last() else { break };
        last = Some(end);
        let users: Vec<UserId> = batch.iter().map(|issued| issued.user).collect();
        let held = redis_claims::claims_of(&stores.redis, campaign.partition, campaign.id, &users).await?;
        let claims = batch.iter().map(|issued| (issued.record.claim_id, issued.user));
        // Without a record of a client, every claim counts as known.
        let unknown = claims.filter(|(claim, user)| client.is_some_and(|client| !client.knows(*claim, *user)));
        let mut unknown: HashSet<ClaimId> = unknown.map(|(claim, _)| claim).collect();
        // The claims of an assignment come from an administrator, so no client knows them.
        for claim in rows::assigned(&stores.database.pool(), &unknown).await? {
            unknown.remove(&claim);
        }
        for issued in batch {
            let (user, record) = (issued.user, issued.record);
            check.require(held.get(&user).is_some_and(|records| records.contains(&record)), || {
                format!("issuance {} of user {user} has no claim in Redis", record.claim_id)
            });
            check.require(!unknown.contains(&record.claim_id), || {
                let claim = record.claim_id;
                format!("issuance {claim} of user {user} was neither assigned nor accepted for the client")
            });
        }
    }
    // Sequences are unique within a campaign, so equal counts mean that none is shared.
    check.require(totals.sequences == totals.issued, || {
        format!("{} issuances share {} sequence numbers", totals.issued, totals.sequences)
    });
    check
        .require(totals.contradictory == 0, || format!("{} claims are both issued and rejected", totals.contradictory));
    let known = if client.is_some() { "Redis, known to the client" } else { "Redis" };
    check.compared(format!("{} issuances: each a claim in {known}", grouped(totals.issued)));
    Ok(check)
}

/// I3 and I4 of assignments: the outcome of each user matches the issuances.
pub async fn assignments_match(stores: &Stores, campaign: &Campaign) -> Result<Check> {
    let mut check = Check::new("I4");
    let assigned = rows::assignments(&stores.database.pool(), campaign.id).await?;
    check.require(assigned.without_outcome == 0, || {
        format!("{} users of finished assignments have no outcome", assigned.without_outcome)
    });
    check.require(assigned.wrong == 0, || {
        format!("{} users of assignments have an outcome that does not match the issuances", assigned.wrong)
    });
    check.require(assigned.missing == 0, || format!("{} users of assignments have no row", assigned.missing));
    check.require(assigned.miscounted == 0, || {
        format!("{} outcomes of assignments are miscounted", assigned.miscounted)
    });
    check.compared(format!("{} users of assignments: each outcome matches the issuances", assigned.users));
    Ok(check)
}

/// I11: Redis and MySQL of a drained stack agree.
pub async fn stores_agree(
    stores: &Stores,
    campaign: &Campaign,
    totals: Totals,
    counts: Option<Counts>,
    claims: Claims,
) -> Result<Check> {
    let mut check = Check::new("I11");
    let mut equal =
        |what: &str, one: u64, other: u64| check.require(one == other, || format!("{what}: {one} and {other}"));
    equal("rows of user_coupons, coupons.issued_quantity", totals.issued, u64::from(campaign.issued));
    equal("revoked rows of user_coupons, coupons.revoked_quantity", totals.revoked, u64::from(campaign.revoked));
    equal("rows of claim_rejections, coupons.rejected_quantity", totals.rejected, u64::from(campaign.rejected));
    match counts {
        Some(counts) => {
            equal("issued in MySQL, claimed in Redis", totals.issued, counts.claimed.into());
            equal("claimed in Redis, claims in Redis", counts.claimed.into(), claims.records);
            equal("quantity in MySQL, in Redis", campaign.capacity().into(), counts.total.into());
            let users = redis_claims::users(&stores.redis, campaign.partition, campaign.id).await?;
            equal("users in Redis, users scanned", users, claims.users);
            // Redis may be ahead: a rejected claim keeps its sequence. Behind, it would assign a sequence twice.
            let behind = totals.highest.saturating_sub(counts.sequence);
            equal("sequence in Redis behind MySQL by, expected", behind.into(), 0);
        }
        // A campaign whose window is over may be missing in Redis.
        None => equal("open campaign missing in Redis", u64::from(is_open(campaign)), 0),
    }
    equal("entries on the claim stream of its partition, expected", stores.backlog(campaign.partition).await?, 0);
    equal("dead letters of the campaign, expected", stores.dead_letters(campaign.id).await?, 0);
    check.compared("claims, counts and terms in Redis and MySQL; empty stream; no dead letters");
    Ok(check)
}

fn is_open(campaign: &Campaign) -> bool {
    campaign.terms.closes_at > dibs_common::clock::now()
}

#[cfg(test)]
mod tests {
    use dibs_common::{
        domain::campaign::CampaignTerms,
        testing::{TestEnvironment, open_terms},
    };

    use super::*;

    /// Totals of so many issued coupons, one of each user.
    const fn issued(issued: u64) -> Totals {
        Totals { issued, revoked: 0, users: issued, sequences: issued, highest: 0, rejected: 0, contradictory: 0 }
    }

    #[tokio::test]
    async fn i1_more_than_the_quantity_is_a_difference_in_either_store() {
        let environment = TestEnvironment::new().await;
        let campaign = environment.campaign(3).await;
        let counts = dibs_common::redis::campaign_state::counts(&environment.redis, campaign.partition, campaign.id);
        let counts = counts.await.expect("counts");
        assert_eq!(quantity(&campaign, issued(3), counts).differences(), 0);
        assert_eq!(quantity(&campaign, issued(4), counts).examples(), ["4 issued of 3"]);
        let mut more_claimed = counts;
        if let Some(counts) = &mut more_claimed {
            counts.claimed = 4;
        }
        assert_eq!(quantity(&campaign, issued(3), more_claimed).examples(), ["4 claimed of 3 in Redis"]);
        // A campaign that is not in Redis has no claims there.
        assert_eq!(quantity(&campaign, issued(3), None).differences(), 0);
        environment.end().await;
    }

    #[tokio::test]
    async fn i11_only_an_open_campaign_must_be_in_redis() {
        let environment = TestEnvironment::new().await;
        let stores = Stores { database: environment.database.clone(), redis: environment.redis.clone() };
        let open = environment.campaign_in_database(open_terms()).await;
        let yesterday = dibs_common::clock::now() - chrono::TimeDelta::days(1);
        let opens_at = yesterday - chrono::TimeDelta::days(1);
        let closed = CampaignTerms { opens_at, closes_at: yesterday, ..open_terms() };
        let closed = environment.campaign_in_database(closed).await;
        let none = Claims::default();
        let check = stores_agree(&stores, &open, issued(0), None, none).await.expect("a check");
        assert_eq!(check.examples(), ["open campaign missing in Redis: 1 and 0"]);
        assert_eq!(stores_agree(&stores, &closed, issued(0), None, none).await.expect("a check").differences(), 0);
        environment.end().await;
    }
}
