use chrono::NaiveDate;
use sqlx::{MySqlConnection, MySqlPool};
use uuid::Uuid;

use crate::{
    clock::Timestamp,
    db::{
        retention::delete_older,
        statements::{Statements, id, moment, or_null, text, write_into},
    },
    domain::{
        facts::Facts,
        order::{Command, LedgerRow, LockedState, Order, OrderOutcome, OrderPlan, Payment, PaymentStatus, StockChange},
    },
};

/// A batch of commands and what was planned for it, under the locks of `state`.
#[derive(Clone, Copy, Debug)]
pub struct PlannedCommands<'a> {
    pub state: &'a LockedState,
    pub commands: &'a [Command],
    pub plan: &'a OrderPlan,
}

/// Writes the plan of a batch, in texts of at most `statement_bytes`.
///
/// Fails with [`crate::db::is_duplicate`] when a command was decided before and the plan does not know it.
pub async fn write_plan(
    connection: &mut MySqlConnection,
    batch: PlannedCommands<'_>,
    now: Timestamp,
    statement_bytes: usize,
) -> Result<(), sqlx::Error> {
    let PlannedCommands { state, commands, plan } = batch;
    let mut statements = Statements::new(statement_bytes);
    // Every part returns how many rows it must change, for the check at the end.
    let mut rows = write_orders(&mut statements, state, plan);
    rows += write_stock(&mut statements, plan, now);
    rows += write_coupons(&mut statements, state, plan);
    rows += write_points(&mut statements, state, plan, now);
    rows += write_payments(&mut statements, plan, now);
    rows += write_outcomes(&mut statements, commands, plan, now);
    statements.push_events(&plan.events, now);
    rows += plan.events.len();
    let affected = statements.send(connection).await?;
    // The sum works because sqlx asks the server for matched rows, not for changed ones.
    if affected == rows as u64 {
        Ok(())
    } else {
        // Every row is locked, so a different count is a defect, and the transaction must roll back.
        Err(sqlx::Error::Encode(format!("expected to write {rows} rows, wrote {affected}").into()))
    }
}

fn optional_id(value: Option<Uuid>) -> String {
    or_null(value, id)
}

fn optional_moment(value: Option<Timestamp>) -> String {
    or_null(value, moment)
}

fn write_orders(statements: &mut Statements, state: &LockedState, plan: &OrderPlan) -> usize {
    // Changes go before inserts: a new order may use the coupon that a cancelled order of the same batch gives back,
    // and the key `coupon_used_once` rejects two live orders with one coupon after every statement.
    let head = "UPDATE /* orders::write_orders */ JSON_TABLE('[";
    let tail = "]', '$[*]' COLUMNS(order_id CHAR(32) PATH '$[0]', status VARCHAR(12) PATH '$[1]', \
        payment_id CHAR(32) PATH '$[2]', paid_at DATETIME(3) PATH '$[3]', confirmed_at DATETIME(3) PATH '$[4]', \
        ended_at DATETIME(3) PATH '$[5]', paid_on DATE PATH '$[6]')) AS n STRAIGHT_JOIN orders o FORCE INDEX (PRIMARY) ON o.order_id = UNHEX(n.order_id) \
        SET o.status = n.status, o.payment_id = UNHEX(n.payment_id), o.paid_at = n.paid_at, o.paid_on = n.paid_on, \
        o.confirmed_at = n.confirmed_at, o.ended_at = n.ended_at";
    // One UPDATE joins all rows with their new values: a statement for each row would be parsed one by one.
    let changed = plan.changed.iter().filter_map(|id| state.orders.get(id));
    statements.push_rows(head, tail, changed, |sql, order| {
        let payment = json_id(order.payment_id.map(|payment| payment.0));
        let (paid, confirmed, ended) =
            (json_moment(order.paid_at), json_moment(order.confirmed_at), json_moment(order.ended_at));
        let paid_on = order.paid_on.map_or_else(|| "null".into(), |day| format!("\"{day}\""));
        let (order_id, status) = (order.order_id.0.simple(), order.status.into_str());
        write_into(sql, format_args!("[\"{order_id}\",\"{status}\",{payment},{paid},{confirmed},{ended},{paid_on}]"));
    });
    let placed: Vec<&Order> = plan.placed.iter().filter_map(|id| state.orders.get(id)).collect();
    let head = "INSERT INTO orders /* orders::write_orders */ (order_id, user_id, status, code, detail, facts, \
        total_amount, discount_amount, pay_amount, user_coupon_id, payment_id, created_at, expires_at, paid_at, paid_on, \
        confirmed_at, ended_at) VALUES ";
    statements.push_rows(head, "", &placed, |sql, order| write_order(sql, order));
    let head =
        "INSERT INTO order_items /* orders::write_orders */ (order_id, product_id, name, unit_price, quantity) VALUES ";
    let items: Vec<_> = placed.iter().flat_map(|order| order.items.iter().map(|item| (order.order_id, item))).collect();
    statements.push_rows(head, "", &items, |sql, (order, item)| {
        write_into(sql, format_args!("({},{},", id(order.0), item.product_id));
        text(sql, &item.name);
        write_into(sql, format_args!(",{},{})", item.unit_price, item.quantity));
    });
    placed.len() + items.len() + plan.changed.len()
}

fn json_id(value: Option<Uuid>) -> String {
    value.map_or_else(|| "null".into(), |value| format!("\"{}\"", value.simple()))
}

fn json_moment(value: Option<Timestamp>) -> String {
    value.map_or_else(|| "null".into(), |value| moment(value).replace('\'', "\""))
}

fn write_facts(sql: &mut String, facts: Option<&Facts>) {
    // None as NULL: nearly all rows have none.
    match facts.filter(|facts| !facts.is_empty()).map(serde_json::to_string) {
        Some(Ok(json)) => text(sql, &json),
        // Facts are numbers and words, so they can always be written.
        Some(Err(_)) | None => sql.push_str("NULL"),
    }
}

fn write_order(sql: &mut String, order: &Order) {
    let (order_id, user, status) = (id(order.order_id.0), order.user_id, order.status.into_str());
    write_into(sql, format_args!("({order_id},{user},'{status}',"));
    match (order.code, &order.detail) {
        (Some(code), detail) => {
            write_into(sql, format_args!("'{}',", code.into_str()));
            text(sql, detail.as_deref().unwrap_or_default());
        }
        (None, _) => sql.push_str("NULL,NULL"),
    }
    sql.push(',');
    write_facts(sql, order.facts.as_deref());
    let Order { total_amount, discount_amount, pay_amount, .. } = order;
    let coupon = optional_id(order.user_coupon_id.map(|coupon| coupon.0));
    let payment = optional_id(order.payment_id.map(|payment| payment.0));
    let (created, expires) = (moment(order.created_at), moment(order.expires_at));
    let (paid, confirmed, ended) =
        (optional_moment(order.paid_at), optional_moment(order.confirmed_at), optional_moment(order.ended_at));
    let paid_on = or_null(order.paid_on, |day: NaiveDate| format!("'{day}'"));
    write_into(
        sql,
        format_args!(
            ",{total_amount},{discount_amount},{pay_amount},{coupon},{payment},{created},{expires},{paid},\
             {paid_on},{confirmed},{ended})"
        ),
    );
}

/// Units sold and restored. CHECK constraints of the table keep the stock non-negative and equal to its sum.
fn write_stock(statements: &mut Statements, plan: &OrderPlan, now: Timestamp) -> usize {
    // FORCE INDEX: of a small table the optimizer would read every row, and wait for those that others have locked.
    let head = "UPDATE /* orders::write_stock */ JSON_TABLE('[";
    let tail = format!(
        "]', '$[*]' COLUMNS(product_id BIGINT UNSIGNED PATH '$[0]', sold BIGINT PATH '$[1]', \
         restored BIGINT PATH '$[2]')) AS n STRAIGHT_JOIN products p FORCE INDEX (PRIMARY) ON p.product_id = n.product_id \
         SET p.stock = p.stock - n.sold + n.restored, p.sold = p.sold + n.sold, p.restored = p.restored + n.restored, \
         p.updated_at = {}",
        moment(now)
    );
    let stock = plan.stock.iter();
    statements.push_rows(head, &tail, stock, |sql, (product, StockChange { sold, restored })| {
        write_into(sql, format_args!("[{product},{sold},{restored}]"));
    });
    plan.stock.len()
}

fn write_coupons(statements: &mut Statements, state: &LockedState, plan: &OrderPlan) -> usize {
    let head = "UPDATE /* orders::write_coupons */ JSON_TABLE('[";
    let tail = "]', '$[*]' COLUMNS(user_coupon_id CHAR(32) PATH '$[0]', status VARCHAR(7) PATH '$[1]', \
        used_at DATETIME(3) PATH '$[2]')) AS n STRAIGHT_JOIN user_coupons c \
        ON c.user_coupon_id = UNHEX(n.user_coupon_id) SET c.status = n.status, c.used_at = n.used_at";
    let coupons = plan.coupons.iter().filter_map(|id| Some((id, state.coupons.get(id)?)));
    statements.push_rows(head, tail, coupons, |sql, (id, coupon)| {
        let (status, used_at) = (coupon.status.into_str(), json_moment(coupon.used_at));
        write_into(sql, format_args!("[\"{}\",\"{status}\",{used_at}]", id.0.simple()));
    });
    plan.coupons.len()
}

fn write_points(statements: &mut Statements, state: &LockedState, plan: &OrderPlan, now: Timestamp) -> usize {
    let head = "UPDATE /* orders::write_points */ JSON_TABLE('[";
    let now = moment(now);
    let tail = format!(
        "]', '$[*]' COLUMNS(user_id BIGINT UNSIGNED PATH '$[0]', balance BIGINT PATH '$[1]')) AS n \
         STRAIGHT_JOIN point_accounts a FORCE INDEX (PRIMARY) ON a.user_id = n.user_id SET a.balance = n.balance, a.updated_at = {now}"
    );
    let accounts = plan.accounts.iter().filter_map(|user| Some((user, state.accounts.get(user)?)));
    statements.push_rows(head, &tail, accounts, |sql, (user, account)| {
        write_into(sql, format_args!("[{user},{}]", account.balance));
    });
    let head = "INSERT INTO point_histories /* orders::write_points */ (user_id, type, amount, balance_after, reference_id, \
        order_id, created_at) VALUES ";
    statements.push_rows(head, "", &plan.ledger, |sql, row| {
        let LedgerRow { user, kind, amount, balance_after, payment, order } = row;
        let (kind, payment, order) = (kind.into_str(), id(payment.0), id(order.0));
        write_into(sql, format_args!("({user},'{kind}',{amount},{balance_after},{payment},{order},{now})"));
    });
    plan.accounts.len() + plan.ledger.len()
}

fn write_payments(statements: &mut Statements, plan: &OrderPlan, now: Timestamp) -> usize {
    let now = moment(now);
    let head = "INSERT INTO payments /* orders::write_payments */ (payment_id, order_id, user_id, amount, status, code, facts, \
        created_at, cancelled_at) VALUES ";
    statements.push_rows(head, "", &plan.payments, |sql, payment| {
        let Payment { id: payment_id, order, user, amount, status, reject_reason } = payment;
        let code = or_null(reject_reason.as_ref(), |reason| format!("'{}'", reason.code.into_str()));
        let cancelled = if *status == PaymentStatus::Cancelled { &now } else { "NULL" };
        let (payment_id, order, status) = (id(payment_id.0), id(order.0), status.into_str());
        write_into(sql, format_args!("({payment_id},{order},{user},{amount},'{status}',{code},"));
        write_facts(sql, reject_reason.as_ref().map(|reason| &*reason.facts));
        write_into(sql, format_args!(",{now},{cancelled})"));
    });
    // Only a DONE payment is refunded. A second refund changes no row, so the count is off and the batch rolls back.
    let head = format!(
        "UPDATE payments /* orders::write_payments */ SET status = 'CANCELLED', cancelled_at = {now} \
         WHERE status = 'DONE' AND payment_id IN ("
    );
    statements.push_rows(&head, ")", &plan.refunded, |sql, payment| sql.push_str(&id(payment.0)));
    plan.payments.len() + plan.refunded.len()
}

fn write_outcomes(statements: &mut Statements, commands: &[Command], plan: &OrderPlan, now: Timestamp) -> usize {
    let head = "INSERT INTO order_commands /* orders::write_outcomes */ (command_id, order_id, user_id, type, code, detail, facts, \
        decided_at) VALUES ";
    let now = moment(now);
    let decided = plan.decided.iter().filter_map(|place| Some((commands.get(*place)?, plan.outcomes.get(*place)?)));
    statements.push_rows(head, "", decided, |sql, (command, outcome)| {
        let (command_id, order) = (id(command.id.0), id(command.order().0));
        let kind = command.kind().into_str();
        write_into(sql, format_args!("({command_id},{order},{},'{kind}',", command.user));
        match outcome {
            OrderOutcome::Rejected(refusal) => {
                write_into(sql, format_args!("'{}',", refusal.code.into_str()));
                text(sql, &refusal.detail);
                sql.push(',');
                write_facts(sql, Some(&refusal.facts));
            }
            OrderOutcome::Done(_) => sql.push_str("NULL,NULL,NULL"),
        }
        write_into(sql, format_args!(",{now})"));
    });
    plan.decided.len()
}

/// Deletes at most `limit` outcomes of commands that were decided before `before`. Returns their number.
pub async fn purge_commands(pool: &MySqlPool, before: Timestamp, limit: u32) -> Result<u64, sqlx::Error> {
    let sql =
        "DELETE /* orders::purge_commands */ FROM order_commands WHERE decided_at < ? ORDER BY decided_at LIMIT ?";
    delete_older(pool, sql, before, limit).await
}

/// Deletes at most `limit` rejected orders that would have expired before `before`, with their items and failed
/// payments. Returns their number.
pub async fn purge_rejected(pool: &MySqlPool, before: Timestamp, limit: u32) -> Result<u64, sqlx::Error> {
    let orders: Vec<Uuid> = sqlx::query_scalar(
        "SELECT /* orders::purge_rejected */ order_id FROM orders WHERE status = 'REJECTED' AND expires_at < ? \
         ORDER BY expires_at LIMIT ?",
    )
    .bind(before)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    if orders.is_empty() {
        return Ok(0);
    }
    let places = vec!["?"; orders.len()].join(", ");
    // Orders last and without a transaction: they never change, and one without its items is found again.
    for table in ["order_items", "payments", "orders"] {
        let sql = format!("DELETE /* orders::purge_rejected */ FROM {table} WHERE order_id IN ({places})");
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for order in &orders {
            query = query.bind(order);
        }
        query.execute(pool).await?;
    }
    Ok(orders.len() as u64)
}
