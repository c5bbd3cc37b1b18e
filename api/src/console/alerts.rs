//! What a person on duty should look at now. A pure function of what was read.

use chrono::TimeDelta;
use dibs_common::{domain::campaign::CampaignStatus, live::ProcessKind};

use super::{
    snapshot::{LiveCampaign, Snapshot},
    words::Words,
};

/// A claim that waits longer for its coupon.
const SLOW_CONFIRM_MILLIS: u64 = 5_000;
/// An event that waits longer for a sink.
const SLOW_DELIVERY: TimeDelta = TimeDelta::seconds(60);
/// A sink that no process has served for longer; each marks it twice a minute.
const UNSERVED: TimeDelta = TimeDelta::seconds(90);
/// A campaign that opens sooner has to be in Redis.
const HELD_BEFORE: TimeDelta = TimeDelta::minutes(10);
const MAX_ALERTS: usize = 20;

/// Something that is wrong now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Claims or data are at risk; otherwise something is degraded.
    pub is_severe: bool,
    /// The key of its text below `alert.`.
    pub key: &'static str,
    /// What stands for `{0}` and `{1}` in the text.
    pub values: [String; 2],
    /// The page that shows more.
    pub path: String,
}

impl Alert {
    fn new(is_severe: bool, key: &'static str, values: [String; 2], path: impl Into<String>) -> Self {
        Self { is_severe, key, values, path: path.into() }
    }

    pub fn text(&self, words: &Words) -> String {
        let text = words.named("alert", self.key);
        text.replace("{0}", &self.values[0]).replace("{1}", &self.values[1])
    }
}

/// The severe ones first.
pub fn holding(snapshot: &Snapshot) -> Vec<Alert> {
    let nothing = || [String::new(), String::new()];
    let mut alerts = Vec::new();
    if snapshot.mysql.is_some() {
        alerts.push(Alert::new(true, "mysql_down", nothing(), "/console"));
    }
    if snapshot.redis.is_some() {
        alerts.push(Alert::new(true, "redis_down", nothing(), "/console"));
    } else {
        if snapshot.count(ProcessKind::Worker) == 0 {
            alerts.push(Alert::new(true, "no_worker", nothing(), "/console"));
        }
        let missing: Vec<String> = snapshot.missing().map(|process| process.host.clone()).collect();
        if !missing.is_empty() {
            let values = [missing.len().to_string(), missing[0].clone()];
            alerts.push(Alert::new(false, "process_missing", values, "/console"));
        }
        alerts.extend(snapshot.campaigns.iter().flat_map(|campaign| of_campaign(campaign, snapshot)));
    }
    of_sinks(snapshot, &mut alerts);
    if snapshot.dead_letters > 0 {
        let values = [snapshot.dead_letters.to_string(), String::new()];
        alerts.push(Alert::new(false, "dead_letters", values, "/console/dead-letters"));
    }
    alerts.sort_by_key(|alert| !alert.is_severe);
    alerts.truncate(MAX_ALERTS);
    alerts
}

fn of_campaign(live: &LiveCampaign, snapshot: &Snapshot) -> Vec<Alert> {
    let (name, path) = (&live.campaign.terms.name, format!("/console/campaigns/{}", live.campaign.id));
    let mut alerts = Vec::new();
    let is_soon = live.campaign.terms.opens_at <= snapshot.at + HELD_BEFORE;
    if live.claimed.is_none() && is_soon && live.status != CampaignStatus::Closed {
        alerts.push(Alert::new(true, "not_held", [name.clone(), String::new()], path.clone()));
    }
    if let Some((_, waits)) = live.backlog.filter(|(_, waits)| *waits > SLOW_CONFIRM_MILLIS)
        && live.unconfirmed > 0
    {
        alerts.push(Alert::new(true, "slow_confirm", [name.clone(), (waits / 1_000).to_string()], path.clone()));
    }
    let differences = live.drift.as_ref().map_or(0, |drift| drift.differences);
    if differences > 0 {
        alerts.push(Alert::new(true, "drift", [name.clone(), differences.to_string()], path.clone()));
    }
    if !live.different_terms.is_empty() {
        alerts.push(Alert::new(false, "terms_differ", [name.clone(), live.different_terms.join(", ")], path));
    }
    alerts
}

fn of_sinks(snapshot: &Snapshot, alerts: &mut Vec<Alert>) {
    for sink in &snapshot.sinks {
        let (name, path) = (sink.row.name.clone(), "/console/delivery");
        let report = sink.report.as_ref();
        let is_unserved = snapshot.at - sink.row.updated_at > UNSERVED;
        if report.is_some_and(|report| report.is_circuit_open) {
            alerts.push(Alert::new(true, "circuit_open", [name.clone(), String::new()], path));
        } else if report.is_some_and(|report| report.is_failing) {
            alerts.push(Alert::new(false, "sink_failing", [name.clone(), String::new()], path));
        } else if is_unserved {
            alerts.push(Alert::new(false, "sink_unserved", [name.clone(), String::new()], path));
        }
        if sink.lag > SLOW_DELIVERY && !is_unserved {
            alerts.push(Alert::new(false, "slow_delivery", [name, sink.lag.num_seconds().to_string()], path));
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono_tz::Asia::Seoul;
    use dibs_common::{
        clock::{Timestamp, from_millis},
        db::console::SinkRow,
        live::{ProcessReport, SinkReport},
    };

    use super::*;
    use crate::console::snapshot::LiveSink;

    const fn seconds(seconds: i64) -> TimeDelta {
        TimeDelta::seconds(seconds)
    }

    fn now() -> Timestamp {
        from_millis(1_790_000_000_000)
    }

    fn process(kind: ProcessKind, at: Timestamp) -> ProcessReport {
        let version = "0".to_owned();
        ProcessReport { kind, host: "host".into(), pid: 1, version, started_at: at, at, sinks: vec![] }
    }

    fn snapshot() -> Snapshot {
        Snapshot {
            at: now(),
            zone: Seoul,
            campaigns: vec![],
            has_more: false,
            processes: vec![process(ProcessKind::Worker, now())],
            mysql: None,
            redis: None,
            sinks: vec![],
            dead_letters: 0,
            alerts: vec![],
        }
    }

    fn sink(change: impl FnOnce(&mut LiveSink)) -> LiveSink {
        let report = SinkReport {
            name: "kafka".into(),
            served_at: now(),
            is_circuit_open: false,
            is_failing: false,
            last_error: None,
            last_error_at: None,
        };
        let row = SinkRow {
            name: "kafka".into(),
            delivered_through: 1,
            last_sequence: 1,
            waiting_since: None,
            updated_at: now(),
            queued: 0,
        };
        let mut sink = LiveSink { row, report: Some(report), lag: seconds(0), rate: None, test: None };
        change(&mut sink);
        sink
    }

    fn keys(change: impl FnOnce(&mut Snapshot)) -> Vec<&'static str> {
        let mut snapshot = snapshot();
        change(&mut snapshot);
        holding(&snapshot).into_iter().map(|alert| alert.key).collect()
    }

    #[test]
    fn nothing_is_wrong_with_a_shop_that_works() {
        assert_eq!(keys(|snapshot| snapshot.sinks.push(sink(|_| ()))), Vec::<&str>::new());
    }

    #[test]
    fn what_is_wrong_is_named_and_the_severe_comes_first() {
        assert_eq!(keys(|snapshot| snapshot.processes.clear()), ["no_worker"]);
        assert_eq!(keys(|snapshot| snapshot.mysql = Some("down".into())), ["mysql_down"]);
        assert_eq!(
            keys(|snapshot| {
                snapshot.processes.clear();
                snapshot.redis = Some("down".into());
            }),
            ["redis_down"],
            "without Redis nothing is known of processes"
        );
        let missing = process(ProcessKind::Api, now() - seconds(6));
        let both = keys(|snapshot| {
            snapshot.processes.push(missing);
            snapshot.dead_letters = 3;
            snapshot.sinks.push(sink(|sink| sink.report.as_mut().expect("a report").is_circuit_open = true));
        });
        assert_eq!(both, ["circuit_open", "process_missing", "dead_letters"]);
        assert_eq!(keys(|snapshot| snapshot.sinks.push(sink(|sink| sink.lag = seconds(61)))), ["slow_delivery"]);
        let unserved = sink(|sink| sink.row.updated_at = now() - seconds(91));
        assert_eq!(keys(|snapshot| snapshot.sinks.push(unserved)), ["sink_unserved"]);
    }
}
