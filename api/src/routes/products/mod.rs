//! Products as the public sees them.

pub mod list;
pub mod show;
