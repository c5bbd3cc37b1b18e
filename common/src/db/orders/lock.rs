use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Display,
};

use sqlx::{FromRow, MySqlConnection, mysql::MySqlRow};
use uuid::Uuid;

use super::{COLUMNS, OrderRow, items, refusal_code};
use crate::{
    clock::Timestamp,
    db::{
        decode::{identifier, parse},
        statements,
    },
    domain::{
        campaign::Discount,
        order::{Command, IssuedCoupon, LockedState, Order, OrderRejectReason, RequiredRows},
        points::Account,
        product::Product,
    },
    identifiers::{ClaimId, CommandId, OrderId, ProductId, UserId},
};

/// Whether a batch reads which of its commands were decided before. Nearly always none was, and looking would take
/// time; the keys of `orders` and `order_commands` do not take one twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DuplicateCheck {
    /// A command that was decided before breaks a key: see [`crate::db::is_duplicate`].
    Optimistic,
    /// Outcomes that are there are found.
    Explicit,
}

/// Locks every row that the commands need, table by table and in id order, so that no two batches wait for each other
/// in a circle: orders, products, coupons, accounts.
pub async fn lock_state(
    connection: &mut MySqlConnection,
    commands: &[Command],
    look: DuplicateCheck,
) -> Result<LockedState, sqlx::Error> {
    let mut needs = RequiredRows::of(commands);
    if look == DuplicateCheck::Optimistic {
        // An order that is changed is read even so.
        let changed = |command: &&Command| command.order().0 != command.id.0;
        needs.orders = commands.iter().filter(changed).map(Command::order).collect();
        needs.commands.clear();
    }
    let orders = lock_orders(connection, &needs.orders).await?;
    needs.add_what_orders_are_for(commands, &orders);
    Ok(LockedState {
        orders,
        products: lock_products(connection, &needs.products).await?,
        coupons: lock_coupons(connection, &needs.coupons).await?,
        accounts: lock_accounts(connection, &needs.accounts).await?,
        answered: answered(connection, &needs.commands).await?,
    })
}

/// The rows of which a key is among `keys`, literals in their order; `sql` is what stands before and behind them. A
/// statement takes so many keys that it is sent at once: see [`crate::db::Database::statement_bytes`].
async fn rows_of<R: for<'r> FromRow<'r, MySqlRow> + Send + Unpin>(
    connection: &mut MySqlConnection,
    (before, behind): (&str, &str),
    keys: Vec<String>,
) -> Result<Vec<R>, sqlx::Error> {
    const KEYS_AT_ONCE: usize = 350;
    let mut rows = Vec::with_capacity(keys.len());
    for keys in keys.chunks(KEYS_AT_ONCE) {
        let sql = format!("{before} ({}) {behind}", keys.join(","));
        // As text: a statement that is prepared for once costs a round trip more, and the word that it is no longer
        // needed, which nobody answers, holds up the next one by 40 ms where the client is not TCP_NODELAY.
        let found = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).fetch_all(&mut *connection).await?;
        for row in &found {
            rows.push(R::from_row(row)?);
        }
    }
    Ok(rows)
}

fn literals<K: Copy, L: Display>(keys: &BTreeSet<K>, literal: impl Fn(K) -> L) -> Vec<String> {
    keys.iter().map(|key| literal(*key).to_string()).collect()
}

async fn lock_orders(
    connection: &mut MySqlConnection,
    ids: &BTreeSet<OrderId>,
) -> Result<BTreeMap<OrderId, Order>, sqlx::Error> {
    let before =
        format!("SELECT /* orders::lock_orders */ {COLUMNS} FROM orders FORCE INDEX (PRIMARY) WHERE order_id IN");
    let around = (before.as_str(), "ORDER BY order_id FOR UPDATE");
    let rows: Vec<OrderRow> = rows_of(connection, around, literals(ids, |id| statements::id(id.0))).await?;
    let mut orders = BTreeMap::new();
    for row in rows {
        let order = Order::try_from(row)?;
        orders.insert(order.order_id, order);
    }
    // What an order is for never changes, so its items need no lock.
    for (id, item) in items(connection, orders.keys().copied()).await? {
        if let Some(order) = orders.get_mut(&id) {
            order.items.push(item);
        }
    }
    Ok(orders)
}

async fn lock_products(
    connection: &mut MySqlConnection,
    ids: &BTreeSet<ProductId>,
) -> Result<BTreeMap<ProductId, Product>, sqlx::Error> {
    let around = (
        "SELECT /* orders::lock_products */ product_id, name, price, stock, status FROM products FORCE INDEX (PRIMARY) \
         WHERE product_id IN",
        "ORDER BY product_id FOR UPDATE",
    );
    let rows: Vec<(u64, String, i64, i64, String)> = rows_of(connection, around, literals(ids, |id| id)).await?;
    let product = |(id, name, price, stock, status): (u64, String, i64, i64, String)| {
        let status = parse("products.status", &status)?;
        let id = identifier(id)?;
        Ok((id, Product { id, name, price, stock, status }))
    };
    rows.into_iter().map(product).collect()
}

#[derive(FromRow)]
struct CouponRow {
    user_coupon_id: Uuid,
    user_id: u64,
    discount_type: String,
    discount_value: i64,
    discount_max_amount: Option<i64>,
    minimum_order_amount: i64,
    status: String,
    valid_until: Timestamp,
    used_at: Option<Timestamp>,
}

async fn lock_coupons(
    connection: &mut MySqlConnection,
    ids: &BTreeSet<ClaimId>,
) -> Result<BTreeMap<ClaimId, IssuedCoupon>, sqlx::Error> {
    let around = (
        "SELECT /* orders::lock_coupons */ user_coupon_id, user_id, discount_type, discount_value, discount_max_amount, \
         minimum_order_amount, status, valid_until, used_at FROM user_coupons FORCE INDEX (PRIMARY) \
         WHERE user_coupon_id IN",
        "ORDER BY user_coupon_id FOR UPDATE",
    );
    let rows: Vec<CouponRow> = rows_of(connection, around, literals(ids, |id| statements::id(id.0))).await?;
    let coupon = |row: CouponRow| {
        let id = row.user_coupon_id;
        let coupon = IssuedCoupon {
            user: identifier(row.user_id)?,
            discount: Discount {
                kind: parse("user_coupons.discount_type", &row.discount_type)?,
                value: row.discount_value,
                max_amount: row.discount_max_amount,
            },
            minimum_order_amount: row.minimum_order_amount,
            valid_until: row.valid_until,
            status: parse("user_coupons.status", &row.status)?,
            used_at: row.used_at,
        };
        Ok((ClaimId(id), coupon))
    };
    rows.into_iter().map(coupon).collect()
}

async fn lock_accounts(
    connection: &mut MySqlConnection,
    ids: &BTreeSet<UserId>,
) -> Result<BTreeMap<UserId, Account>, sqlx::Error> {
    let around = (
        "SELECT /* orders::lock_accounts */ user_id, balance, pending FROM point_accounts FORCE INDEX (PRIMARY) \
         WHERE user_id IN",
        "ORDER BY user_id FOR UPDATE",
    );
    let rows: Vec<(u64, i64, i64)> = rows_of(connection, around, literals(ids, |id| id)).await?;
    rows.into_iter().map(|(user, balance, pending)| Ok((identifier(user)?, Account { balance, pending }))).collect()
}

async fn answered(
    connection: &mut MySqlConnection,
    ids: &BTreeSet<CommandId>,
) -> Result<HashMap<CommandId, Option<OrderRejectReason>>, sqlx::Error> {
    let around = ("SELECT /* orders::answered */ command_id, code, detail FROM order_commands WHERE command_id IN", "");
    let rows: Vec<(Uuid, Option<String>, Option<String>)> =
        rows_of(connection, around, literals(ids, |id| statements::id(id.0))).await?;
    let outcome = |(id, code, detail): (Uuid, Option<String>, Option<String>)| {
        let code = code.as_deref().map(refusal_code).transpose()?;
        Ok((CommandId(id), code.map(|code| OrderRejectReason::new(code, detail.unwrap_or_default()))))
    };
    rows.into_iter().map(outcome).collect()
}
