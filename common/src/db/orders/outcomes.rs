use std::collections::HashMap;

use sqlx::{FromRow as _, MySqlPool};

use super::{COLUMNS, DecidedRow, OrderRow, list_items, reject_reason};
use crate::{
    db::{decode::identifier, statements::ids},
    domain::order::{Command, CommandResult, Order, OrderOutcome, OrderRejectReason},
    identifiers::{CommandId, OrderId, UserId},
};

/// A command whose outcome a caller waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AwaitedCommand {
    pub id: CommandId,
    pub user: UserId,
    pub order: OrderId,
    /// See [`Command::has_own_outcome`].
    pub has_own_outcome: bool,
}

impl From<&Command> for AwaitedCommand {
    fn from(command: &Command) -> Self {
        let has_own_outcome = command.has_own_outcome();
        Self { id: command.id, user: command.user, order: command.order(), has_own_outcome }
    }
}

/// The outcomes of those of these commands that have one, in four statements whatever the number of commands. An order
/// and a balance are as they are now, which may be later than the command.
pub async fn find_outcomes(
    pool: &MySqlPool,
    commands: &[AwaitedCommand],
) -> Result<Vec<(CommandId, OrderOutcome)>, sqlx::Error> {
    let own = commands.iter().filter(|command| command.has_own_outcome);
    let decided = decided(pool, own.map(|command| command.id)).await?;
    let mut outcomes = Vec::new();
    let mut done = Vec::new();
    for command in commands {
        match decided.get(&command.id) {
            Some(Some(reason)) => outcomes.push((command.id, OrderOutcome::Rejected(reason.clone()))),
            Some(None) => done.push(command),
            // A command that places an order has no row of its own: the order is its outcome.
            None if !command.has_own_outcome => done.push(command),
            None => {}
        }
    }
    let orders = orders(pool, done.iter().map(|command| command.order)).await?;
    done.retain(|command| orders.contains_key(&command.order));
    // After the orders: only commands that are done have a balance in their outcome.
    let balances = balances(pool, done.iter().map(|command| command.user)).await?;
    for command in done {
        let Some(order) = orders.get(&command.order).cloned() else { continue };
        let outcome = match order.reject_reason() {
            Some(reason) if !command.has_own_outcome => OrderOutcome::Rejected(reason),
            _ => {
                let balance = Some(balances.get(&command.user).copied().unwrap_or(0));
                OrderOutcome::Done(Box::new(CommandResult { order, balance }))
            }
        };
        outcomes.push((command.id, outcome));
    }
    Ok(outcomes)
}

/// Which of these commands are decided, and why those were refused that were.
async fn decided(
    pool: &MySqlPool,
    commands: impl Iterator<Item = CommandId>,
) -> Result<HashMap<CommandId, Option<OrderRejectReason>>, sqlx::Error> {
    let ids = ids(commands.map(|command| command.0));
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let sql = format!(
        "SELECT /* orders::find_outcomes */ command_id, code, detail, facts FROM order_commands \
         WHERE command_id IN ({ids})"
    );
    // As text: see `lock::list_locked`.
    let rows = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).fetch_all(pool).await?;
    let decided = |row| {
        let (id, code, detail, facts) = DecidedRow::from_row(row)?;
        Ok((CommandId(id), reject_reason(code.as_deref(), detail, facts)?))
    };
    rows.iter().map(decided).collect()
}

/// Those of these orders that are there.
async fn orders(
    pool: &MySqlPool,
    orders: impl Iterator<Item = OrderId>,
) -> Result<HashMap<OrderId, Order>, sqlx::Error> {
    let ids = ids(orders.map(|order| order.0));
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let sql = format!("SELECT /* orders::find_outcomes */ {COLUMNS} FROM orders WHERE order_id IN ({ids})");
    let rows = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).fetch_all(pool).await?;
    let order = |row| {
        let order = OrderRow::from_row(row)?.decode()?;
        Ok((order.order_id, order))
    };
    let mut orders: HashMap<OrderId, Order> = rows.iter().map(order).collect::<Result<_, sqlx::Error>>()?;
    for (id, item) in list_items(pool, orders.keys().copied().collect::<Vec<_>>()).await? {
        if let Some(order) = orders.get_mut(&id) {
            order.items.push(item);
        }
    }
    Ok(orders)
}

/// The points of those of these users who have an account.
async fn balances(pool: &MySqlPool, users: impl Iterator<Item = UserId>) -> Result<HashMap<UserId, i64>, sqlx::Error> {
    let users: Vec<String> = users.map(|user| user.to_string()).collect();
    if users.is_empty() {
        return Ok(HashMap::new());
    }
    let sql = format!(
        "SELECT /* orders::find_outcomes */ user_id, balance FROM point_accounts WHERE user_id IN ({})",
        users.join(",")
    );
    let rows = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).fetch_all(pool).await?;
    let balance = |row| {
        let (user, balance) = <(u64, i64)>::from_row(row)?;
        Ok((identifier(user)?, balance))
    };
    rows.iter().map(balance).collect()
}
