//! Says every 10 s that this process runs, and with which settings, so that `dibs-worker doctor` finds processes that
//! contradict each other.

use std::{net::SocketAddr, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    config::Settings,
    db::{
        self, Database,
        processes::{Presence, SharedSettings},
    },
    identifiers::new_uuid,
    retry,
    supervisor::{Lifetime, Task},
};

const INTERVAL: Duration = Duration::from_secs(10);

/// A process of `program` that answers at `address`. `own` are settings of this program alone that all its processes
/// must share.
pub fn of(program: &'static str, address: SocketAddr, settings: &Settings, own: SharedSettings) -> Presence {
    let settings = settings.shared_by_all().into_iter().chain(own).collect();
    Presence { id: new_uuid(), program, address: address.to_string(), settings, database_connections: 0 }
}

/// A task that reports it until the process ends.
pub fn task(database: &Database, presence: Presence, stopping: &CancellationToken) -> Task {
    let (database, stopping) = (database.clone(), stopping.clone());
    let presence = Presence { database_connections: database.connections(), ..presence };
    Task::new("presence", Lifetime::UntilStopping, move || {
        let (database, presence, stopping) = (database.clone(), presence.clone(), stopping.clone());
        async move {
            loop {
                // Nothing depends on it: that the database is unreachable is said elsewhere.
                if let Err(error) = db::within(db::processes::report(&database.pool(), &presence)).await {
                    tracing::debug!(cause = error.chain(), "presence not reported");
                }
                if !retry::sleep(INTERVAL, &stopping).await {
                    break;
                }
            }
            if let Err(error) = db::within(db::processes::forget(&database.pool(), presence.id)).await {
                tracing::debug!(cause = error.chain(), "presence not removed");
            }
            Ok(())
        }
    })
}
