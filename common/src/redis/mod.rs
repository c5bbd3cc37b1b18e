//! The way to Redis: connections, the spelling of keys, one typed function for each script, streams, and the state of
//! campaigns, sales and pending commands.

mod blocking_reader;
pub mod campaign_state;
pub mod claim_records;
mod client;
mod cluster;
pub mod database_position;
pub mod diagnostics;
pub mod keys;
pub mod pending_commands;
pub mod sales;
mod sales_counter;
pub mod scripts;
mod silence;
pub mod streams;
pub mod texts;

pub use client::{BLOCK, COMMAND_TIMEOUT, Redis, Subscription, redis_error};
pub use sales_counter::{MAX_CHANGES_PER_CALL, SalesBatch, SalesCounted, SalesCounter, SalesMessage, split_at_gaps};
