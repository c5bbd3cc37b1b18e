use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Display,
};

use sqlx::{FromRow, MySqlConnection, mysql::MySqlRow};
use uuid::Uuid;

use super::{COLUMNS, DecidedRow, OrderRow, list_items, reject_reason};
use crate::{
    clock::Timestamp,
    db::{
        DuplicateCheck,
        decode::{identifier, parse},
        products::{self, ProductRow},
        statements,
    },
    domain::{
        campaign::Discount,
        order::{Command, IssuedCoupon, LockedState, Order, OrderRejectReason, OrderRules, RequiredRows, UnpaidOrders},
        points::Account,
        product::Product,
    },
    identifiers::{ClaimId, CommandId, OrderId, ProductId, UserId},
};

/// Locks every row that the commands need and reads it. Locks go by table (orders, products, coupons, accounts) and by
/// id, so that no two batches wait for each other in a circle.
pub async fn lock_state(
    connection: &mut MySqlConnection,
    commands: &[Command],
    rules: &OrderRules,
    duplicate_check: DuplicateCheck,
) -> Result<LockedState, sqlx::Error> {
    let mut needs = RequiredRows::of(commands);
    if !rules.limits_unpaid_orders() {
        needs.unpaid_of.clear();
    }
    if duplicate_check == DuplicateCheck::Optimistic {
        // Orders that the batch changes are read all the same; an order that it places has the id of its command.
        let changed = |command: &&Command| command.order().0 != command.id.0;
        needs.orders = commands.iter().filter(changed).map(Command::order).collect();
        needs.commands.clear();
    }
    let orders = lock_orders(connection, &needs.orders).await?;
    // Which products, coupons and accounts a cancellation gives back is known only from its order.
    needs.add_rows_to_restore(commands, &orders);
    Ok(LockedState {
        orders,
        products: lock_products(connection, &needs.products).await?,
        unpaid: count_unpaid(connection, &needs.unpaid_of).await?,
        coupons: lock_coupons(connection, &needs.coupons).await?,
        accounts: lock_accounts(connection, &needs.accounts).await?,
        decided: list_decided(connection, &needs.commands).await?,
    })
}

/// Rows whose key is among `keys`, literals in ascending order. `head` and `tail` are the SQL before and after the
/// list.
pub(super) async fn list_locked<R: for<'r> FromRow<'r, MySqlRow> + Send + Unpin>(
    connection: &mut MySqlConnection,
    head: &str,
    tail: &str,
    keys: Vec<String>,
) -> Result<Vec<R>, sqlx::Error> {
    // Short enough to be sent in one TLS record, see `Database::statement_bytes`.
    const KEYS_PER_STATEMENT: usize = 350;
    let mut rows = Vec::with_capacity(keys.len());
    for keys in keys.chunks(KEYS_PER_STATEMENT) {
        let sql = format!("{head} ({}) {tail}", keys.join(","));
        // As text: preparing a statement that is used once costs one more round trip. Closing it sends a packet without
        // a response, which delays the next packet by 40 ms, as the client does not set TCP_NODELAY.
        let found = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).fetch_all(&mut *connection).await?;
        for row in &found {
            rows.push(R::from_row(row)?);
        }
    }
    Ok(rows)
}

pub(super) fn literals<K: Copy, L: Display>(keys: &BTreeSet<K>, literal: impl Fn(K) -> L) -> Vec<String> {
    keys.iter().map(|key| literal(*key).to_string()).collect()
}

async fn lock_orders(
    connection: &mut MySqlConnection,
    ids: &BTreeSet<OrderId>,
) -> Result<BTreeMap<OrderId, Order>, sqlx::Error> {
    // FORCE INDEX, here and below: with a long list the optimizer may scan the table, and lock every row of it.
    let head =
        format!("SELECT /* orders::lock_orders */ {COLUMNS} FROM orders FORCE INDEX (PRIMARY) WHERE order_id IN");
    let tail = "ORDER BY order_id FOR UPDATE";
    let rows: Vec<OrderRow> = list_locked(connection, &head, tail, literals(ids, |id| statements::id(id.0))).await?;
    let mut orders = BTreeMap::new();
    for row in rows {
        let order = row.decode()?;
        orders.insert(order.order_id, order);
    }
    // The items of an order never change, so they need no lock.
    for (id, item) in list_items(connection, orders.keys().copied()).await? {
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
    let columns = products::COLUMNS;
    let head =
        format!("SELECT /* orders::lock_products */ {columns} FROM products FORCE INDEX (PRIMARY) WHERE product_id IN");
    let tail = "ORDER BY product_id FOR UPDATE";
    let rows: Vec<ProductRow> = list_locked(connection, &head, tail, literals(ids, |id| id)).await?;
    let product = |row: ProductRow| {
        let product = row.decode()?;
        Ok((product.id, product))
    };
    rows.into_iter().map(product).collect()
}

/// What unpaid orders of these users hold. Not locked: all commands of a user pass through one stream in turn.
async fn count_unpaid(
    connection: &mut MySqlConnection,
    users: &BTreeSet<UserId>,
) -> Result<BTreeMap<UserId, UnpaidOrders>, sqlx::Error> {
    // FORCE INDEX: the optimizer may prefer all orders of a user, or all unpaid orders of the shop.
    let head = "SELECT /* orders::count_unpaid */ o.user_id, o.order_id, i.product_id, i.quantity \
        FROM orders o FORCE INDEX (unpaid_of_user) JOIN order_items i ON i.order_id = o.order_id \
        WHERE o.status = 'DEPOSIT_WAIT' AND o.user_id IN";
    let tail = "ORDER BY o.user_id, o.order_id";
    let rows: Vec<(u64, Uuid, u64, u32)> = list_locked(connection, head, tail, literals(users, |id| id)).await?;
    let (mut unpaid, mut last) = (BTreeMap::<UserId, UnpaidOrders>::new(), None);
    for (user, order, product, quantity) in rows {
        let counted = unpaid.entry(identifier(user)?).or_default();
        // An order has a row for each of its items.
        counted.orders += i64::from(last.replace(order) != Some(order));
        *counted.units.entry(identifier(product)?).or_default() += i64::from(quantity);
    }
    Ok(unpaid)
}

#[derive(FromRow)]
struct CouponRow {
    user_coupon_id: Uuid,
    coupon_id: u64,
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
    let head = "SELECT /* orders::lock_coupons */ user_coupon_id, coupon_id, user_id, discount_type, discount_value, \
         discount_max_amount, minimum_order_amount, status, valid_until, used_at FROM user_coupons FORCE INDEX (PRIMARY) \
         WHERE user_coupon_id IN";
    let tail = "ORDER BY user_coupon_id FOR UPDATE";
    let rows: Vec<CouponRow> = list_locked(connection, head, tail, literals(ids, |id| statements::id(id.0))).await?;
    let coupon = |row: CouponRow| {
        let id = row.user_coupon_id;
        let coupon = IssuedCoupon {
            campaign: identifier(row.coupon_id)?,
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
    let head = "SELECT /* orders::lock_accounts */ user_id, balance, pending FROM point_accounts FORCE INDEX (PRIMARY) \
         WHERE user_id IN";
    let tail = "ORDER BY user_id FOR UPDATE";
    let rows: Vec<(u64, i64, i64)> = list_locked(connection, head, tail, literals(ids, |id| id)).await?;
    rows.into_iter().map(|(user, balance, pending)| Ok((identifier(user)?, Account { balance, pending }))).collect()
}

async fn list_decided(
    connection: &mut MySqlConnection,
    ids: &BTreeSet<CommandId>,
) -> Result<HashMap<CommandId, Option<OrderRejectReason>>, sqlx::Error> {
    let head =
        "SELECT /* orders::list_decided */ command_id, code, detail, facts FROM order_commands WHERE command_id IN";
    let rows: Vec<DecidedRow> = list_locked(connection, head, "", literals(ids, |id| statements::id(id.0))).await?;
    rows.into_iter()
        .map(|(id, code, detail, facts)| Ok((CommandId(id), reject_reason(code.as_deref(), detail, facts)?)))
        .collect()
}
