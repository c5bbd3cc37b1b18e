use std::collections::BTreeSet;

use dibs_common::metric_table::METRICS;

use crate::{read, sources::files};

/// A call of a macro of the crate `metrics`.
struct Call {
    place: String,
    kind: &'static str,
    name: String,
    /// None where labels come from a variable.
    labels: Option<Vec<String>>,
}

#[test]
fn every_metric_of_the_source_is_in_the_table_and_the_other_way_round() {
    let calls = calls();
    for call in &calls {
        let Call { place, kind, name, labels } = call;
        let metric = METRICS.iter().find(|metric| metric.name == name);
        let metric = metric.unwrap_or_else(|| panic!("{place}: {name} is not in common/src/metric_table.rs"));
        assert_eq!(*kind, metric.kind.to_string(), "{place}: the kind of {name}");
        if let Some(labels) = labels {
            assert_eq!(*labels, metric.labels, "{place}: the labels of {name}");
        }
    }
    let called: BTreeSet<&str> = calls.iter().map(|call| call.name.as_str()).collect();
    let unused: Vec<&str> = METRICS.iter().map(|metric| metric.name).filter(|name| !called.contains(name)).collect();
    assert!(unused.is_empty(), "in common/src/metric_table.rs, but nothing records them: {unused:?}");
}

#[test]
fn operations_md_lists_the_metrics_of_the_table() {
    let expected: Vec<String> = METRICS
        .iter()
        .map(|metric| {
            let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            format!("| `{}` | {} | {} | {} |", metric.name, metric.kind, labels.join(", "), metric.help)
        })
        .collect();
    let document = read("docs/operations.md");
    let found: Vec<&str> = document.lines().filter(|line| line.starts_with("| `dibs_")).collect();
    assert!(found == expected, "docs/operations.md: expected these rows:\n{}", expected.join("\n"));
}

#[test]
fn names_follow_the_conventions_of_prometheus() {
    for metric in METRICS {
        let name = metric.name;
        let kind = metric.kind.to_string();
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name}: counters end with _total, others do not");
        if kind == "histogram" {
            assert!(
                name.ends_with("_seconds") || name.ends_with("_size"),
                "{name}: a histogram has buckets by its unit"
            );
        }
        assert!(metric.help.ends_with('.') && metric.help.len() > 10, "{name} has a sentence of HELP");
    }
}

fn calls() -> Vec<Call> {
    let mut calls = Vec::new();
    for (path, text) in files(&["api/src", "common/src", "worker/src"], &[".rs"]) {
        for kind in ["counter", "gauge", "histogram"] {
            let opening = format!("{kind}!(");
            for (at, _) in text.match_indices(&opening) {
                let before = text[..at].chars().next_back();
                let arguments = arguments(&text[at + opening.len()..]);
                // `describe_counter!`, and names that are no literals.
                if before == Some('_') || !arguments.trim_start().starts_with("\"dibs_") {
                    continue;
                }
                let line = text[..at].lines().count();
                let mut literals = arguments.split('"').skip(1).step_by(2);
                let name = literals.next().expect("a name").to_owned();
                let labels = (!arguments.contains("&labels")).then(|| labels(arguments));
                calls.push(Call { place: format!("{path}:{line}"), kind, name, labels });
            }
        }
    }
    assert!(calls.len() > 30, "the calls of metrics are found");
    calls
}

/// Up to the parenthesis that closes the call.
fn arguments(text: &str) -> &str {
    let mut depth = 1;
    let end = text.find(|c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        depth == 0
    });
    &text[..end.expect("a closing parenthesis")]
}

/// The literals before `=>`.
fn labels(arguments: &str) -> Vec<String> {
    let sides: Vec<&str> = arguments.split("=>").collect();
    let last_literal = |side: &&str| side.rsplit('"').nth(1).expect("a label").to_owned();
    sides[..sides.len() - 1].iter().map(last_literal).collect()
}
