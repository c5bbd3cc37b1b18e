//! What belongs to a user.

pub mod coupons;
pub mod revoke;
