use axum::{Json, extract::State};
use dibs_common::{
    db::{self, orders::OrdersFilter},
    domain::order::Order,
    identifiers::{OrderId, UserId},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    app::SharedApp,
    extract::{QueryOf, page_limit},
    problem::{ApiError, Problem},
};

/// Whose orders.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct OrdersQuery {
    user_id: UserId,
    /// `nextCursor` of the page before.
    cursor: Option<OrderId>,
    /// At most so many, 1 to 100; 20 when it is left out.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
}

/// A page of a user's orders, the newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderList {
    items: Vec<Order>,
    /// Asks for the next page; null on the last.
    next_cursor: Option<OrderId>,
}

/// List a user's orders
#[utoipa::path(
    get, path = "/orders", tag = "orders", params(OrdersQuery),
    responses(
        (status = 200, description = "the newest first", body = OrderList),
        (status = 400, description = "VALIDATION_FAILED", body = Problem),
        (status = 503, description = "DEPENDENCY_UNAVAILABLE", body = Problem),
    ),
)]
pub async fn list(
    State(app): State<SharedApp>,
    QueryOf(query): QueryOf<OrdersQuery>,
) -> Result<Json<OrderList>, ApiError> {
    let limit = page_limit(query.limit)?;
    // One more than asked for tells whether there is a next page.
    let wanted = OrdersFilter { user: query.user_id, before: query.cursor, limit: limit + 1 };
    let mut items = db::within(db::orders::list_of_user(app.database.pool(), wanted)).await?;
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next_cursor = items.last().filter(|_| more).map(|order| order.order_id);
    Ok(Json(OrderList { items, next_cursor }))
}
