//! Counts what sells: [`RankingSink`] takes paid and cancelled orders from the outbox into Redis, each once, and makes
//! the days anew from the orders when Redis has lost them.

mod rebuild;
mod sink;
mod windows;

pub use rebuild::{rebuild, rebuild_under_lock};
pub use sink::{RANKING, RankingSink};
pub use windows::warm;
