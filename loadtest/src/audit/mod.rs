//! The audit: MySQL against Redis against a client's own record, at rest.
//!
//! Counts are compared by aggregates, single claims in steps of a thousand in both directions: every claim that
//! Redis holds must have its row, and every row its claim. Nothing grows with the size of a campaign.

mod check;
mod invariants;
mod rows;
mod seats;
mod witness;

use std::time::Duration;

pub use check::{Check, Findings};
use clap::Args;
use dibs_common::{held, identifiers::CouponId};
use witness::Witness;

use crate::{
    Verdict,
    failure::{Context, Failure, Result},
    output,
    record::ClientRecord,
    stores::{StoreArguments, Stores},
    waiting,
};

/// Claims that are looked up at once.
const STEP: usize = 1000;
const CAMPAIGNS_AT_ONCE: u32 = 100;

/// What to audit.
#[derive(Debug, Args)]
pub struct AuditArguments {
    /// Id of the campaign; all of them when left out
    #[arg(long, value_parser = coupon_id)]
    pub coupon: Option<CouponId>,
    /// How long to wait for the worker to confirm what is on the stream
    #[arg(long, default_value_t = 30)]
    pub wait_seconds: u64,
    /// Where the stack keeps its data
    #[command(flatten)]
    pub stores: StoreArguments,
}

fn coupon_id(text: &str) -> Result<CouponId, String> {
    CouponId::try_from(text.parse::<u64>().map_err(|error| error.to_string())?)
}

/// Audits one campaign or all, and prints what was found.
pub async fn run(arguments: AuditArguments) -> Result<Verdict> {
    let stores = Stores::connect(&arguments.stores).await?;
    let limit = Duration::from_secs(arguments.wait_seconds);
    let mut verdict = Verdict::Right;
    let (mut audited, mut after) = (0, 0);
    let mut next = match arguments.coupon {
        Some(coupon) => vec![coupon.get()],
        None => rows::coupon_ids(stores.database.pool(), after, CAMPAIGNS_AT_ONCE).await?,
    };
    while let Some(&last) = next.last() {
        for id in next {
            let coupon = CouponId::try_from(id).map_err(Failure::new)?;
            let findings = audit_at_rest(&stores, coupon, limit, None).await?;
            findings.print();
            audited += 1;
            if findings.verdict() == Verdict::Wrong {
                verdict = Verdict::Wrong;
            }
        }
        after = last;
        next = match arguments.coupon {
            Some(_) => Vec::new(),
            None => rows::coupon_ids(stores.database.pool(), after, CAMPAIGNS_AT_ONCE).await?,
        };
    }
    output::line(match verdict {
        _ if audited == 0 => "there is no campaign to audit",
        Verdict::Right => "\neverything is right",
        Verdict::Wrong => "\ndifferences, see above",
    });
    Ok(verdict)
}

/// Waits until nothing of the campaign's partition is on the stream, at most `limit`, then audits the campaign. A
/// stream that is not empty by then is a difference.
pub async fn audit_at_rest(
    stores: &Stores,
    coupon: CouponId,
    limit: Duration,
    client: Option<&ClientRecord>,
) -> Result<Findings> {
    let campaign = stores.campaign(coupon).await?;
    // Whether it came to rest is one of the checks.
    let _ = waiting::until("an empty stream", limit, Duration::from_millis(50), async || {
        Ok(stores.backlog(campaign.partition).await? == 0)
    })
    .await;
    audit(stores, coupon, client).await
}

/// Audits a campaign, with what a client was answered, if there is a client.
pub async fn audit(stores: &Stores, coupon: CouponId, client: Option<&ClientRecord>) -> Result<Findings> {
    let campaign = stores.campaign(coupon).await?;
    let pool = stores.database.pool();
    let totals = rows::totals(pool, coupon).await?;
    let counts = held::counts(&stores.redis, campaign.partition, coupon).await.context("reading Redis")?;
    let witness = client.map(Witness::new);
    let mut checks = vec![invariants::quantity(&campaign, totals, counts)];
    checks.push(invariants::per_user(stores, &campaign).await?);
    let (outcomes, claims) = invariants::claims_have_outcomes(stores, &campaign).await?;
    checks.push(outcomes);
    checks.push(invariants::issuances_have_claims(stores, &campaign, totals, witness.as_ref()).await?);
    checks.push(invariants::at_rest(stores, &campaign, totals, (counts, claims)).await?);
    if let Some(witness) = witness {
        checks.push(witness.per_user(campaign.terms.per_user_limit));
        checks.push(witness.outcomes(pool, coupon).await?);
        checks.push(witness.answers());
    }
    Ok(Findings { campaign: format!("coupon {coupon}, '{}'", campaign.terms.name), checks })
}
