//! How a process ends: it is asked to, finishes what is in flight within [`DRAIN_LIMIT`], and closes its connections.

use std::{future::pending, time::Duration};

use tokio::signal::{
    ctrl_c,
    unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use crate::{
    retry,
    supervisor::{Lifetime, Supervisor, Task},
};

/// How long a process may take to finish what is in flight.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// A task that ends the process on SIGTERM or Ctrl-C: readiness is DOWN at once, and `delay` later the process accepts
/// nothing more. Within the delay a load balancer notices, and sends its calls elsewhere. A second signal skips the
/// rest.
pub fn signal_task(supervisor: &Supervisor, delay: Duration) -> Task {
    let (draining, stopping) = (supervisor.draining.clone(), supervisor.stopping.clone());
    Task::new("termination_signal", Lifetime::UntilDone, move || {
        let (draining, stopping) = (draining.clone(), stopping.clone());
        async move {
            tokio::select! {
                () = termination_signal() => {
                    tracing::info!(delay_seconds = delay.as_secs(), "shutdown requested; draining");
                    draining.cancel();
                    tokio::select! {
                        _slept = retry::sleep(delay, &stopping) => {}
                        () = termination_signal() => {}
                    }
                }
                // Something else ends the process, which waits for this task.
                () = stopping.cancelled() => {}
            }
            stopping.cancel();
            Ok(())
        }
    })
}

/// Returns [`DRAIN_LIMIT`] after `stopping` is cancelled.
pub async fn drain_limit(stopping: &CancellationToken) {
    stopping.cancelled().await;
    // Counted from here and not from the signal: the delay before it is for the load balancer.
    tokio::time::sleep(DRAIN_LIMIT).await;
}

async fn termination_signal() {
    // SIGTERM comes from containers and systemd, Ctrl-C from a person.
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(error) => {
                tracing::warn!(%error, "SIGTERM handler unavailable; only Ctrl-C stops this process gracefully");
                pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = terminated => {}
        result = ctrl_c() => {
            if let Err(error) = result {
                tracing::warn!(%error, "Ctrl-C handler unavailable");
                pending::<()>().await;
            }
        }
    }
}
