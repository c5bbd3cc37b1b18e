use std::{
    cmp::Reverse,
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use metrics::{counter, gauge};
use tokio::task::AbortHandle;

use super::ConnectionLimits;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Idle = 0,
    Head = 1,
    Request = 2,
}

/// What all connections of a server share, and read for every request: no lock, and no clock of the system.
#[derive(Default)]
pub(super) struct Shared {
    /// Milliseconds since the server started, as of the last sweep: exact to a second, which is enough for time limits.
    pub(super) now: AtomicU64,
    pub(super) is_draining: AtomicBool,
}

/// One connection: its phase, and when that began.
pub(super) struct Connection {
    pub(super) id: u64,
    pub(super) address: IpAddr,
    pub(super) shared: Arc<Shared>,
    /// [`Shared::now`] when the phase began, times four, plus the phase: one store changes both.
    state: AtomicU64,
}

impl Connection {
    fn new(id: u64, address: IpAddr, shared: Arc<Shared>) -> Self {
        let connection = Self { id, address, shared, state: AtomicU64::new(0) };
        connection.enter(Phase::Idle);
        connection
    }

    pub(super) fn enter(&self, phase: Phase) {
        let now = self.shared.now.load(Ordering::Relaxed);
        // Relaxed: nothing else is published with it, and a sweep that reads the older phase decides again a second
        // later.
        self.state.store((now << 2) | phase as u64, Ordering::Relaxed);
    }

    pub(super) fn phase(&self) -> Phase {
        match self.state.load(Ordering::Relaxed) & 3 {
            0 => Phase::Idle,
            1 => Phase::Head,
            _ => Phase::Request,
        }
    }

    /// How long the phase lasts by now.
    fn age(&self) -> Duration {
        let since = self.state.load(Ordering::Relaxed) >> 2;
        Duration::from_millis(self.shared.now.load(Ordering::Relaxed).saturating_sub(since))
    }
}

pub(super) struct Connections {
    limits: ConnectionLimits,
    started: Instant,
    pub(super) shared: Arc<Shared>,
    inner: Mutex<Registry>,
}

#[derive(Default)]
struct Registry {
    next_id: u64,
    open: HashMap<u64, (Arc<Connection>, Option<AbortHandle>)>,
    per_address: HashMap<IpAddr, usize>,
}

impl Connections {
    pub(super) fn new(limits: ConnectionLimits) -> Self {
        Self { limits, started: Instant::now(), shared: Arc::default(), inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection of `address`; none when all of its bound have a request in progress.
    pub(super) fn admit(&self, address: IpAddr) -> Option<Arc<Connection>> {
        let mut registry = self.lock();
        // The address first: a client at its own bound loses a connection of its own, and never pushes out another
        // client's.
        let of_address = registry.per_address.get(&address).copied().unwrap_or_default();
        let has_room = (of_address < self.limits.per_address || registry.evict(Some(address)))
            && (registry.open.len() < self.limits.total || registry.evict(None));
        if !has_room {
            counter!("dibs_http_connections_closed_total", "reason" => "limit").increment(1);
            return None;
        }
        registry.next_id += 1;
        let connection = Arc::new(Connection::new(registry.next_id, address, Arc::clone(&self.shared)));
        registry.open.insert(connection.id, (Arc::clone(&connection), None));
        *registry.per_address.entry(address).or_default() += 1;
        Some(connection)
    }

    pub(super) fn register(&self, id: u64, task: AbortHandle) {
        // The task may have ended, and removed itself, before.
        if let Some((_, handle)) = self.lock().open.get_mut(&id) {
            *handle = Some(task);
        }
    }

    pub(super) fn make_room(&self) {
        self.lock().evict(None);
    }

    /// Closes the connections whose phase has lasted too long.
    pub(super) fn sweep(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX >> 2);
        self.shared.now.store(now, Ordering::Relaxed);
        let mut registry = self.lock();
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        gauge!("dibs_http_connections").set(registry.open.len() as f64);
        // One pass a second over all connections costs less than a timer for each, which every request would have to
        // reset.
        let late: Vec<(u64, &'static str)> = registry
            .open
            .values()
            .filter_map(|(connection, _)| match connection.phase() {
                Phase::Head if connection.age() > self.limits.head_timeout => Some((connection.id, "head_timeout")),
                Phase::Idle if connection.age() > self.limits.idle_timeout => Some((connection.id, "idle_timeout")),
                _ => None,
            })
            .collect();
        for (id, reason) in late {
            registry.close(id, reason);
        }
    }
}

impl Registry {
    /// Closes the connection that has been without a request for longest; whether there was one.
    fn evict(&mut self, address: Option<IpAddr>) -> bool {
        // Linear, but only at the bound. An order by age would have to be kept by every request.
        let candidates = self.open.values().map(|(connection, _)| connection);
        let oldest = candidates
            .filter(|connection| address.is_none_or(|address| connection.address == address))
            .filter(|connection| connection.phase() != Phase::Request)
            // Of one age, the one that was opened first.
            .max_by_key(|connection| (connection.age(), Reverse(connection.id)))
            .map(|connection| connection.id);
        if let Some(id) = oldest {
            self.close(id, "evicted");
        }
        oldest.is_some()
    }

    fn close(&mut self, id: u64, reason: &'static str) {
        counter!("dibs_http_connections_closed_total", "reason" => reason).increment(1);
        if let Some(task) = self.remove(id) {
            task.abort();
        }
    }

    fn remove(&mut self, id: u64) -> Option<AbortHandle> {
        let (connection, task) = self.open.remove(&id)?;
        if let Some(count) = self.per_address.get_mut(&connection.address) {
            *count -= 1;
            if *count == 0 {
                self.per_address.remove(&connection.address);
            }
        }
        task
    }
}

pub(super) struct RemoveOnDrop {
    pub(super) registry: Arc<Connections>,
    pub(super) id: u64,
}

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        self.registry.lock().remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_phase_that_lasts_too_long_is_late() {
        let connections = Connections::new(ConnectionLimits::new(9, 9));
        let connection = connections.admit(IpAddr::from([127, 0, 0, 1])).expect("room");
        connection.enter(Phase::Head);
        connections.sweep();
        assert_eq!(connections.lock().open.len(), 1);
        connection.enter(Phase::Request);
        assert!(!connections.lock().evict(None), "a request in progress is never evicted");
        connection.enter(Phase::Idle);
        assert!(connections.lock().evict(None));
        assert!(connections.lock().per_address.is_empty());
    }
}
