//! A backlog of accepted claims: its memory in Redis, and how fast a worker confirms it, next to plain INSERTs.

use std::time::Duration;

use anyhow::Result;
use hyper::StatusCode;
use tokio::time::sleep;

use super::{
    baseline_inserts::{self, StatementProtocol},
    client::{ClientPool, StopCondition, Target, closed_loop},
    harness::Harness,
    progress,
};
use crate::numbers::real;

const QUANTITY: u32 = 2_000_000_000;
/// Redis frees memory lazily: INFO is read after this time.
const MEMORY_SETTLE_TIME: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, Default)]
pub struct BacklogRounds {
    /// Rows a second that the worker confirmed.
    pub confirmed: Vec<f64>,
    /// Rows a second of plain INSERTs, as prepared statements.
    pub prepared: Vec<f64>,
    /// Rows a second of plain INSERTs, in the text protocol.
    pub text: Vec<f64>,
    pub bytes_per_claim: MemoryRounds,
}

#[derive(Clone, Debug, Default)]
pub struct MemoryRounds {
    /// While the entry of the claim is on the stream.
    pub on_stream: Vec<f64>,
    /// After the claim is confirmed.
    pub confirmed: Vec<f64>,
}

/// Creates a backlog of `claims` and lets a worker confirm it; then inserts the same rows plainly if `with_inserts`.
pub async fn measure(
    harness: &mut Harness,
    clients: ClientPool,
    claims: u64,
    with_inserts: bool,
    rounds: &mut BacklogRounds,
) -> Result<()> {
    let campaign = harness.open_campaign(QUANTITY).await?;
    let before = settled_memory(harness).await?;
    let address = harness.api_address();
    let target = Target { address, request: campaign.request(), first_user: 1, expected: StatusCode::ACCEPTED };
    // The claims go through the API, so the entries are those that it writes.
    closed_loop(target, clients, StopCondition::Requests(claims)).await?;
    let on_stream = settled_memory(harness).await?;
    rounds.bytes_per_claim.on_stream.push(real(on_stream.saturating_sub(before)) / real(claims));

    // Not started before: the backlog must be complete when the worker begins.
    harness.launch_worker()?;
    let stores = harness.stores.clone();
    let confirmed = async || Ok(stores.campaign(campaign.coupon).await?.issued.into());
    rounds.confirmed.push(progress::processing_rate(harness, "confirmed claims", claims, confirmed).await?);
    harness.until_drained(campaign).await?;
    harness.stop_worker().await?;
    let confirmed = settled_memory(harness).await?;
    rounds.bytes_per_claim.confirmed.push(real(confirmed.saturating_sub(before)) / real(claims));

    if with_inserts {
        let pool = &harness.stores.database.pool();
        let rows = baseline_inserts::read_rows(pool, campaign.coupon).await?;
        rounds.prepared.push(baseline_inserts::insert(pool, &rows, StatementProtocol::Prepared).await?);
        rounds.text.push(baseline_inserts::insert(pool, &rows, StatementProtocol::Text).await?);
    }
    harness.retire(campaign).await
}

async fn settled_memory(harness: &Harness) -> Result<u64> {
    sleep(MEMORY_SETTLE_TIME).await;
    harness.redis_memory().await
}
