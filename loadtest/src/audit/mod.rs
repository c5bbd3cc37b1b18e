//! The audit: MySQL against Redis against a client's own record, at rest. Of campaigns here, of the shop in [`shop`].
//!
//! Counts are compared by aggregates, single claims in steps of a thousand in both directions: every claim that
//! Redis holds must have its row, and every row its claim. Nothing grows with the size of a campaign.

mod check;
mod invariants;
mod rows;
mod seats;
mod shop;
mod witness;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
pub use check::{Check, Findings};
use clap::Args;
use dibs_common::{identifiers::CouponId, redis::campaign_state};
pub use shop::{ShopSettings, Witnesses, audit_shop, audit_shop_at_rest, last_sequence, until_at_rest};
use witness::Witness;

use crate::{
    Verdict,
    numbers::grouped,
    output,
    record::{ClientRecord, Deliveries},
    stores::{StoreArguments, Stores},
    waiting,
};

/// Claims that are looked up at once.
const STEP: usize = 1000;
const CAMPAIGNS_AT_ONCE: u32 = 100;

/// What to audit.
#[derive(Debug, Args)]
pub struct AuditArguments {
    /// Id of the one campaign to audit; all of them, and the shop, when left out
    #[arg(long, value_parser = coupon_id)]
    pub coupon: Option<CouponId>,
    /// What the shop has set.
    #[command(flatten)]
    pub settings: ShopSettings,
    /// What receivers of webhooks recorded: see dibs-loadtest receiver --record
    #[arg(long)]
    pub deliveries: Option<PathBuf>,
    /// How long to wait for the worker to do what is on the streams
    #[arg(long, default_value_t = 30)]
    pub wait_seconds: u64,
    /// Where the stack keeps its data
    #[command(flatten)]
    pub stores: StoreArguments,
}

fn coupon_id(text: &str) -> Result<CouponId, String> {
    CouponId::try_from(text.parse::<u64>().map_err(|error| error.to_string())?)
}

/// Audits one campaign, or all and the shop, and prints what was found.
pub async fn run(arguments: AuditArguments) -> Result<Verdict> {
    let stores = Stores::connect(&arguments.stores).await?;
    let limit = Duration::from_secs(arguments.wait_seconds);
    let differences = if let Some(coupon) = arguments.coupon {
        audit_and_print(&stores, coupon, limit).await?
    } else {
        let deliveries = arguments.deliveries.as_deref().map(Deliveries::read).transpose()?;
        let witnesses = Witnesses { client: None, deliveries: deliveries.as_ref() };
        let shop = audit_shop_at_rest(&stores, limit, arguments.settings, witnesses).await?;
        shop.print();
        shop.differences() + audit_all_campaigns(&stores, limit).await?
    };
    Ok(verdict(differences))
}

/// Says as the last line how it ended.
pub fn verdict(differences: u64) -> Verdict {
    if differences == 0 {
        output::line("\neverything is right");
        Verdict::Right
    } else {
        output::line(&format!("\n{} differences, see above", grouped(differences)));
        Verdict::Wrong
    }
}

async fn audit_all_campaigns(stores: &Stores, limit: Duration) -> Result<u64> {
    let (mut differences, mut after) = (0, 0);
    loop {
        let ids = rows::coupon_ids(stores.database.pool(), after, CAMPAIGNS_AT_ONCE).await?;
        let Some(&last) = ids.last() else { return Ok(differences) };
        for id in ids {
            let coupon = CouponId::try_from(id).map_err(anyhow::Error::msg)?;
            differences += audit_and_print(stores, coupon, limit).await?;
        }
        after = last;
    }
}

async fn audit_and_print(stores: &Stores, coupon: CouponId, limit: Duration) -> Result<u64> {
    let findings = audit_at_rest(stores, coupon, limit, None).await?;
    findings.print();
    Ok(findings.differences())
}

/// Waits until nothing of the campaign's partition is on the stream, at most `limit`, then audits the campaign. A
/// stream that is not empty by then is a difference.
pub async fn audit_at_rest(
    stores: &Stores,
    coupon: CouponId,
    limit: Duration,
    client: Option<&ClientRecord>,
) -> Result<Findings> {
    until_confirmed(stores, coupon, limit).await?;
    audit(stores, coupon, client).await
}

/// Waits until nothing of the campaign's partition is on the stream, at most `limit`.
pub async fn until_confirmed(stores: &Stores, coupon: CouponId, limit: Duration) -> Result<()> {
    let campaign = stores.campaign(coupon).await?;
    // Whether it came to rest is one of the checks.
    let _ = waiting::until("an empty stream", limit, Duration::from_millis(50), async || {
        Ok(stores.backlog(campaign.partition).await? == 0)
    })
    .await;
    Ok(())
}

/// Audits a campaign, with what a client was answered, if there is a client.
pub async fn audit(stores: &Stores, coupon: CouponId, client: Option<&ClientRecord>) -> Result<Findings> {
    let campaign = stores.campaign(coupon).await?;
    let pool = stores.database.pool();
    let totals = rows::totals(pool, coupon).await?;
    let counts = campaign_state::counts(&stores.redis, campaign.partition, coupon).await.context("reading Redis")?;
    let witness = client.map(Witness::new);
    let mut checks = vec![invariants::quantity(&campaign, totals, counts)];
    checks.push(invariants::per_user(stores, &campaign).await?);
    let (outcomes, claims) = invariants::claims_have_outcomes(stores, &campaign).await?;
    checks.push(outcomes);
    checks.push(invariants::issuances_have_claims(stores, &campaign, totals, witness.as_ref()).await?);
    checks.push(invariants::assignments_say_what_is(stores, &campaign).await?);
    checks.push(invariants::at_rest(stores, &campaign, totals, (counts, claims)).await?);
    if let Some(witness) = witness {
        checks.push(witness.per_user(campaign.terms.per_user_limit));
        checks.push(witness.outcomes(pool, coupon).await?);
        checks.push(witness.answers());
    }
    Ok(Findings { subject: format!("coupon {coupon}, '{}'", campaign.terms.name), checks })
}
