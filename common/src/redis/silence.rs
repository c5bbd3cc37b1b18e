//! Connections that a network has forgotten: nothing comes back, and neither end is notified.
//!
//! The client library has a check of its own, by the time since the last write. So a connection that is written to all
//! the time, that waits for a blocking read, or that only listens, never counts as silent there.

use std::time::Duration;

use fred::{
    error::ErrorKind,
    interfaces::ClientLike,
    types::{ClientState, Value},
};
use tokio::time::{sleep, timeout};

const INTERVAL: Duration = Duration::from_secs(1);
/// One answer may be late, as Redis may be busy for a moment.
const MISSED_MAX: u32 = 2;
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends a PING once a second, and lets the client connect again when its answers do not come. Returns when the client
/// was closed.
pub(super) async fn watch<C: ClientLike>(client: C) {
    let mut missed = 0;
    loop {
        sleep(INTERVAL).await;
        // To a subscriber Redis answers with an array.
        match client.ping::<Value>(None).await {
            Err(error) if *error.kind() == ErrorKind::Canceled => return,
            Err(error) if *error.kind() == ErrorKind::Timeout => missed += 1,
            _ => missed = 0,
        }
        if missed == MISSED_MAX {
            missed = 0;
            reconnect(&client).await;
        }
    }
}

/// Lets the client connect again. Not while it does so already: each request would be one more reconnection.
pub(super) async fn reconnect<C: ClientLike>(client: &C) {
    if client.state() == ClientState::Connected {
        tracing::warn!("redis connection is silent; connecting again");
        // The client goes on trying for as long as it takes.
        let _connected = timeout(RECONNECT_TIMEOUT, client.force_reconnection()).await;
    }
}
