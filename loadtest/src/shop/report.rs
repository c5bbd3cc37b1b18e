//! The report of a shop run.

use super::ShopResult;
use crate::{
    latency::Latencies,
    numbers::{grouped, grouped_rate, per_second},
    output::Table,
};

/// Rates and latencies by operation, rejections by code, and requests that were sent again.
pub fn render(result: &ShopResult) -> String {
    let duplicates = &result.record.duplicates;
    format!(
        "{}\n{}\n\n{} requests sent twice at the same time, {} sent again after the response; {} repeats after a 503 or a \
         broken connection",
        operations(result),
        rejections(result),
        grouped(duplicates.concurrent),
        grouped(duplicates.sequential),
        grouped(result.record.repeats)
    )
}

fn operations(ShopResult { record, elapsed, .. }: &ShopResult) -> String {
    let mut table = Table::new(&["operation", "responses", "per second", "202", "p50", "p95", "p99"], 1);
    let (mut all, mut accepted) = (Latencies::default(), 0);
    let mut row = |name: &str, latencies: &Latencies, accepted: u64| {
        let count = latencies.count();
        let rate = grouped_rate(per_second(count, *elapsed));
        let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|quantile| latencies.at(quantile));
        table.row([name, &*grouped(count), &*rate, &*grouped(accepted), &*p50, &*p95, &*p99]);
    };
    for (operation, stats) in &record.operations {
        row(operation.name(), &stats.latencies, stats.accepted);
        // Merged histograms, since percentiles cannot be averaged.
        all.merge(&stats.latencies);
        accepted += stats.accepted;
    }
    row("all", &all, accepted);
    table.render(&format!("Operations in {:.1} s (closed model, goose)", elapsed.as_secs_f64()))
}

fn rejections(ShopResult { record, .. }: &ShopResult) -> String {
    let mut table = Table::new(&["operation", "rejected with", "responses"], 2);
    for (operation, stats) in &record.operations {
        for (code, count) in &stats.rejections {
            table.row([operation.name(), &**code, &*grouped(*count)]);
        }
    }
    table.render("Rejections")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::record::{Operation, ShopRecord};

    #[test]
    fn operations_and_rejections_are_listed_by_name() {
        let mut record = ShopRecord::default();
        for (operation, milliseconds, code) in [
            (Operation::ListProducts, 2, None),
            (Operation::Place, 5, None),
            (Operation::Place, 9, Some("422 STOCK_INSUFFICIENT")),
            (Operation::Pay, 7, Some("422 POINTS_INSUFFICIENT")),
        ] {
            let stats = record.operations.entry(operation).or_default();
            stats.latencies.record(Duration::from_millis(milliseconds));
            if let Some(code) = code {
                *stats.rejections.entry(code.to_owned()).or_default() += 1;
            }
        }
        record.operations.entry(Operation::Place).or_default().accepted = 1;
        (record.duplicates.concurrent, record.duplicates.sequential) = (3, 4);
        record.repeats = 5;
        let injected = Vec::new();
        let result = ShopResult { record, campaigns: Vec::new(), elapsed: Duration::from_secs(2), injected };
        insta::assert_snapshot!(render(&result));
    }
}
