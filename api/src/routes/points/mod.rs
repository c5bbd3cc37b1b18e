//! Points: what users buy, hold, and did with them.

pub mod balance;
pub mod charge;
pub mod charge_state;
pub mod history;
