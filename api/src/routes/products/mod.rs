//! Products as the public sees them, and which of them sold best.

pub mod best_sellers;
pub mod list;
pub mod rank;
pub mod show;
