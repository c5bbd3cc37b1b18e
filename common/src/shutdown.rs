//! How a process ends: it is asked to, finishes what is in flight within [`DRAIN_LIMIT`], and closes its connections.

use std::{future::pending, time::Duration};

use tokio::signal::{
    ctrl_c,
    unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use crate::supervisor::{Lifetime, Task};

/// How long a process may take to finish what is in flight.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// A task that cancels `stopping` on SIGTERM or Ctrl-C.
pub fn signal_task(stopping: CancellationToken) -> Task {
    Task::new("termination_signal", Lifetime::UntilDone, move || {
        let stopping = stopping.clone();
        async move {
            tokio::select! {
                () = termination_signal() => tracing::info!("shutdown requested; draining"),
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
    tokio::time::sleep(DRAIN_LIMIT).await;
}

async fn termination_signal() {
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
