//! SIGINT, SIGTERM and SIGHUP. The handler is installed before goose installs its own for SIGINT, which would end the
//! process at the second signal and leave the processes of the run behind.

use std::sync::Arc;

use tokio::sync::Notify;

pub struct Interruption(Arc<Notify>);

/// Installs the handler.
pub fn listen() -> Result<Interruption, ctrlc::Error> {
    let received = Arc::new(Notify::new());
    let signal = Arc::clone(&received);
    // `notify_one` keeps a permit, so a signal before `wait` is not lost.
    // The feature `termination` of ctrlc adds SIGTERM and SIGHUP.
    ctrlc::set_handler(move || signal.notify_one())?;
    Ok(Interruption(received))
}

impl Interruption {
    /// Returns after the first signal.
    pub async fn wait(&self) {
        self.0.notified().await;
    }
}
