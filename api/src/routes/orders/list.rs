use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use dibs_common::{
    clock::TimeRange,
    db::{self, orders::OrdersFilter},
    domain::order::{Order, OrderStatus},
    identifiers::{OrderId, UserId},
    json,
};
use serde::Deserialize;
use strum::VariantArray as _;
use utoipa::IntoParams;

use crate::{
    app::SharedApp,
    extract::{List, ListParams, Page, Several},
    problem::ApiError,
    routes::responses::ReadProblems,
};

/// Whose orders, and which of them.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct OrdersQuery {
    user_id: UserId,
    /// Only these, whatever their status.
    #[param(value_type = Option<Vec<OrderId>>, style = Form, explode = false, min_items = 1, max_items = 100)]
    ids: Option<Several<OrderId>>,
    /// Only those of these statuses. All but REJECTED, when it is left out.
    #[param(value_type = Option<Vec<OrderStatus>>, style = Form, explode = false, min_items = 1, max_items = 100)]
    status: Option<Several<OrderStatus>>,
    /// Only those that were placed at that time or later.
    #[serde(default, deserialize_with = "json::optional_time")]
    from: Option<DateTime<Utc>>,
    /// Only those that were placed before that time.
    #[serde(default, deserialize_with = "json::optional_time")]
    until: Option<DateTime<Utc>>,
}

/// The statuses of listed orders. A caller that names orders wants to know their outcome; in a list of all orders,
/// refused ones are in the way.
pub(in crate::routes) fn wanted_statuses(statuses: Option<Several<OrderStatus>>, are_named: bool) -> Vec<OrderStatus> {
    match statuses {
        Some(Several(statuses)) => statuses,
        None if are_named => Vec::new(),
        None => OrderStatus::VARIANTS.iter().copied().filter(|status| *status != OrderStatus::Rejected).collect(),
    }
}

/// List a user's orders
///
/// A page reads at most 10,000 orders: one of a rare status may have fewer items than `limit` and still a `nextCursor`.
#[utoipa::path(
    get, path = "/orders", operation_id = "list_orders", tag = "orders", params(OrdersQuery, Page::<OrderId>),
    responses((status = 200, description = "the newest first", body = List<Order, OrderId>), ReadProblems),
)]
pub async fn list(
    State(app): State<SharedApp>,
    ListParams { filter, page }: ListParams<OrdersQuery, OrderId>,
) -> Result<Json<List<Order, OrderId>>, ApiError> {
    let ids = filter.ids.map(|Several(ids)| ids);
    let wanted = OrdersFilter {
        user: Some(filter.user_id),
        statuses: wanted_statuses(filter.status, ids.is_some()),
        ids,
        placed: TimeRange { from: filter.from, until: filter.until },
        before: page.cursor,
        limit: page.rows(),
    };
    let search = db::within(db::orders::list(&app.database.pool(), &wanted)).await?;
    Ok(page.list_search(search, |order| order.order_id))
}
