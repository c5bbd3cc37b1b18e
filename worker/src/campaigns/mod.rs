//! Keeps Redis in step with the campaigns in MySQL: restores their terms, rebuilds those whose counts are
//! wrong, and names every claim that differs.

mod drift;
mod ended;
mod rebuild;
mod reconciler;
mod requested;

pub(crate) use drift::run as run_drift_check;
pub use drift::{Drift, check_drift};
pub use ended::remove_ended;
pub use rebuild::rebuild;
pub(crate) use rebuild::rebuild_lease;
pub use reconciler::{Reconciler, reconcile_all};
pub use requested::rebuild_requested;
pub(crate) use requested::run_requested;
