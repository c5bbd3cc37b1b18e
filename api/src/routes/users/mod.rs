//! What belongs to a user.

pub mod coupons;
