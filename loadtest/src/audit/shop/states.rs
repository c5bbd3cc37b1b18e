//! I8: only legal state changes.

use super::rule::Rule;

/// Statuses, their timestamps, and the events of each change.
pub const RULES: [Rule; 6] = [
    Rule::new(
        "I8",
        "orders: paid_at, confirmed_at, ended_at and code are set exactly when the status requires them",
        "orders",
        "SELECT CONCAT_WS(' ', 'order', LOWER(HEX(order_id)), 'is', status, IF(paid_at IS NULL, NULL, \
                 'with paid_at'), IF(payment_id IS NULL, NULL, 'with payment_id'), IF(confirmed_at IS NULL, NULL, \
                 'with confirmed_at'), IF(ended_at IS NULL, NULL, 'with ended_at'), IF(code IS NULL, NULL, 'with code')) \
                 AS difference \
             FROM orders \
             WHERE (status IN ('PAY_DONE', 'BUY_CONFIRM') AND paid_at IS NULL) \
                 OR (status IN ('DEPOSIT_WAIT', 'EXPIRED', 'REJECTED') AND paid_at IS NOT NULL) \
                 OR (paid_at IS NULL) <> (payment_id IS NULL) \
                 OR (paid_at IS NULL) <> (paid_on IS NULL) \
                 OR (status = 'BUY_CONFIRM') <> (confirmed_at IS NOT NULL) \
                 OR (status IN ('CANCELLED', 'EXPIRED')) <> (ended_at IS NOT NULL) \
                 OR (status = 'EXPIRED' AND ended_at < expires_at) \
                 OR (status = 'REJECTED') <> (code IS NOT NULL)",
    ),
    Rule::new(
        "I8",
        "payments: the status matches that of the order, cancelled_at is set exactly when CANCELLED",
        "payments",
        "SELECT CONCAT_WS(' ', 'payment', LOWER(HEX(p.payment_id)), 'is', p.status, IF(p.cancelled_at IS NULL, \
                 NULL, 'with cancelled_at'), 'order', LOWER(HEX(p.order_id)), 'is', o.status) AS difference \
             FROM payments p JOIN orders o ON o.order_id = p.order_id \
             WHERE (p.status = 'CANCELLED') <> (p.cancelled_at IS NOT NULL) \
                 OR (p.status = 'DONE' AND o.status NOT IN ('PAY_DONE', 'BUY_CONFIRM')) \
                 OR (p.status = 'CANCELLED' AND o.status <> 'CANCELLED')",
    ),
    Rule::new(
        "I8",
        "charges: decided_at is set exactly when no longer PENDING",
        "charges",
        "SELECT CONCAT_WS(' ', 'charge', LOWER(HEX(charge_id)), 'is', status, 'decided at', decided_at) \
                 AS difference FROM charges WHERE (status = 'PENDING') <> (decided_at IS NULL)",
    ),
    Rule::new(
        "I8",
        "commands: each executed one shows in its order, a failed payment is stored as FAIL",
        "order_commands",
        "SELECT CONCAT_WS(' ', 'command', LOWER(HEX(c.command_id)), c.type, COALESCE(c.code, 'executed'), \
                 'for order', LOWER(HEX(c.order_id)), COALESCE(o.status, 'which is missing'), 'payment', p.status) \
                 AS difference \
             FROM order_commands c LEFT JOIN orders o ON o.order_id = c.order_id \
             LEFT JOIN payments p ON p.payment_id = c.command_id \
             WHERE (c.code IS NULL AND NOT COALESCE(o.user_id = c.user_id AND CASE c.type \
                     WHEN 'PAY' THEN o.paid_at IS NOT NULL \
                     WHEN 'CONFIRM' THEN o.status = 'BUY_CONFIRM' \
                     ELSE o.status = 'CANCELLED' END, FALSE)) \
                 OR (c.type = 'PAY' AND c.code = 'POINTS_INSUFFICIENT') <> COALESCE(p.status = 'FAIL', FALSE)",
    ),
    // Each state change of an order has one event, after that of the change before. Old events are purged in their
    // order, so orders from before the oldest event are left out.
    Rule::new(
        "I8",
        "orders: the events of each are one legal path to its status",
        "orders",
        "SELECT CONCAT_WS(' ', 'order', LOWER(HEX(o.order_id)), 'is', o.status, 'events:', \
                 COALESCE(e.created, 0), 'created', COALESCE(e.paid, 0), 'paid', COALESCE(e.confirmed, 0), 'confirmed', \
                 COALESCE(e.cancelled, 0), 'cancelled', COALESCE(e.expired, 0), 'expired', COALESCE(e.total, 0), \
                 'in all', IF(COALESCE(e.is_in_order, TRUE), NULL, 'out of order')) AS difference \
             FROM orders o LEFT JOIN (SELECT UNHEX(REPLACE(aggregate_id, '-', '')) AS order_id, COUNT(*) AS total, \
                     SUM(type = 'order.created') AS created, SUM(type = 'order.paid') AS paid, \
                     SUM(type = 'order.confirmed') AS confirmed, SUM(type = 'order.cancelled') AS cancelled, \
                     SUM(type = 'order.expired') AS expired, \
                     COALESCE(MAX(IF(type = 'order.created', event_id, NULL)) = MIN(event_id), TRUE) \
                         AND COALESCE(MAX(IF(type = 'order.paid', event_id, NULL)) \
                             < MIN(IF(type NOT IN ('order.created', 'order.paid'), event_id, NULL)), TRUE) AS is_in_order \
                 FROM outbox_events WHERE aggregate_type = 'ORDER' GROUP BY aggregate_id) AS e \
                 ON e.order_id = o.order_id \
             CROSS JOIN (SELECT CASE WHEN MIN(sequence) = 1 OR (SELECT last_sequence FROM outbox_sequence) = 0 \
                     THEN '1000-01-01' ELSE COALESCE(MIN(created_at) + INTERVAL 1 HOUR, NOW()) END AS since \
                 FROM outbox_events) AS kept \
             WHERE o.created_at >= kept.since AND (COALESCE(e.created, 0) <> (o.status <> 'REJECTED') \
                 OR COALESCE(e.paid, 0) <> (o.paid_at IS NOT NULL) \
                 OR COALESCE(e.confirmed, 0) <> (o.status = 'BUY_CONFIRM') \
                 OR COALESCE(e.cancelled, 0) <> (o.status = 'CANCELLED') \
                 OR COALESCE(e.expired, 0) <> (o.status = 'EXPIRED') \
                 OR COALESCE(e.total, 0) <> COALESCE(e.created + e.paid + e.confirmed + e.cancelled + e.expired, 0) \
                 OR NOT COALESCE(e.is_in_order, TRUE))",
    ),
    Rule::new(
        "I8",
        "events of orders: each of an existing order",
        "outbox_events WHERE aggregate_type = 'ORDER'",
        "SELECT CONCAT_WS(' ', 'event', e.event_id, e.type, 'is of order', e.aggregate_id, \
                 'which is missing') AS difference \
             FROM outbox_events e LEFT JOIN orders o ON o.order_id = UNHEX(REPLACE(e.aggregate_id, '-', '')) \
             WHERE e.aggregate_type = 'ORDER' AND o.order_id IS NULL",
    ),
];
