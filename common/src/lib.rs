//! What `dibs-api`, `dibs-worker` and `dibs-loadtest` share: the rules, and the way to Redis and `MySQL`.
//!
//! Data flows one way: route -> script or stream -> worker -> plan (pure) -> rows -> events. [`domain`] decides
//! and knows nobody; everything else carries what it decided.

pub mod clock;
pub mod config;
pub mod db;
pub mod domain;
pub mod error;
pub mod held;
mod http;
pub mod identifiers;
pub mod json;
pub mod keys;
pub mod message;
pub mod operations;
pub mod payment_gateway;
pub mod pending;
pub mod redis;
pub mod sales;
pub mod scripts;
pub mod stream;
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
pub mod webhook;

pub use error::{Error, Result};
