use std::time::Duration;

use fred::{
    clients::Client,
    interfaces::{HashesInterface as _, KeysInterface as _},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    counters::{Counted, take_all},
    processes::{self, ProcessKind, ProcessReport},
    series::{Field, KEPT_SECONDS},
    sinks,
};
use crate::{
    clock::{self, Timestamp},
    error::Result,
    identifiers::{CouponId, new_uuid},
    redis::Redis,
    retry,
    supervisor::{Lifetime, Supervisor, Task},
};

const INTERVAL: Duration = Duration::from_secs(1);
/// Reports between two removals of what is old.
const PRUNE_EVERY: u32 = 60;
/// Campaigns of one report; those that count most.
const MAX_CAMPAIGNS: usize = 64;

/// A task that reports what this process counts, once a second.
pub fn report_task(kind: ProcessKind, redis: &Redis, supervisor: &Supervisor) -> Task {
    let (redis, stopping) = (redis.clone(), supervisor.stopping.clone());
    let reporter = Reporter { redis, kind, id: new_uuid(), host: host(), started_at: clock::now() };
    Task::new("live_report", Lifetime::UntilStopping, move || reporter.clone().run(stopping.clone()))
}

#[derive(Clone)]
struct Reporter {
    redis: Redis,
    kind: ProcessKind,
    id: Uuid,
    host: String,
    started_at: Timestamp,
}

impl Reporter {
    async fn run(self, stopping: CancellationToken) -> Result<()> {
        let mut rounds = retry::every(INTERVAL, &stopping);
        for round in 0u32.. {
            if !rounds.next().await {
                break;
            }
            if let Err(error) = self.report(round).await {
                tracing::debug!(cause = error.chain(), "live counts not reported");
            }
        }
        // A process that ends in order is not missing.
        if let Err(error) = processes::remove(&self.redis, vec![self.id.to_string()]).await {
            tracing::debug!(cause = error.chain(), "live report not removed");
        }
        Ok(())
    }

    async fn report(&self, round: u32) -> Result<()> {
        let now = clock::now();
        let mut counted = take_all();
        counted.sort_by_key(|(_, counted)| std::cmp::Reverse(counted.accepted + counted.refused + counted.confirmed));
        counted.truncate(MAX_CAMPAIGNS);
        for (coupon, counted) in counted {
            self.add(coupon, &counted, now).await?;
        }
        let report = ProcessReport {
            kind: self.kind,
            host: self.host.clone(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            started_at: self.started_at,
            at: now,
            sinks: if self.kind == ProcessKind::Worker { sinks::list() } else { Vec::new() },
        };
        processes::write(&self.redis, self.id, &report).await?;
        if round.is_multiple_of(PRUNE_EVERY) {
            processes::prune(&self.redis, now).await?;
        }
        Ok(())
    }

    async fn add(&self, coupon: CouponId, counted: &Counted, now: Timestamp) -> Result<()> {
        let seconds = now.timestamp();
        let key = self.redis.keys.live_campaign(coupon, seconds.div_euclid(60));
        let fields = Field::of(counted, seconds.rem_euclid(60));
        let add = async |client: Client| {
            // One round trip for all fields.
            let pipeline = client.pipeline();
            for (field, count) in &fields {
                pipeline.hincrby::<(), _, _>(&key, field.as_str(), *count).await?;
            }
            pipeline.expire::<(), _>(&key, KEPT_SECONDS, None).await?;
            pipeline.last::<()>().await
        };
        self.redis.run(&key, add).await
    }
}

/// The name of the machine or container.
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.trim().chars().take(64).collect();
    if name.is_empty() { "unknown".into() } else { name }
}
