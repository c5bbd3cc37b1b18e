//! Counts sales in Redis: [`RankingSink`] counts each paid or cancelled order of the outbox once, and rebuilds the days
//! from the orders when Redis has lost them.

mod rebuild;
mod sink;
mod windows;

pub use rebuild::{await_rebuild, rebuild, rebuild_under_lease, try_rebuild};
pub use sink::{RANKING, RankingSink};
pub use windows::{WindowBuild, WindowsBuilt, warm};
