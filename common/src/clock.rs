//! The one home of the clock. Rules take the time as a parameter; only shells ask for it here.

use chrono::{DateTime, SubsecRound, TimeZone, Utc};

/// A moment in UTC, to the millisecond wherever it is stored.
pub type Timestamp = DateTime<Utc>;

/// Now, to the millisecond.
#[expect(clippy::disallowed_methods, reason = "the one home of the clock")]
pub fn now() -> Timestamp {
    Utc::now().trunc_subsecs(3)
}

/// The moment so many milliseconds after 1970; the end of representable time when there is none.
pub fn from_millis(millis: i64) -> Timestamp {
    Utc.timestamp_millis_opt(millis).single().unwrap_or(Timestamp::MAX_UTC)
}
