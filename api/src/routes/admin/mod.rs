//! Calls of administrators.

pub mod create_campaign;
