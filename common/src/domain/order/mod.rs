//! Orders: what may be done to them, and what that changes.

mod refusal;

pub use refusal::{Refusal, RefusalCode};
