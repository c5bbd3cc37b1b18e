use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dibs_common::redis::streams::Entry;
use metrics::{Gauge, gauge};
use tokio::time::{Instant, sleep_until};

use super::{Handler, InFlight};

/// A worker that holds so many entries reads no more. Each is about a kilobyte.
const HELD_ENTRIES: usize = 10_000;
/// How often the rows of held entries are probed.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Entries that wait for rows which another session has locked, in the order of their stream. They stay in flight: they
/// are refreshed, and count neither as failed nor as processed.
pub(super) struct HeldEntries<H: Handler> {
    state: Mutex<State<H::Entry>>,
    gauge: Gauge,
}

struct State<E> {
    entries: Vec<InFlight<E>>,
    probed_at: Instant,
}

impl<H: Handler> HeldEntries<H> {
    pub(super) fn new() -> Self {
        let gauge = gauge!("dibs_held_entries", "stream" => H::Entry::SOURCE);
        Self { state: Mutex::new(State { entries: Vec::new(), probed_at: Instant::now() }), gauge }
    }

    fn state(&self) -> MutexGuard<'_, State<H::Entry>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.state().entries.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.state().entries.len() >= HELD_ENTRIES
    }

    /// Waits until held entries are to be probed; for ever when there are none.
    pub(super) async fn due(&self) {
        let probe_at = {
            let state = self.state();
            (!state.entries.is_empty()).then(|| state.probed_at + PROBE_INTERVAL)
        };
        match probe_at {
            Some(probe_at) => sleep_until(probe_at).await,
            None => std::future::pending().await,
        }
    }

    /// Takes everything that is held, when it is to be probed again.
    pub(super) fn take_due(&self) -> Vec<InFlight<H::Entry>> {
        let mut state = self.state();
        if state.entries.is_empty() || state.probed_at.elapsed() < PROBE_INTERVAL {
            return Vec::new();
        }
        state.probed_at = Instant::now();
        let due = std::mem::take(&mut state.entries);
        self.count(due.len(), 0);
        due
    }

    /// Holds the entries that `is_locked` says, and all later ones of their keys. Returns the others, in their order.
    pub(super) fn set_aside(
        &self,
        entries: Vec<InFlight<H::Entry>>,
        is_locked: impl Fn(usize) -> bool,
    ) -> Vec<InFlight<H::Entry>> {
        let mut state = self.state();
        let key = |entry: &InFlight<H::Entry>| entry.delivery.entry.as_ref().ok().map(H::key);
        let mut keys: HashSet<u64> = state.entries.iter().filter_map(key).collect();
        let (mut free, before) = (Vec::with_capacity(entries.len()), state.entries.len());
        for (index, entry) in entries.into_iter().enumerate() {
            let of_entry = key(&entry);
            if is_locked(index) || of_entry.is_some_and(|key| keys.contains(&key)) {
                keys.extend(of_entry);
                state.entries.push(entry);
            } else {
                free.push(entry);
            }
        }
        // The first of them was found locked just now.
        if before == 0 {
            state.probed_at = Instant::now();
        }
        self.count(before, state.entries.len());
        free
    }

    /// Leaves everything that is held to the next worker.
    pub(super) fn release(&self) {
        let released = std::mem::take(&mut self.state().entries);
        self.count(released.len(), 0);
        released.iter().for_each(InFlight::release);
    }

    /// The workers of several partitions share the gauge, so it takes differences.
    #[expect(clippy::cast_precision_loss, reason = "a worker holds few entries")]
    fn count(&self, before: usize, after: usize) {
        self.gauge.increment(after as f64 - before as f64);
    }
}

impl<H: Handler> Drop for HeldEntries<H> {
    fn drop(&mut self) {
        self.release();
    }
}
