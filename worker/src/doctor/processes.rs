use std::collections::{BTreeMap, BTreeSet};

use dibs_common::db::processes::Running;

use super::{Finding, Status, clock_finding};

pub fn check(running: &[Running]) -> Vec<Finding> {
    let mut findings = vec![presence(running), shared_settings(running)];
    let furthest = running.iter().max_by_key(|process| process.clock_offset_ms.abs());
    findings.extend(furthest.map(|process| {
        clock_finding(&format!("clock of {} {}", process.program, process.address), process.clock_offset_ms)
    }));
    findings
}

/// The processes, such as `2 dibs-api 0.1.0, 1 dibs-worker 0.1.0`.
pub fn describe_all(running: &[Running]) -> String {
    let mut counts: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for process in running {
        *counts.entry((&process.program, &process.version)).or_default() += 1;
    }
    let described: Vec<String> =
        counts.iter().map(|((program, version), count)| format!("{count} {program} {version}")).collect();
    if described.is_empty() { "none".into() } else { described.join(", ") }
}

fn presence(running: &[Running]) -> Finding {
    let programs: BTreeSet<&str> = running.iter().map(|process| process.program.as_str()).collect();
    let versions: BTreeSet<&str> = running.iter().map(|process| process.version.as_str()).collect();
    Finding::new("processes", describe_all(running), "at least one API and one worker, of one version")
        .unless(programs.len() == 2, Status::Warning, "start dibs-api and dibs-worker run")
        .unless(versions.len() <= 1, Status::Warning, "finish the upgrade: workers first, then APIs")
}

/// The processes must not contradict each other: a worker with fewer partitions leaves commands of the API unread.
fn shared_settings(running: &[Running]) -> Finding {
    let mut values: BTreeMap<&str, BTreeMap<&str, Vec<String>>> = BTreeMap::new();
    for process in running {
        for (name, value) in &process.settings {
            let of = format!("{} {}", process.program, process.address);
            values.entry(name).or_default().entry(value).or_default().push(of);
        }
    }
    let differing: Vec<String> = values
        .into_iter()
        .filter(|(_, values)| values.len() > 1)
        .map(|(name, values)| {
            let values = values.into_iter().map(|(value, of)| format!("{value:?} of {}", of.join(" and ")));
            format!("{name}: {}", values.collect::<Vec<_>>().join(", "))
        })
        .collect();
    let found = if differing.is_empty() { "they agree".into() } else { differing.join("; ") };
    Finding::new("shared settings", found, "CLAIM_PARTITIONS and the like are the same for all processes").unless(
        differing.is_empty(),
        Status::Error,
        "give all processes the same value and restart them, workers first where CLAIM_PARTITIONS rises",
    )
}
