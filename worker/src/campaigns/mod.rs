//! Keeps Redis in step with the campaigns in the database: makes the ones that it does not hold, or has partly
//! forgotten.

mod keeper;
mod rebuild;

pub(crate) use keeper::KEPT_AFTER_END;
pub use keeper::keep_once;
pub use rebuild::rebuild;
