use dibs_common::{
    clock::TimeRange,
    db::orders::OrdersFilter,
    domain::order::{Order, OrderStatus},
    identifiers::{OrderId, UserId},
    json,
};
use strum::VariantArray as _;

use crate::{app::App, routes::prelude::*};

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

/// What the lists of a user and of administrators filter by.
pub(in crate::routes) struct WantedOrders {
    pub user: Option<UserId>,
    pub ids: Option<Several<OrderId>>,
    pub status: Option<Several<OrderStatus>>,
    pub placed: TimeRange,
}

pub(in crate::routes) async fn find_page(
    app: &App,
    WantedOrders { user, ids, status, placed }: WantedOrders,
    page: Page<OrderId>,
) -> JsonResult<List<Order, OrderId>> {
    let ids = ids.map(|Several(ids)| ids);
    let statuses = match status {
        Some(Several(statuses)) => statuses,
        // A caller that names orders wants to know their outcome; in a list of all orders, refused ones are in the way.
        None if ids.is_some() => Vec::new(),
        None => OrderStatus::VARIANTS.iter().copied().filter(|status| *status != OrderStatus::Rejected).collect(),
    };
    let wanted = OrdersFilter { user, statuses, ids, placed, before: page.cursor, limit: page.rows() };
    // A rare status may lie far back: the search ends after a bounded number of rows, and the next page goes on
    // there.
    let search = db::within(db::orders::list(&app.database.pool(), &wanted)).await?;
    Ok(page.list_search(search, |order| order.order_id))
}

/// List a user's orders
///
/// A page reads at most 10,000 orders: one of a rare status may have fewer items than `limit` and still a `nextCursor`.
#[utoipa::path(
    get, path = "/orders", operation_id = "listOrders", tag = "orders", params(OrdersQuery, Page::<OrderId>),
    responses((status = 200, description = "the newest first", body = List<Order, OrderId>), ReadProblems),
)]
pub async fn list(
    app: SharedApp,
    ListParams { filter, page }: ListParams<OrdersQuery, OrderId>,
) -> JsonResult<List<Order, OrderId>> {
    let OrdersQuery { user_id, ids, status, from, until } = filter;
    let wanted = WantedOrders { user: Some(user_id), ids, status, placed: TimeRange { from, until } };
    find_page(&app, wanted, page).await
}
