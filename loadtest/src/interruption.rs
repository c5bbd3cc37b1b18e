//! SIGINT, SIGTERM and SIGHUP. Taken before goose takes SIGINT for itself: its handler ends the process on the
//! second one without letting anything be stopped.

use std::sync::Arc;

use tokio::sync::Notify;

/// Hears of the first signal.
pub struct Interruption(Arc<Notify>);

/// Listens from now on.
pub fn listen() -> Result<Interruption, ctrlc::Error> {
    let heard = Arc::new(Notify::new());
    let signal = Arc::clone(&heard);
    // A permit is kept when nobody waits yet.
    ctrlc::set_handler(move || signal.notify_one())?;
    Ok(Interruption(heard))
}

impl Interruption {
    /// Returns when a signal has come.
    pub async fn wait(&self) {
        self.0.notified().await;
    }
}
