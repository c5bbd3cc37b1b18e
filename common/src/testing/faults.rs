//! Faults injected into the tasks of a supervisor.

use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;

use crate::supervisor::{Supervisor, Task};

/// A supervisor each of whose tasks panics in its first run.
pub fn panicking_supervisor(stopping: CancellationToken) -> Supervisor {
    Supervisor::new(stopping).decorated(|Task { name, lifetime, mut start }| {
        let mut has_panicked = false;
        let injected = name.clone();
        let start = Box::new(move || {
            if std::mem::replace(&mut has_panicked, true) {
                return start();
            }
            let name = injected.clone();
            Box::pin(async move { panic!("injected into {name}") })
        });
        Task { name, lifetime, start }
    })
}

/// Whether a task was restarted so many times, as the metrics say.
pub fn was_restarted(metrics: &PrometheusHandle, task: &str, times: u64) -> bool {
    let line = format!("dibs_task_restarts_total{{task=\"{task}\"}} {times}");
    metrics.render().lines().any(|rendered| rendered == line)
}
