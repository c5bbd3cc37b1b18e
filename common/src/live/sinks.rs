use std::{
    collections::BTreeMap,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{clock::Timestamp, domain::dead_letter::beginning};

/// How much of an error is reported, in bytes.
const MAX_ERROR_BYTES: usize = 300;

/// How a sink is, as the process that serves it knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SinkReport {
    pub name: String,
    /// When this process last served it. A process on standby does not.
    #[serde(serialize_with = "crate::clock::serialize")]
    pub served_at: DateTime<Utc>,
    /// The receiver gets no response: one message at a time probes it.
    #[serde(default)]
    pub is_circuit_open: bool,
    /// The last step failed.
    #[serde(default)]
    pub is_failing: bool,
    #[serde(default)]
    pub last_error: Option<String>,
    #[serde(default, serialize_with = "crate::clock::serialize")]
    pub last_error_at: Option<DateTime<Utc>>,
}

static SINKS: LazyLock<Mutex<BTreeMap<&'static str, SinkReport>>> = LazyLock::new(Mutex::default);

fn sinks() -> MutexGuard<'static, BTreeMap<&'static str, SinkReport>> {
    SINKS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn change(sink: &'static str, at: Timestamp, change: impl FnOnce(&mut SinkReport)) {
    let mut sinks = sinks();
    let report = sinks.entry(sink).or_insert_with(|| SinkReport {
        name: sink.to_owned(),
        served_at: at,
        is_circuit_open: false,
        is_failing: false,
        last_error: None,
        last_error_at: None,
    });
    change(report);
}

/// A step of a sink succeeded.
pub fn served(sink: &'static str, at: Timestamp) {
    change(sink, at, |report| (report.served_at, report.is_failing) = (at, false));
}

/// A step or an attempt of a sink failed.
pub fn failed(sink: &'static str, error: &str, at: Timestamp, is_step: bool) {
    change(sink, at, |report| {
        report.is_failing |= is_step;
        report.last_error = Some(beginning(error, MAX_ERROR_BYTES).to_owned());
        report.last_error_at = Some(at);
    });
}

/// The circuit of a sink opened or closed.
pub fn circuit(sink: &'static str, is_open: bool, at: Timestamp) {
    change(sink, at, |report| report.is_circuit_open = is_open);
}

pub(super) fn list() -> Vec<SinkReport> {
    sinks().values().cloned().collect()
}
