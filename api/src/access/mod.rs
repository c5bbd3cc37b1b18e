//! Who calls, and what each caller may do.
//!
//! [`policy::POLICIES`] lists every route with the scope that it requires and the rule by which it belongs to a user.
//! [`Gate`] applies the list in front of every route: a route that is not in it is not served. Two things are left to
//! extractors and handlers: [`crate::extract::JsonBody`] compares the user that a body names, as a body is read once,
//! and a handler asks [`Caller::acts_for`] about what it has loaded.

mod api_keys;
mod caller;
mod credentials;
mod gate;
mod key_set;
pub mod policy;
mod settings;
mod token_cache;
mod user_tokens;
mod verification_keys;

pub use caller::{BodyOwner, Caller, Credential};
pub use credentials::{Credentials, Found};
pub use gate::{Authorization, Gate, SessionCredential};
pub(crate) use gate::{another_user, unnamed_user};
pub use settings::{AuthMode, AuthSettings};
