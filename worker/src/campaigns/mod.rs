//! Keeps Redis in step with the campaigns in the database: makes the ones that it does not hold, or has partly
//! forgotten.

mod rebuild;
mod reconciler;

pub use rebuild::rebuild;
pub(crate) use reconciler::KEPT_AFTER_END;
pub use reconciler::reconcile_all;
