//! Extractors: what handlers take from requests, checked. A handler's signature shows what a caller may do and must
//! send.

mod action;
mod administrator;
mod expected;
mod json;
mod operation;
mod page;
mod parameters;
mod precondition;
mod prefer;
mod several;
mod text;
mod upload;

pub use action::{Action, ActionQuery, Change, ChangeQuery};
pub use administrator::Administrator;
pub use json::JsonBody;
pub(crate) use json::{max_body_bytes, read_body};
pub use operation::OperationId;
pub use page::{List, ListParams, NoFilter, Page};
pub use parameters::{PathParams, QueryParams};
pub use precondition::{IfMatch, entity_tag};
pub use prefer::Prefer;
pub use several::Several;
pub use upload::{Upload, UploadQuery, UserLines};
