//! What `dibs-api`, `dibs-worker` and `dibs-loadtest` share: the rules, and the way to Redis and `MySQL`.
//!
//! Data flows one way: route -> script or stream -> worker -> plan (pure) -> rows -> events. [`domain`] decides
//! and depends on no other module but time and identifiers; every other module carries its decisions.

pub mod assignments;
pub mod audit;
pub mod campaigns;
pub mod clock;
pub mod config;
pub mod db;
pub mod dead_letters;
pub mod domain;
pub mod error;
#[cfg(feature = "fault-proxy")]
pub mod fault_proxy;
pub mod health;
pub mod http_server;
pub mod identifiers;
pub mod integrations;
pub mod json;
pub mod live;
pub mod metric_table;
pub mod presence;
pub mod redis;
pub mod rejections;
pub mod retry;
pub mod revocations;
pub mod runtime;
pub mod secret;
pub mod shutdown;
pub mod supervisor;
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
pub mod traces;

pub use error::{Error, Result};
