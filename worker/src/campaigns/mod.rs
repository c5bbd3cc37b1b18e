//! Keeps Redis in step with the campaigns in MySQL: rebuilds those that Redis has lost in whole or in part.

mod rebuild;
mod reconciler;

pub use rebuild::rebuild;
pub(crate) use rebuild::rebuild_lease;
pub use reconciler::reconcile_all;
