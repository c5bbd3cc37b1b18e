use chrono::TimeDelta;
use sqlx::{MySqlPool, QueryBuilder};
use uuid::Uuid;

use super::{COLUMNS, OrderRow, read::with_items};
use crate::{
    clock::{TimeRange, Timestamp},
    db::{MAX_ROWS_READ, Search, statements},
    domain::order::{Order, OrderStatus},
    identifiers::{OrderId, UserId, first_uuid_at},
};

/// Which orders to list.
#[derive(Clone, Debug, Default)]
pub struct OrdersFilter {
    /// Only those of this user.
    pub user: Option<UserId>,
    /// Only these.
    pub ids: Option<Vec<OrderId>>,
    /// Only those of these statuses; any when it is empty.
    pub statuses: Vec<OrderStatus>,
    /// Only those that were placed within it.
    pub placed: TimeRange,
    /// Only orders that were placed before this one.
    pub before: Option<OrderId>,
    pub limit: u32,
}

/// How much older than the order its id may be: a repeat with an idempotency key, which is kept for a day, has the id of
/// the first attempt.
const ID_BEFORE_ORDER: TimeDelta = TimeDelta::hours(25);
/// How much younger, by clocks that differ.
const ID_AFTER_ORDER: TimeDelta = TimeDelta::minutes(10);

impl OrdersFilter {
    /// The part of the index that can contain wanted orders. Ids are UUIDv7, so that their order is that of time, and a
    /// time range is one of ids, nearly.
    fn push_range(&self, query: &mut QueryBuilder<sqlx::MySql>) {
        // FORCE INDEX: others would sort all orders of a user or a status.
        let index = if self.user.is_some() && self.ids.is_none() { "of_user" } else { "PRIMARY" };
        query.push(" FROM orders FORCE INDEX (").push(index).push(") WHERE order_id < ");
        let until = self.placed.until.map(|until| first_uuid_at(later(until, ID_AFTER_ORDER)));
        let before = self.before.map(|order| order.0);
        query.push_bind([until, before].into_iter().flatten().min().unwrap_or(Uuid::max()));
        if let Some(from) = self.placed.from {
            query.push(" AND order_id >= ").push_bind(first_uuid_at(later(from, -ID_BEFORE_ORDER)));
        }
        if let Some(user) = self.user {
            query.push(" AND user_id = ").push_bind(user.get());
        }
    }
}

fn later(time: Timestamp, by: TimeDelta) -> Timestamp {
    time.checked_add_signed(by).unwrap_or(time)
}

/// A page of orders, the newest first.
pub async fn list(pool: &MySqlPool, wanted: &OrdersFilter) -> Result<Search<Order, OrderId>, sqlx::Error> {
    let read_until = if wanted.ids.is_none() { find_end(pool, wanted).await? } else { None };
    let mut query = QueryBuilder::new(format!("SELECT /* orders::list */ {COLUMNS}"));
    wanted.push_range(&mut query);
    if let Some(end) = read_until {
        query.push(" AND order_id >= ").push_bind(end.0);
    }
    if let Some(ids) = &wanted.ids {
        query.push(format!(" AND order_id IN ({})", statements::ids(ids.iter().map(|id| id.0))));
    }
    if !wanted.statuses.is_empty() {
        let statuses: Vec<String> = wanted.statuses.iter().map(|status| format!("'{}'", status.into_str())).collect();
        query.push(format!(" AND status IN ({})", statuses.join(",")));
    }
    // Without a time zone: MariaDB compares a column with a bound time of a zone as text.
    if let Some(from) = wanted.placed.from {
        query.push(" AND created_at >= ").push_bind(from.naive_utc());
    }
    if let Some(until) = wanted.placed.until {
        query.push(" AND created_at < ").push_bind(until.naive_utc());
    }
    query.push(" ORDER BY order_id DESC LIMIT ").push_bind(wanted.limit);
    // Each list of ids would be a prepared statement of its own, and push others out of the cache.
    let rows: Vec<OrderRow> = query.build_query_as().persistent(wanted.ids.is_none()).fetch_all(pool).await?;
    let orders = rows.into_iter().map(OrderRow::decode).collect::<Result<_, _>>()?;
    Ok(Search { found: with_items(pool, orders).await?, read_until })
}

/// The last order that a search reads; none when it reads all of the range. Of the index alone.
async fn find_end(pool: &MySqlPool, wanted: &OrdersFilter) -> Result<Option<OrderId>, sqlx::Error> {
    let mut query = QueryBuilder::new("SELECT /* orders::find_end */ order_id");
    wanted.push_range(&mut query);
    query.push(" ORDER BY order_id DESC LIMIT 1 OFFSET ").push_bind(MAX_ROWS_READ - 1);
    let end: Option<Uuid> = query.build_query_scalar().fetch_optional(pool).await?;
    Ok(end.map(OrderId))
}
