//! The audit of a drained stack: compares MySQL, Redis and the record of a client. Campaigns here, the shop in
//! [`shop`].
//!
//! Counts are compared by aggregates, single claims in batches in both directions: every claim in Redis must have its
//! row, and every row its claim. Memory does not grow with the size of a campaign.

mod check;
mod client;
mod invariants;
mod redis_claims;
mod rows;
mod shop;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
pub use check::{AuditReport, Check};
use clap::Args;
use client::ClientAudit;
use dibs_common::{identifiers::CouponId, redis::campaign_state};
pub use shop::{Evidence, ShopSettings, audit_shop, audit_shop_drained, last_sequence, until_drained};

use crate::{
    RunStatus,
    numbers::grouped,
    output,
    record::{ClientRecord, Deliveries},
    stores::{StoreArguments, Stores},
    wait,
};

/// Claims in one query.
const BATCH_SIZE: usize = 1000;
/// Campaigns in one query.
const CAMPAIGN_PAGE: u32 = 100;

#[derive(Debug, Args)]
pub struct AuditArguments {
    /// Audit only the campaign with this id; the shop and all campaigns when left out
    #[arg(long, value_parser = coupon_id)]
    pub coupon: Option<CouponId>,
    #[command(flatten)]
    pub settings: ShopSettings,
    /// Also compare the events with this record of `dibs-loadtest receiver --record`
    #[arg(long)]
    pub deliveries: Option<PathBuf>,
    /// Seconds to wait for the worker to drain the streams; what is left then is a difference
    #[arg(long, default_value_t = 30)]
    pub wait_seconds: u64,
    /// MySQL and Redis of the stack.
    #[command(flatten)]
    pub stores: StoreArguments,
}

fn coupon_id(text: &str) -> Result<CouponId, String> {
    CouponId::try_from(text.parse::<u64>().map_err(|error| error.to_string())?)
}

/// Audits one campaign, or the shop and all campaigns, and prints the reports.
pub async fn run(arguments: AuditArguments) -> Result<RunStatus> {
    let stores = Stores::connect(&arguments.stores).await?;
    let timeout = Duration::from_secs(arguments.wait_seconds);
    let differences = if let Some(coupon) = arguments.coupon {
        audit_and_print(&stores, coupon, timeout).await?
    } else {
        let deliveries = arguments.deliveries.as_deref().map(Deliveries::read).transpose()?;
        let evidence = Evidence { client: None, deliveries: deliveries.as_ref() };
        audit_everything(&stores, timeout, arguments.settings, evidence).await?
    };
    Ok(conclude(differences))
}

/// Audits the shop and all campaigns, prints the reports, and returns the differences.
pub async fn audit_everything(
    stores: &Stores,
    timeout: Duration,
    settings: ShopSettings,
    evidence: Evidence<'_>,
) -> Result<u64> {
    let shop = audit_shop_drained(stores, timeout, settings, evidence).await?;
    output::line(&shop.render());
    Ok(shop.differences() + audit_all_campaigns(stores, timeout).await?)
}

/// Prints the last line of the report.
pub fn conclude(differences: u64) -> RunStatus {
    if differences == 0 {
        output::line("\nno differences");
        RunStatus::Passed
    } else {
        output::line(&format!("\n{} differences, see above", grouped(differences)));
        RunStatus::Failed
    }
}

async fn audit_all_campaigns(stores: &Stores, timeout: Duration) -> Result<u64> {
    let (mut differences, mut after) = (0, 0);
    loop {
        let ids = rows::coupon_ids(&stores.database.pool(), after, CAMPAIGN_PAGE).await?;
        // Pages by id: campaigns that are created meanwhile come last.
        let Some(&last) = ids.last() else { return Ok(differences) };
        for id in ids {
            let coupon = CouponId::try_from(id).map_err(anyhow::Error::msg)?;
            differences += audit_and_print(stores, coupon, timeout).await?;
        }
        after = last;
    }
}

async fn audit_and_print(stores: &Stores, coupon: CouponId, timeout: Duration) -> Result<u64> {
    let report = audit_drained(stores, coupon, timeout, None).await?;
    output::line(&report.render());
    Ok(report.differences())
}

/// Waits until the claim stream of the campaign's partition is empty, at most `timeout`, then audits the campaign.
pub async fn audit_drained(
    stores: &Stores,
    coupon: CouponId,
    timeout: Duration,
    client: Option<&ClientRecord>,
) -> Result<AuditReport> {
    until_confirmed(stores, coupon, timeout).await?;
    audit(stores, coupon, client).await
}

/// Waits until the claim stream of the campaign's partition is empty, at most `timeout`.
pub async fn until_confirmed(stores: &Stores, coupon: CouponId, timeout: Duration) -> Result<()> {
    let campaign = stores.campaign(coupon).await?;
    // A timeout is no error: the audit reports a stream that is not empty.
    let _timed_out = wait::until("an empty claim stream", timeout, Duration::from_millis(50), async || {
        Ok(stores.backlog(campaign.partition).await? == 0)
    })
    .await;
    Ok(())
}

/// Audits a campaign, and compares it with the record of a client.
pub async fn audit(stores: &Stores, coupon: CouponId, client: Option<&ClientRecord>) -> Result<AuditReport> {
    let campaign = stores.campaign(coupon).await?;
    let pool = &stores.database.pool();
    let totals = rows::totals(pool, coupon).await?;
    // One after the other, not in one snapshot: the stack is drained, so nothing changes in between.
    let counts = campaign_state::counts(&stores.redis, campaign.partition, coupon)
        .await
        .context("reading the counts of a campaign in Redis")?;
    let client = client.map(ClientAudit::new);
    let mut checks = vec![invariants::quantity(&campaign, totals, counts)];
    checks.push(invariants::per_user(stores, &campaign).await?);
    let (outcomes, claims) = invariants::claims_have_outcomes(stores, &campaign).await?;
    checks.push(outcomes);
    checks.push(invariants::issuances_have_claims(stores, &campaign, totals, client.as_ref()).await?);
    checks.push(invariants::assignments_match(stores, &campaign).await?);
    checks.push(invariants::stores_agree(stores, &campaign, totals, counts, claims).await?);
    if let Some(client) = client {
        checks.push(client.per_user(campaign.terms.per_user_limit));
        checks.push(client.outcomes(pool, coupon).await?);
        checks.push(client.responses());
    }
    Ok(AuditReport { subject: format!("coupon {coupon}, '{}'", campaign.terms.name), checks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audit_passes_without_differences_only() {
        assert_eq!([0, 1, 1_000].map(conclude), [RunStatus::Passed, RunStatus::Failed, RunStatus::Failed]);
    }

    #[test]
    fn the_id_of_a_campaign_is_a_positive_integer() {
        assert_eq!(coupon_id("7").map(CouponId::get), Ok(7));
        assert!(["0", "-1", "x", ""].into_iter().all(|text| coupon_id(text).is_err()));
    }
}
