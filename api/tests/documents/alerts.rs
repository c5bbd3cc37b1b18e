//! Alerts and dashboards name metrics that exist, and every alert says what to do.

use std::collections::BTreeSet;

use dibs_common::metric_table::{Kind, METRICS};

use crate::{links::headings, read, sources::files};

const RULES: &str = "deploy/prometheus/alerts.yml";
const CASES: &str = "deploy/prometheus/alerts_test.yml";
const RUNBOOKS: &str = "docs/operations.md";
/// What an adapter makes of the metrics of backlogs, for autoscaling.
const ADAPTED: &str = "dibs_backlog_entries";

#[test]
fn what_is_watched_is_measured() {
    let series: BTreeSet<String> = METRICS
        .iter()
        .flat_map(|metric| {
            let endings: &[&str] = if metric.kind == Kind::Histogram { &["_bucket", "_sum", "_count"] } else { &[""] };
            endings.iter().map(|ending| format!("{}{ending}", metric.name))
        })
        .collect();
    let mut watched = BTreeSet::new();
    let mut unknown = Vec::new();
    for (path, text) in files(&["deploy"], &[".yml", ".yaml", ".json"]) {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for name in words.filter(|word| word.starts_with("dibs_") && *word != ADAPTED) {
            watched.insert(name.to_owned());
            if !series.contains(name) {
                unknown.push(format!("{path}: {name}"));
            }
        }
    }
    assert!(watched.len() > 30, "the names are found: {watched:?}");
    assert!(unknown.is_empty(), "not in common/src/metric_table.rs: {}", unknown.join(", "));
}

#[test]
fn every_alert_has_cases_and_says_what_to_do() {
    let (rules, cases, runbooks) = (read(RULES), read(CASES), headings(&read(RUNBOOKS)));
    let mut alerts = BTreeSet::new();
    for rule in rules.split("- alert: ").skip(1) {
        let name = rule.lines().next().unwrap_or_default();
        let anchor = name.to_lowercase();
        let runbook = format!("runbook: {RUNBOOKS}#{anchor}");
        assert!(rule.lines().any(|line| line.trim() == runbook), "{RULES}: {name} has no {runbook}");
        assert!(runbooks.contains(&anchor), "{RUNBOOKS} has no heading {name}");
        // Only a case in which the alert fires has its annotations.
        assert!(cases.contains(&runbook), "{CASES}: there is no case in which {name} fires");
        alerts.insert(anchor);
    }
    assert!(alerts.len() > 10, "the alerts are found: {alerts:?}");
    let gone = runbooks.iter().filter(|heading| heading.starts_with("dibs") && !heading.contains('-'));
    let gone: Vec<_> = gone.filter(|heading| !alerts.contains(*heading)).collect();
    assert!(gone.is_empty(), "{RUNBOOKS} has headings of alerts that are not in {RULES}: {gone:?}");
}
