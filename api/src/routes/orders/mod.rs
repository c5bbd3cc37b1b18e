//! Orders.

pub mod cancel;
pub mod command;
pub mod confirm;
pub mod list;
pub mod place;
pub mod show;

use dibs_common::identifiers::UserId;
use serde::Deserialize;
use utoipa::ToSchema;

/// Whose order it is.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OrderUser {
    user_id: UserId,
}
