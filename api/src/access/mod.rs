//! Who calls, and what each caller may do.
//!
//! [`policy::POLICIES`] lists every route with the scope that it requires and the rule by which it belongs to a user.
//! [`Gate`] applies the list in front of every route: a route that is not in it is not served. Two things are left to
//! extractors and handlers: [`crate::extract::JsonBody`] compares the user that a body names, as a body is read once,
//! and a handler asks [`Caller::acts_for`] about what it has loaded.

mod caller;
mod credentials;
mod gate;
pub mod policy;
mod settings;

pub use caller::{BodyOwner, Caller, Credential};
pub use credentials::Credentials;
pub use gate::{Admission, Gate};
pub(crate) use gate::{another_user, unnamed_user};
pub use settings::{AuthMode, AuthSettings};
