//! Logs and metrics.

use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::{
    config::Settings,
    error::{Error, Result},
};

/// Bounds of the histograms of seconds: 0.5 ms to 30 s.
const SECONDS: [f64; 15] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Bounds of the histograms of batch sizes.
const SIZES: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 200.0, 350.0, 500.0];

/// Begins to log to standard error, and to gather metrics; answers what `/metrics` prints.
pub fn start(settings: &Settings) -> Result<PrometheusHandle> {
    let filter = EnvFilter::try_new(&settings.log).map_err(Error::internal)?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if settings.logs_are_json() {
        subscriber.json().flatten_event(true).init();
    } else {
        subscriber.with_target(false).init();
    }
    metrics()
}

/// Gathers metrics; answers what `/metrics` prints.
pub fn metrics() -> Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_size".into()), &SIZES))
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(Error::internal)?;
    let upkeep = handle.clone();
    tokio::spawn(async move {
        // Without upkeep, histograms keep every sample.
        let mut interval = tokio::time::interval(Duration::from_secs(1));
        loop {
            interval.tick().await;
            upkeep.run_upkeep();
        }
    });
    Ok(handle)
}
