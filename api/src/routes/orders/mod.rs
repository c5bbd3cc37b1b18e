//! Orders.

pub mod cancel;
pub mod command;
pub mod confirm;
pub mod list;
pub mod place;
pub mod show;

use dibs_common::{domain::order::Action, identifiers::UserId};

use crate::{
    orders::{CommandContext, Submitted},
    routes::prelude::*,
};

/// Whose order it is.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OrderUser {
    user_id: UserId,
}

/// Submits a change of an order that exists: the order after it, or 202 while it has no outcome.
async fn submit_change(app: &SharedApp, context: CommandContext, user: UserId, action: Action) -> ApiResult {
    Ok(match app.orders.submit(context, user, action).await? {
        Submitted::Pending(accepted) => accepted.into_response(),
        Submitted::Done(done) => Json(done.order).into_response(),
    })
}
