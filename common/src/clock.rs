//! The one home of the clock. Rules take the time as a parameter; only shells ask for it here.

use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, SubsecRound, TimeDelta, TimeZone, Utc};

/// A moment in UTC, to the millisecond wherever it is stored.
pub type Timestamp = DateTime<Utc>;

/// The moments that a list is restricted to.
#[derive(Clone, Copy, Debug, Default)]
pub struct TimeRange {
    pub from: Option<Timestamp>,
    /// No longer part of it, so that ranges can follow each other.
    pub until: Option<Timestamp>,
}

static OFFSET_MILLISECONDS: AtomicI64 = AtomicI64::new(0);

/// Now, to the millisecond.
#[expect(clippy::disallowed_methods, reason = "the one home of the clock")]
pub fn now() -> Timestamp {
    // As columns store it: a time that is compared with its stored copy is equal to it.
    Utc::now().trunc_subsecs(3) + TimeDelta::milliseconds(OFFSET_MILLISECONDS.load(Ordering::Relaxed))
}

/// From here on this process's clock is ahead of the machine's by that much, to rehearse a midnight at noon. Redis goes
/// by its own clock all the same, and so does the window in which a campaign takes claims.
pub fn set_offset(by: TimeDelta) {
    OFFSET_MILLISECONDS.store(by.num_milliseconds(), Ordering::Relaxed);
}

/// The moment so many milliseconds after 1970; the end of representable time when there is none.
pub fn from_millis(millis: i64) -> Timestamp {
    Utc.timestamp_millis_opt(millis).single().unwrap_or(Timestamp::MAX_UTC)
}
