//! Extractors: what handlers take from requests, checked. A handler's signature shows what a caller may do and must send.

mod administrator;
mod expected;
mod json;
mod operation;
mod page;
mod parameters;
mod prefer;
mod text;

pub use administrator::{AdminToken, Administrator};
pub use json::JsonBody;
pub(crate) use json::{max_body_bytes, read_body};
pub use operation::OperationId;
pub use page::{List, ListParameters, Page};
pub use parameters::{PathParameters, QueryParameters};
pub use prefer::Prefer;
