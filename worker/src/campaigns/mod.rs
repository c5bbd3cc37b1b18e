//! Keeps Redis in step with the campaigns in MySQL: restores their terms, and rebuilds those whose counts are wrong.

mod rebuild;
mod reconciler;

pub use rebuild::rebuild;
pub(crate) use rebuild::rebuild_lease;
pub use reconciler::{Reconciler, reconcile_all};
