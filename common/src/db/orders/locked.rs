//! Which rows other sessions have locked.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{FromRow, MySqlConnection, mysql::MySqlRow};
use uuid::Uuid;

use super::{
    list_items,
    lock::{list_locked, literals},
};
use crate::{
    db::{Database, statements},
    domain::order::{Action, Command, RequiredRows},
    identifiers::OrderId,
};

/// Whether each of the commands needs a row that another session has locked.
pub async fn find_locked(database: &Database, commands: &[Command]) -> Result<Vec<bool>, sqlx::Error> {
    let mut transaction = database.begin_batch().await?;
    let locked = find(&mut transaction, commands).await?;
    // Those that were free are locked by this session now.
    transaction.rollback().await?;
    Ok(locked)
}

async fn find(connection: &mut MySqlConnection, commands: &[Command]) -> Result<Vec<bool>, sqlx::Error> {
    let mut required: Vec<RequiredRows> =
        commands.iter().map(|command| RequiredRows::of(std::slice::from_ref(command))).collect();
    // An order that ends gives back the stock of its products. Items never change, so they need no lock.
    let ended =
        commands.iter().filter(|command| matches!(command.action, Action::Cancel { .. } | Action::Expire { .. }));
    let mut products: BTreeMap<OrderId, BTreeSet<_>> = BTreeMap::new();
    for (order, item) in list_items(&mut *connection, ended.map(Command::order)).await? {
        products.entry(order).or_default().insert(item.product_id);
    }
    for (command, rows) in commands.iter().zip(&mut required) {
        rows.products.extend(products.get(&command.order()).into_iter().flatten());
    }
    let all = |keys: fn(&RequiredRows) -> Vec<String>| -> Vec<String> {
        required.iter().flat_map(keys).collect::<BTreeSet<_>>().into_iter().collect()
    };
    let orders = all(|rows| literals(&rows.orders, |id| statements::id(id.0)));
    let orders: BTreeSet<Uuid> = held_by_others(connection, "orders", "order_id", orders).await?;
    let products = all(|rows| literals(&rows.products, |id| id));
    let products: BTreeSet<u64> = held_by_others(connection, "products", "product_id", products).await?;
    let coupons = all(|rows| literals(&rows.coupons, |id| statements::id(id.0)));
    let coupons: BTreeSet<Uuid> = held_by_others(connection, "user_coupons", "user_coupon_id", coupons).await?;
    let accounts = all(|rows| literals(&rows.accounts, |id| id));
    let accounts: BTreeSet<u64> = held_by_others(connection, "point_accounts", "user_id", accounts).await?;
    let is_locked = |rows: &RequiredRows| {
        rows.orders.iter().any(|id| orders.contains(&id.0))
            || rows.products.iter().any(|id| products.contains(&id.get()))
            || rows.coupons.iter().any(|id| coupons.contains(&id.0))
            || rows.accounts.iter().any(|id| accounts.contains(&id.get()))
    };
    Ok(required.iter().map(is_locked).collect())
}

/// Rows of `table` that exist, and that SKIP LOCKED skips.
async fn held_by_others<K: Ord>(
    connection: &mut MySqlConnection,
    table: &str,
    key: &str,
    keys: Vec<String>,
) -> Result<BTreeSet<K>, sqlx::Error>
where
    (K,): for<'r> FromRow<'r, MySqlRow> + Send + Unpin,
{
    let head = format!("SELECT /* orders::held_by_others */ {key} FROM {table} FORCE INDEX (PRIMARY) WHERE {key} IN");
    let existing: Vec<(K,)> = list_locked(connection, &head, "", keys.clone()).await?;
    let free: Vec<(K,)> = list_locked(connection, &head, "FOR UPDATE SKIP LOCKED", keys).await?;
    let mut locked: BTreeSet<K> = existing.into_iter().map(|(key,)| key).collect();
    for (key,) in free {
        locked.remove(&key);
    }
    Ok(locked)
}
