//! Orders: found by id or user, and everything about one.

use std::collections::BTreeSet;

use askama::Template;
use chrono::{DateTime, Utc};
use dibs_common::{
    db::{self, console::PaymentRow},
    domain::{order::Order, product::Product},
    error::{Error, Result},
    identifiers::{OrderId, ProductId, UserId, parse_uuid},
};

use super::{
    calls::Problem,
    campaigns::Listed,
    forms::QueryFields,
    guard::{At, Visit},
    page::{Failure, PageResult, Shell, encoded, render, see},
};

/// Products whose stock is shown beside the orders.
const HOT_PRODUCTS: usize = 10;
const MAX_PAYMENTS: u32 = 20;
/// Where messages about an order may have failed.
const SOURCES: [&str; 3] = ["data-platform", "kafka", "commands"];
const STATUSES: [&str; 6] = ["DEPOSIT_WAIT", "PAY_DONE", "BUY_CONFIRM", "CANCELLED", "EXPIRED", "REJECTED"];

#[derive(Template)]
#[template(path = "orders.html")]
struct OrdersPage<'p> {
    s: &'p Shell,
    find: &'p str,
    status: &'p str,
    statuses: [&'static str; 6],
    listed: &'p Listed<Order>,
    next: Option<String>,
    /// The best sellers of today, with their stock.
    hot: Vec<(Product, i64)>,
}

/// One field finds both: an id is a UUID, a user a number.
pub async fn list(visit: Visit, QueryFields(query): QueryFields) -> PageResult {
    let find = query.text("find");
    if let Some(id) = parse_uuid(find) {
        return Ok(see(&format!("/console/orders/{id}")));
    }
    let mut wanted = query.query(&["status", "cursor"]);
    let mut problem: Option<Problem> = None;
    if !find.is_empty() {
        match find.parse::<u64>().ok().and_then(|user| UserId::try_from(user).ok()) {
            Some(user) => wanted = format!("userId={user}&{wanted}"),
            None => problem = Some(Error::field("find", "expected the id of an order, or of a user").into()),
        }
    }
    let shell = visit.shell("orders");
    let path = format!("/admin/orders?{}", wanted.trim_end_matches('&'));
    let listed = match (&problem, visit.calls()) {
        (None, Ok(calls)) => calls.get::<Listed<Order>>(&path).await,
        (_, Err(problem)) => Err(problem),
        (Some(_), _) => Ok(Listed::empty()),
    };
    let listed = listed.unwrap_or_else(|failed| {
        problem = Some(failed);
        Listed::empty()
    });
    let shell = shell.with_problem(problem);
    let hot = hot_products(&visit).await.unwrap_or_default();
    Ok(render(&OrdersPage {
        s: &shell,
        find,
        status: query.text("status"),
        statuses: STATUSES,
        next: listed.next(&query.query(&["find", "status"])),
        listed: &listed,
        hot,
    }))
}

async fn hot_products(visit: &Visit) -> Result<Vec<(Product, i64)>> {
    let app = &visit.console.app;
    let ranking = app.rankings.of(1).await?;
    let sold: Vec<(ProductId, i64)> = ranking.sold.iter().take(HOT_PRODUCTS).copied().collect();
    let ids: BTreeSet<ProductId> = sold.iter().map(|(product, _)| *product).collect();
    let products = db::within(db::products::list_by_ids(&app.database.pool(), ids)).await?;
    let with_product = |(id, units): (ProductId, i64)| {
        products.iter().find(|product| product.id == id).map(|product| (product.clone(), units))
    };
    Ok(sold.into_iter().filter_map(with_product).collect())
}

/// Something that happened to the order, and became an event.
struct Event {
    kind: &'static str,
    at: DateTime<Utc>,
}

/// A message about the order that could not be delivered.
struct FailedMessage {
    id: u64,
    source: &'static str,
    kind: String,
    status: String,
}

#[derive(Template)]
#[template(path = "order.html")]
struct OrderPage<'p> {
    s: &'p Shell,
    order: &'p Order,
    payments: &'p [PaymentRow],
    events: Vec<Event>,
    failed: Vec<FailedMessage>,
    stocks: Vec<Option<i64>>,
}

impl OrderPage<'_> {
    /// Of the product of an item.
    fn stock(&self, place: &usize) -> Option<i64> {
        self.stocks.get(*place).copied().flatten()
    }
}

pub async fn show(visit: Visit, At(id): At<OrderId>) -> PageResult {
    let shell = visit.shell("orders");
    let fail = |problem: Problem| Failure(shell.clone(), problem);
    let path = format!("/admin/orders?ids={}", encoded(&id.to_string()));
    let listed: Listed<Order> = visit.calls().map_err(fail)?.get(&path).await.map_err(fail)?;
    let order = listed.items.into_iter().next().ok_or_else(|| fail(Error::OrderNotFound(id).into()))?;
    let pool = &visit.console.app.database.pool();
    let of_server = |error: Error| fail(error.into());
    let payments = db::within(db::console::list_payments(pool, id, MAX_PAYMENTS)).await.map_err(of_server)?;
    let mut failed = Vec::new();
    for source in SOURCES {
        let letters = db::within(db::console::list_letters_about(pool, source, &id.to_string())).await;
        let letters = letters.map_err(of_server)?;
        failed.extend(letters.into_iter().map(|(id, kind, status)| FailedMessage { id, source, kind, status }));
    }
    let ids: BTreeSet<ProductId> = order.items.iter().map(|item| item.product_id).collect();
    let products = db::within(db::products::list_by_ids(pool, ids)).await.map_err(of_server)?;
    let stock = |id: ProductId| products.iter().find(|product| product.id == id).map(|product| product.stock);
    let stocks = order.items.iter().map(|item| stock(item.product_id)).collect();
    let events = events(&order);
    Ok(render(&OrderPage { s: &shell, order: &order, payments: &payments, events, failed, stocks }))
}

fn events(order: &Order) -> Vec<Event> {
    use dibs_common::domain::order::OrderStatus::{Expired, Rejected};
    let ended = if order.status == Expired { "order.expired" } else { "order.cancelled" };
    let created = (order.status != Rejected).then_some(order.created_at);
    let all = [
        ("order.created", created),
        ("order.paid", order.paid_at),
        ("order.confirmed", order.confirmed_at),
        (ended, order.ended_at),
    ];
    all.into_iter().filter_map(|(kind, at)| at.map(|at| Event { kind, at })).collect()
}
