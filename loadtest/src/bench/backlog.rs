//! A backlog of accepted claims: what it costs in Redis, and how fast a worker confirms it beside bare inserts.

use std::time::Duration;

use anyhow::{Result, bail};
use hyper::StatusCode;
use tokio::time::{Instant, sleep};

use super::{
    bare_inserts::{self, Way},
    client::{ClientPool, Extent, Target, closed_loop},
    harness::{Harness, Subject},
};
use crate::numbers::{per_second, real};

const CONFIRM_LIMIT: Duration = Duration::from_mins(5);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// For Redis to free what it frees by and by.
const SETTLING: Duration = Duration::from_secs(1);

/// What the rounds gave.
#[derive(Clone, Debug, Default)]
pub struct BacklogRounds {
    /// Rows a second that the worker confirmed, from the first commit seen to the last.
    pub confirmed: Vec<f64>,
    /// Rows a second of bare inserts as prepared statements.
    pub prepared: Vec<f64>,
    /// Rows a second of bare inserts as text.
    pub text: Vec<f64>,
    /// Bytes of Redis for each claim, its entry on the stream.
    pub bytes_on_stream: Vec<f64>,
    /// Bytes of Redis for each claim once it is confirmed.
    pub bytes_confirmed: Vec<f64>,
}

/// Makes a backlog of `claims`, lets a worker confirm it, and inserts the same rows barely if `with_inserts`.
pub async fn measure(
    rig: &mut Harness,
    crowd: ClientPool,
    claims: u64,
    with_inserts: bool,
    rounds: &mut BacklogRounds,
) -> Result<()> {
    let subject = rig.open_campaign(2_000_000_000).await?;
    let before = settled_memory(rig).await?;
    let target =
        Target { address: rig.api_address(), call: subject.call(), first_user: 1, expected: StatusCode::ACCEPTED };
    closed_loop(target, crowd, Extent::Count(claims)).await?;
    let on_stream = settled_memory(rig).await?;
    rounds.bytes_on_stream.push(real(on_stream.saturating_sub(before)) / real(claims));

    rig.launch_worker()?;
    rounds.confirmed.push(watch_confirmation(rig, subject, claims).await?);
    rig.until_drained(subject).await?;
    rig.stop_worker().await?;
    let confirmed = settled_memory(rig).await?;
    rounds.bytes_confirmed.push(real(confirmed.saturating_sub(before)) / real(claims));

    if with_inserts {
        let rows = bare_inserts::read_rows(rig.stores.database.pool(), subject.coupon).await?;
        rounds.prepared.push(bare_inserts::insert(rig.stores.database.pool(), &rows, Way::Prepared).await?);
        rounds.text.push(bare_inserts::insert(rig.stores.database.pool(), &rows, Way::Text).await?);
    }
    rig.retire(subject).await
}

async fn settled_memory(rig: &Harness) -> Result<u64> {
    sleep(SETTLING).await;
    rig.redis_memory().await
}

/// Rows a second from the first commit seen to the last.
async fn watch_confirmation(rig: &mut Harness, subject: Subject, claims: u64) -> Result<f64> {
    let end = Instant::now() + CONFIRM_LIMIT;
    let mut first = None;
    loop {
        let confirmed = rig.confirmed(subject).await?;
        let now = Instant::now();
        if confirmed > 0 && first.is_none() {
            first = Some((confirmed, now));
        }
        if let (Some((rows, moment)), true) = (first, confirmed >= claims) {
            return Ok(per_second(confirmed - rows, now - moment));
        }
        if now >= end {
            bail!("{confirmed} of {claims} claims confirmed in {} s", CONFIRM_LIMIT.as_secs());
        }
        rig.expect_alive()?;
        sleep(LOOK_EVERY).await;
    }
}
