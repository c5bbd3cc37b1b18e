//! Logs and metrics.

use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::{
    config::Settings,
    error::{Error, Result},
    metric_table, retry,
    supervisor::{Lifetime, Task},
};

/// How often the metrics of the process are collected.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Buckets of the histograms of seconds: 0.5 ms to 30 s.
const SECONDS: [f64; 15] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Buckets of the histograms of batch sizes.
const SIZES: [f64; 11] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 200.0, 350.0, 500.0, 1000.0];

/// The scheduler logs its own housekeeping ("Uninited") at info. `RUST_LOG` can name it to see that.
const QUIET_LIBRARIES: &str = "tokio_cron_scheduler=warn";

/// Starts logging to standard error and collecting metrics. The handle renders `/metrics`.
pub fn start(settings: &Settings) -> Result<PrometheusHandle> {
    // Standard output belongs to the results of subcommands, such as `dead-letters`.
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter(&settings.log)?).with_writer(std::io::stderr);
    if settings.logs_are_json() {
        subscriber.json().flatten_event(true).init();
    } else {
        subscriber.with_target(false).init();
    }
    metrics()
}

/// What `RUST_LOG` says goes last: of two directives for one target the later one wins.
fn filter(directives: &str) -> Result<EnvFilter> {
    EnvFilter::try_new(format!("{QUIET_LIBRARIES},{directives}")).map_err(Error::internal)
}

/// Starts collecting metrics. The handle renders `/metrics`.
pub fn metrics() -> Result<PrometheusHandle> {
    // Buckets and not quantiles: those of several processes can be added up.
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_size".into()), &SIZES))
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(Error::internal)?;
    // HELP lines belong to the recorder, so they come after it.
    metric_table::describe();
    let commit = option_env!("DIBS_COMMIT").unwrap_or("unknown");
    metrics::gauge!("dibs_build_info", "version" => env!("CARGO_PKG_VERSION"), "commit" => commit).set(1.0);
    Collector::default().describe();
    Ok(handle)
}

/// A task that collects the metrics of the process, and aggregates what histograms recorded: without that they keep
/// every sample.
pub fn upkeep_task(metrics: PrometheusHandle) -> Task {
    Task::new("metrics_upkeep", Lifetime::UntilShutdown, move || {
        let metrics = metrics.clone();
        async move {
            // Nothing stops it: it runs until shutdown, so that the last scrape is as fresh as all others.
            let (process, shutdown) = (Collector::default(), CancellationToken::new());
            let mut rounds = retry::every(UPKEEP_INTERVAL, &shutdown);
            while rounds.next().await {
                process.collect();
                metrics.run_upkeep();
            }
            Ok(())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_of_the_user_go_before_those_for_quiet_libraries() {
        let text = filter("info,tokio_cron_scheduler=debug").expect("a filter").to_string();
        assert!(text.contains("tokio_cron_scheduler=debug") && !text.contains("tokio_cron_scheduler=warn"), "{text}");
        let text = filter("info").expect("a filter").to_string();
        assert!(text.contains("tokio_cron_scheduler=warn") && text.contains("info"), "{text}");
    }

    #[tokio::test]
    async fn the_metrics_page_has_help_the_build_and_the_process() {
        let page = metrics().expect("a recorder");
        metrics::counter!("dibs_claims_total", "decision" => "accepted").increment(1);
        Collector::default().collect();
        let page = page.render();
        for expected in [
            "# HELP dibs_claims_total Claims decided",
            concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""),
            "# HELP process_resident_memory_bytes",
            "process_open_fds ",
        ] {
            assert!(page.contains(expected), "{expected} is not in {page}");
        }
    }
}
