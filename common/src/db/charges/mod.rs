//! The table `charges`, and the way of a charge through the tables of points.
//!
//! A charge reserves its amount on the user's account when it begins, and is credited or given back when it is settled.
//! Locks go by table: first the account, then the charge.

mod rows;
mod transactions;

pub use rows::{count_pending, find, postpone, purge_declined};
pub use transactions::{ChargeWithBalance, begin, begin_approved, settle, take_due};
