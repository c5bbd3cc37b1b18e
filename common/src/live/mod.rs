//! What happens now, summed over all processes, for the console.
//!
//! A process counts in memory, as metrics do, and adds what it counted to Redis once a second ([`report_task`]): one
//! hash for each campaign and minute, with a field for each second, which expires. [`Series`] reads the last minutes.
//! The same report says that the process lives, and how its sinks are ([`list_processes`]). Nothing here decides
//! anything: what is lost with Redis is missing on a chart.

mod counters;
mod delivery_test;
mod drift;
mod processes;
mod report;
mod series;
mod sinks;

pub use counters::{CampaignCounters, LAG_BOUNDS_MILLIS, campaign};
pub use delivery_test::{DeliveryTest, TestResult, last_test, request_test, store_test, take_test};
pub use drift::{DriftNote, find_drift, note_drift};
pub use processes::{MISSING_AFTER, ProcessKind, ProcessReport, list_processes};
pub use report::report_task;
pub use series::{Rates, SERIES_MINUTES, Series};
pub use sinks::{SinkReport, circuit, failed, served};
