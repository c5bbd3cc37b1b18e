//! Faults planted into the tables of a shop: each is found, and each rule finds one.

use std::collections::BTreeSet;

use dibs_common::testing::TestEnvironment;
use dibs_loadtest::audit::Check;
use sqlx::Executor as _;
use uuid::Uuid;

use super::Shop;

/// Constraints of the tables that would refuse the planted faults.
const GUARDS: [(&str, &[&str]); 5] = [
    ("products", &["products_stock_adds_up", "products_stock", "products_restored"]),
    ("point_accounts", &["point_accounts_balance"]),
    ("point_histories", &["point_histories_type", "point_histories_balance"]),
    ("orders", &["orders_amounts", "orders_rejected"]),
    ("payments", &["payments_failed"]),
];

/// Planted faults, and the invariants that must have a difference. `@unpaid` and the like stand for ids.
const FAULTS: [(&str, &[&str]); 37] = [
    ("UPDATE products SET stock = stock + 1", &["I5"]),
    ("UPDATE products SET stock = -1, initial_stock = -1 - restocked + sold - restored", &["I5"]),
    ("UPDATE products SET sold = sold + 1, stock = stock - 1", &["I5"]),
    ("UPDATE products SET restored = restored + 1, stock = stock + 1", &["I5"]),
    ("INSERT INTO order_items VALUES (@rejected, 999, 'x', 1, 1)", &["I5", "I7"]),
    ("UPDATE point_accounts SET pending = 0", &["I6"]),
    ("UPDATE point_accounts SET balance = balance + 1", &["I6"]),
    ("UPDATE point_accounts SET balance = -1", &["I6", "I6"]),
    ("INSERT INTO point_accounts VALUES (9, 1000001, 0, NOW(3), NOW(3))", &["I6", "I6"]),
    ("UPDATE point_histories SET balance_after = balance_after + 1 WHERE reference_id = @charge", &["I6"]),
    ("UPDATE charges SET status = 'DECLINED' WHERE charge_id = @charge", &["I6"]),
    ("UPDATE charges SET amount = amount + 1 WHERE charge_id = @charge", &["I6"]),
    ("DELETE FROM charges WHERE charge_id = @charge", &["I6"]),
    ("UPDATE charges SET decided_at = NULL WHERE charge_id = @charge", &["I8"]),
    (
        "INSERT INTO point_histories SELECT NULL, user_id, type, amount, balance_after + amount, UNHEX(REPEAT('1', 32)), \
         order_id, created_at FROM point_histories WHERE type = 'REFUND'",
        &["I6", "I7", "I7"],
    ),
    ("DELETE FROM point_histories WHERE type = 'REFUND'", &["I6", "I7"]),
    (
        "UPDATE orders SET total_amount = total_amount + 1, pay_amount = pay_amount + 1 WHERE order_id = @unpaid",
        &["I7"],
    ),
    ("UPDATE orders SET pay_amount = pay_amount - 1 WHERE order_id = @unpaid", &["I7"]),
    ("UPDATE orders SET discount_amount = 1, pay_amount = pay_amount - 1 WHERE order_id = @unpaid", &["I7"]),
    ("UPDATE user_coupons SET discount_value = 3999", &["I7"]),
    ("UPDATE user_coupons SET minimum_order_amount = 4001", &["I7"]),
    ("UPDATE user_coupons SET user_id = 2", &["I7"]),
    ("UPDATE user_coupons SET status = 'ISSUED'", &["I7"]),
    ("UPDATE orders SET user_coupon_id = NULL WHERE order_id = @free", &["I7", "I7"]),
    ("UPDATE payments SET status = 'CANCELLED', cancelled_at = NOW(3) WHERE order_id = @free", &["I7", "I8"]),
    ("DELETE FROM payments WHERE order_id = @confirmed", &["I7", "I7"]),
    ("UPDATE payments SET amount = amount + 1 WHERE order_id = @confirmed", &["I7", "I7"]),
    ("UPDATE orders SET payment_id = UNHEX(REPEAT('1', 32)) WHERE order_id = @confirmed", &["I7"]),
    ("UPDATE payments SET cancelled_at = NULL WHERE order_id = @cancelled", &["I8"]),
    ("UPDATE orders SET confirmed_at = NULL WHERE order_id = @confirmed", &["I8"]),
    ("UPDATE orders SET ended_at = NOW(3) WHERE order_id = @unpaid", &["I8"]),
    ("UPDATE order_commands SET order_id = @unpaid WHERE type = 'CONFIRM'", &["I8"]),
    ("DELETE FROM outbox_events WHERE type = 'order.paid' LIMIT 1", &["I8"]),
    (
        "INSERT INTO outbox_events (aggregate_type, aggregate_id, type, payload, created_at) \
         SELECT aggregate_type, aggregate_id, type, payload, created_at \
         FROM outbox_events WHERE type = 'order.cancelled'",
        &["I8", "I10"],
    ),
    // The event of the placement is the last one: legal, since the order has no other events.
    ("UPDATE outbox_events SET event_id = event_id + 1000 WHERE type = 'order.created' ORDER BY event_id LIMIT 1", &[]),
    (
        "UPDATE outbox_events SET event_id = event_id + 1000 WHERE type = 'order.created' \
         AND aggregate_id = (SELECT id FROM (SELECT aggregate_id AS id FROM outbox_events \
             WHERE type = 'order.cancelled') AS e)",
        &["I8"],
    ),
    ("UPDATE outbox_events SET aggregate_id = UUID() WHERE type = 'order.expired'", &["I8", "I8"]),
];

/// Copies of the tables, to undo planted faults.
struct TableSnapshots<'p> {
    environment: &'p TestEnvironment,
}

impl<'p> TableSnapshots<'p> {
    const TABLES: [&'static str; 11] = [
        "products",
        "order_items",
        "orders",
        "point_accounts",
        "point_histories",
        "charges",
        "payments",
        "user_coupons",
        "order_commands",
        "outbox_events",
        "idempotency_keys",
    ];

    async fn of(environment: &'p TestEnvironment) -> Self {
        for table in Self::TABLES {
            environment.execute(&format!("CREATE TABLE copy_of_{table} SELECT * FROM {table}")).await;
        }
        for (table, guards) in GUARDS {
            for guard in guards {
                environment.execute(&format!("ALTER TABLE {table} DROP CONSTRAINT {guard}")).await;
            }
        }
        Self { environment }
    }

    /// Restores the table that `fault` changed.
    async fn undo(&self, fault: &str) {
        let table = fault.split_whitespace().find(|word| Self::TABLES.contains(word)).expect("a table");
        let columns = self
            .environment
            .texts(&format!(
                "SELECT CAST(COLUMN_NAME AS CHAR) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() \
                 AND TABLE_NAME = '{table}' AND COALESCE(GENERATION_EXPRESSION, '') = ''"
            ))
            .await
            .join(", ");
        self.environment.execute(&format!("DELETE FROM {table}")).await;
        self.environment
            .execute(&format!("INSERT INTO {table} ({columns}) SELECT {columns} FROM copy_of_{table}"))
            .await;
    }
}

#[tokio::test]
async fn every_planted_fault_is_found() {
    let shop = Shop::new().await;
    let snapshots = TableSnapshots::of(&shop.environment).await;
    let id = |id: Uuid| format!("X'{}'", id.simple());
    let (mut unexpected, mut violated) = (Vec::new(), BTreeSet::new());
    for (fault, expected) in FAULTS {
        let sql = fault
            .replace("@unpaid", &id(shop.unpaid.0))
            .replace("@confirmed", &id(shop.confirmed.0))
            .replace("@cancelled", &id(shop.cancelled.0))
            .replace("@free", &id(shop.free.0))
            .replace("@rejected", &id(shop.rejected.0))
            .replace("@charge", &id(shop.charge.0));
        let planted = &shop.environment.database.pool().execute(sqlx::AssertSqlSafe(sql)).await.expect(fault);
        assert!(planted.rows_affected() > 0, "{fault}");
        let checks = shop.checks(None).await;
        let with_difference = checks.iter().enumerate().filter(|(_, check)| check.differences() > 0);
        let (places, broken): (Vec<usize>, Vec<&str>) =
            with_difference.map(|(index, check)| (index, check.invariant())).unzip();
        if broken != expected {
            unexpected.push((fault, broken));
        }
        violated.extend(places);
        snapshots.undo(fault).await;
    }
    assert!(unexpected.is_empty(), "{unexpected:#?}");
    let checks = shop.checks(None).await;
    assert!(checks.iter().all(|check| check.differences() == 0), "all faults are undone");
    // A rule that no fault violates could be wrong without notice.
    let of_tables = |check: &Check| ["I5", "I6", "I7", "I8"].contains(&check.invariant());
    let unproven = checks.iter().enumerate().filter(|(index, check)| of_tables(check) && !violated.contains(index));
    assert_eq!(unproven.collect::<Vec<_>>(), []);
    shop.environment.end().await;
}
