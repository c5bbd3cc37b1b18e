//! Keeps Redis in step with the campaigns in MySQL: restores their terms, and rebuilds those whose counts are wrong.

mod ended;
mod rebuild;
mod reconciler;

use chrono::TimeDelta;
pub use ended::remove_ended;
pub use rebuild::rebuild;
pub(crate) use rebuild::rebuild_lease;
pub use reconciler::{Reconciler, reconcile_all};

/// How long after the end of its window a campaign is removed from Redis.
const ENDED_KEPT_FOR: TimeDelta = TimeDelta::days(7);
/// Entries of a stream that are read to find claims without an outcome. With more the workers are late, and it waits.
const CHECKED_ENTRIES: u64 = 10_000;
