//! The one home of the clock. Rules take the time as a parameter; only shells ask for it here.

use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, SecondsFormat, SubsecRound, TimeDelta, TimeZone, Utc};
use serde::Serializer;

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

/// The end of the year 9999 in milliseconds since 1970. MySQL has no times after it.
pub const LAST_MILLISECOND: i64 = 253_402_300_799_999;

/// The moment so many milliseconds after 1970; the end of representable time when there is none.
pub fn from_millis(millis: i64) -> Timestamp {
    Utc.timestamp_millis_opt(millis).single().unwrap_or(Timestamp::MAX_UTC)
}

/// A time as Dibs writes it: RFC 3339 in UTC, to the millisecond. chrono itself leaves out a fraction of zero, so that
/// one time in a thousand would have another form than all others.
pub fn text(time: Timestamp) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// A time that a field may lack.
pub trait OptionalTime {
    fn time(&self) -> Option<Timestamp>;
}

impl OptionalTime for Timestamp {
    fn time(&self) -> Option<Timestamp> {
        Some(*self)
    }
}

impl OptionalTime for Option<Timestamp> {
    fn time(&self) -> Option<Timestamp> {
        *self
    }
}

/// Writes a time in JSON: `#[serde(serialize_with = "clock::serialize")]`. A test finds fields without it.
pub fn serialize<S: Serializer>(time: &impl OptionalTime, serializer: S) -> Result<S::Ok, S::Error> {
    match time.time() {
        Some(time) => serializer.serialize_str(&text(time)),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_always_has_three_digits_of_milliseconds() {
        assert_eq!(text(from_millis(1_900_000_000_000)), "2030-03-17T17:46:40.000Z");
        assert_eq!(text(from_millis(1_900_000_000_070)), "2030-03-17T17:46:40.070Z");
        let mut json = Vec::new();
        let mut serializer = serde_json::Serializer::new(&mut json);
        serialize(&Some(from_millis(0)), &mut serializer).expect("JSON");
        assert_eq!(json, b"\"1970-01-01T00:00:00.000Z\"");
    }
}
