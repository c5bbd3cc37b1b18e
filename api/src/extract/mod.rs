//! What handlers take apart from requests, checked: the signature says what a caller may do and has to send.

mod administrator;
mod json;
mod operation;
mod parameters;
mod prefer;

pub use administrator::{AdminToken, Administrator};
pub use json::JsonBody;
pub(crate) use json::{longest_body, whole};
pub use operation::OperationId;
pub use parameters::{PathOf, QueryOf, page_limit};
pub use prefer::Prefer;
