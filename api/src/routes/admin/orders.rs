use dibs_common::{
    clock::TimeRange,
    domain::order::{Order, OrderStatus},
    identifiers::{OrderId, UserId},
    json,
};

use crate::routes::{
    orders::list::{WantedOrders, find_page},
    prelude::*,
};

/// Which orders.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AdminOrdersQuery {
    /// Only those of this user.
    user_id: Option<UserId>,
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

problems! { AdminProblems: 400 "VALIDATION_FAILED" }

/// List orders of all users
///
/// A page reads at most 10,000 orders: one of a rare status may have fewer items than `limit` and still a `nextCursor`.
#[utoipa::path(
    get, path = "/admin/orders", operation_id = "listOrdersOfAllUsers", tag = "support",
    params(AdminOrdersQuery, Page::<OrderId>),
    responses((status = 200, description = "the newest first", body = List<Order, OrderId>), Problems),
)]
pub async fn orders(
    app: SharedApp,
    _: Administrator,
    ListParams { filter, page }: ListParams<AdminOrdersQuery, OrderId>,
) -> JsonResult<List<Order, OrderId>> {
    let AdminOrdersQuery { user_id: user, ids, status, from, until } = filter;
    find_page(&app, WantedOrders { user, ids, status, placed: TimeRange { from, until } }, page).await
}
