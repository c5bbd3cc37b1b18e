use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use fred::{clients::Client, interfaces::HashesInterface as _};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::sinks::SinkReport;
use crate::{clock::Timestamp, error::Result, redis::Redis};

/// A process whose last report is older is missing.
pub const MISSING_AFTER: TimeDelta = TimeDelta::seconds(5);
/// So long after its last report a process is forgotten.
const FORGOTTEN_AFTER: TimeDelta = TimeDelta::minutes(15);
/// Processes that are kept; of more, those with the latest reports.
const MAX_PROCESSES: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, strum::IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase", const_into_str)]
pub enum ProcessKind {
    Api,
    Worker,
}

/// What a process says of itself once a second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessReport {
    pub kind: ProcessKind,
    pub host: String,
    pub pid: u32,
    pub version: String,
    #[serde(serialize_with = "crate::clock::serialize")]
    pub started_at: DateTime<Utc>,
    /// By the clock of the process.
    #[serde(serialize_with = "crate::clock::serialize")]
    pub at: DateTime<Utc>,
    /// Those that the process has served.
    #[serde(default)]
    pub sinks: Vec<SinkReport>,
}

impl ProcessReport {
    pub fn is_missing(&self, now: Timestamp) -> bool {
        now - self.at > MISSING_AFTER
    }
}

/// Every process that reported in the last minutes, the API first, then by host and process id.
pub async fn list_processes(redis: &Redis) -> Result<Vec<ProcessReport>> {
    let mut reports: Vec<ProcessReport> = read(redis).await?.into_iter().filter_map(|(_, report)| report).collect();
    reports.sort_by(|one, other| (one.kind, &one.host, one.pid).cmp(&(other.kind, &other.host, other.pid)));
    reports.truncate(MAX_PROCESSES);
    Ok(reports)
}

/// A report that another version wrote and this one cannot read is none.
async fn read(redis: &Redis) -> Result<Vec<(String, Option<ProcessReport>)>> {
    let key = redis.keys.live_processes();
    let fields: HashMap<String, String> = redis.run(&key, async |client: Client| client.hgetall(&key).await).await?;
    let read = |(id, report): (String, String)| (id, serde_json::from_str(&report).ok());
    Ok(fields.into_iter().map(read).collect())
}

pub(super) async fn write(redis: &Redis, id: Uuid, report: &ProcessReport) -> Result<()> {
    let key = redis.keys.live_processes();
    let field = (id.to_string(), serde_json::to_string(report).unwrap_or_default());
    redis.run(&key, async |client: Client| client.hset::<(), _, _>(&key, field.clone()).await).await
}

pub(super) async fn remove(redis: &Redis, ids: Vec<String>) -> Result<()> {
    let key = redis.keys.live_processes();
    redis.run(&key, async |client: Client| client.hdel::<(), _, _>(&key, ids.clone()).await).await
}

/// Removes the reports of processes that are long gone, and those beyond the bound.
pub(super) async fn prune(redis: &Redis, now: Timestamp) -> Result<()> {
    let gone = surplus(read(redis).await?, now);
    if gone.is_empty() { Ok(()) } else { remove(redis, gone).await }
}

fn surplus(mut reports: Vec<(String, Option<ProcessReport>)>, now: Timestamp) -> Vec<String> {
    let at = |report: &Option<ProcessReport>| report.as_ref().map(|report| report.at);
    reports.sort_by_key(|(_, report)| std::cmp::Reverse(at(report)));
    let is_gone = |report: &Option<ProcessReport>| at(report).is_none_or(|at| now - at > FORGOTTEN_AFTER);
    let listed = reports.into_iter().enumerate();
    listed.filter(|(place, (_, report))| *place >= MAX_PROCESSES || is_gone(report)).map(|(_, (id, _))| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::from_millis;

    fn report(seconds: i64) -> ProcessReport {
        let at = from_millis(seconds * 1_000);
        ProcessReport {
            kind: ProcessKind::Api,
            host: "a".into(),
            pid: 1,
            version: "0".into(),
            started_at: at,
            at,
            sinks: vec![],
        }
    }

    #[test]
    fn the_gone_the_unreadable_and_those_beyond_the_bound_are_removed() {
        let mut reports: Vec<_> = (0..70).map(|n| (format!("new{n}"), Some(report(10_000 + n)))).collect();
        reports.push(("gone".into(), Some(report(9_000))));
        reports.push(("unreadable".into(), None));
        let mut removed = surplus(reports, from_millis(10_100_000));
        removed.sort();
        let expected = ["gone", "new0", "new1", "new2", "new3", "new4", "new5", "unreadable"];
        assert_eq!(removed, expected);
    }

    #[test]
    fn a_process_is_missing_after_five_seconds() {
        let report = report(100);
        assert!(!report.is_missing(from_millis(105_000)));
        assert!(report.is_missing(from_millis(105_001)));
    }
}
