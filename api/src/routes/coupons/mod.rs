//! Campaigns and claims as the public sees them.

pub mod claim_status;
pub mod issue;
pub mod show;
