//! Payments of orders, with points.

pub mod confirm;
pub mod show;
