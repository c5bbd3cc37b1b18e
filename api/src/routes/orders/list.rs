use axum::{Json, extract::State};
use dibs_common::{
    db::{self, orders::OrdersFilter},
    domain::order::Order,
    identifiers::{OrderId, UserId},
};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    app::SharedApp,
    extract::{List, ListParams, Page},
    problem::ApiError,
    routes::responses::ReadProblems,
};

/// Whose orders.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct OrdersQuery {
    user_id: UserId,
}

/// List a user's orders
#[utoipa::path(
    get, path = "/orders", tag = "orders", params(OrdersQuery, Page::<OrderId>),
    responses((status = 200, description = "the newest first", body = List<Order, OrderId>), ReadProblems),
)]
pub async fn list(
    State(app): State<SharedApp>,
    ListParams { filter, page }: ListParams<OrdersQuery, OrderId>,
) -> Result<Json<List<Order, OrderId>>, ApiError> {
    let wanted = OrdersFilter { user: filter.user_id, before: page.cursor, limit: page.rows() };
    let orders = db::within(db::orders::list_of_user(&app.database.pool(), wanted)).await?;
    Ok(page.list(orders, |order| order.order_id))
}
