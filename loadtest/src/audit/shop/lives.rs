//! I8: that only legal changes happened.

use super::rule::Rule;

/// Statuses, their times, and what was told of them.
pub const RULES: [Rule; 6] = [
    Rule {
        invariant: "I8",
        holds: "orders: paid, confirmed and ended at a time exactly when the status says so",
        rows: "orders",
        broken: "SELECT CONCAT_WS(' ', 'order', LOWER(HEX(order_id)), 'is', status, IF(paid_at IS NULL, NULL, \
                 'with paid_at'), IF(payment_id IS NULL, NULL, 'with payment_id'), IF(confirmed_at IS NULL, NULL, \
                 'with confirmed_at'), IF(ended_at IS NULL, NULL, 'with ended_at'), IF(code IS NULL, NULL, 'with code')) \
                 AS difference \
             FROM orders \
             WHERE (status IN ('PAY_DONE', 'BUY_CONFIRM') AND paid_at IS NULL) \
                 OR (status IN ('DEPOSIT_WAIT', 'EXPIRED', 'REJECTED') AND paid_at IS NOT NULL) \
                 OR (paid_at IS NULL) <> (payment_id IS NULL) \
                 OR (status = 'BUY_CONFIRM') <> (confirmed_at IS NOT NULL) \
                 OR (status IN ('CANCELLED', 'EXPIRED')) <> (ended_at IS NOT NULL) \
                 OR (status = 'EXPIRED' AND ended_at < expires_at) \
                 OR (status = 'REJECTED') <> (code IS NOT NULL)",
    },
    Rule {
        invariant: "I8",
        holds: "payments: DONE, FAIL or CANCELLED as their order is, cancelled at a time when CANCELLED",
        rows: "payments",
        broken: "SELECT CONCAT_WS(' ', 'payment', LOWER(HEX(p.payment_id)), 'is', p.status, IF(p.cancelled_at IS NULL, \
                 NULL, 'with cancelled_at'), 'order', LOWER(HEX(p.order_id)), 'is', o.status) AS difference \
             FROM payments p JOIN orders o ON o.order_id = p.order_id \
             WHERE (p.status = 'CANCELLED') <> (p.cancelled_at IS NOT NULL) \
                 OR (p.status = 'DONE' AND o.status NOT IN ('PAY_DONE', 'BUY_CONFIRM')) \
                 OR (p.status = 'CANCELLED' AND o.status <> 'CANCELLED')",
    },
    Rule {
        invariant: "I8",
        holds: "charges: decided at a time exactly when no longer PENDING",
        rows: "charges",
        broken: "SELECT CONCAT_WS(' ', 'charge', LOWER(HEX(charge_id)), 'is', status, 'decided at', decided_at) \
                 AS difference FROM charges WHERE (status = 'PENDING') <> (decided_at IS NULL)",
    },
    Rule {
        invariant: "I8",
        holds: "commands: what was done shows in the order, a failed payment is kept as FAIL",
        rows: "order_commands",
        broken: "SELECT CONCAT_WS(' ', 'command', LOWER(HEX(c.command_id)), c.type, COALESCE(c.code, 'done'), \
                 'for order', LOWER(HEX(c.order_id)), COALESCE(o.status, 'which is not there'), 'payment', p.status) \
                 AS difference \
             FROM order_commands c LEFT JOIN orders o ON o.order_id = c.order_id \
             LEFT JOIN payments p ON p.payment_id = c.command_id \
             WHERE (c.code IS NULL AND NOT COALESCE(o.user_id = c.user_id AND CASE c.type \
                     WHEN 'PAY' THEN o.paid_at IS NOT NULL \
                     WHEN 'CONFIRM' THEN o.status = 'BUY_CONFIRM' \
                     ELSE o.status = 'CANCELLED' END, FALSE)) \
                 OR (c.type = 'PAY' AND c.code = 'POINTS_INSUFFICIENT') <> COALESCE(p.status = 'FAIL', FALSE)",
    },
    // The order of the events, and their number: each step of an order's life is told once, after the one before. Events
    // are purged after a while, in their order.
    Rule {
        invariant: "I8",
        holds: "orders: the events of each are one legal path, which ends in its status",
        rows: "orders",
        broken: "SELECT CONCAT_WS(' ', 'order', LOWER(HEX(o.order_id)), 'is', o.status, 'events:', \
                 COALESCE(e.created, 0), 'created', COALESCE(e.paid, 0), 'paid', COALESCE(e.confirmed, 0), 'confirmed', \
                 COALESCE(e.cancelled, 0), 'cancelled', COALESCE(e.expired, 0), 'expired', COALESCE(e.told, 0), \
                 'in all', IF(COALESCE(e.is_in_order, TRUE), NULL, 'out of order')) AS difference \
             FROM orders o LEFT JOIN (SELECT UNHEX(REPLACE(aggregate_id, '-', '')) AS order_id, COUNT(*) AS told, \
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
                 OR COALESCE(e.told, 0) <> COALESCE(e.created + e.paid + e.confirmed + e.cancelled + e.expired, 0) \
                 OR NOT COALESCE(e.is_in_order, TRUE))",
    },
    Rule {
        invariant: "I8",
        holds: "events of orders: each of an order that is there",
        rows: "outbox_events WHERE aggregate_type = 'ORDER'",
        broken: "SELECT CONCAT_WS(' ', 'event', e.event_id, e.type, 'is of order', e.aggregate_id, \
                 'which is not there') AS difference \
             FROM outbox_events e LEFT JOIN orders o ON o.order_id = UNHEX(REPLACE(e.aggregate_id, '-', '')) \
             WHERE e.aggregate_type = 'ORDER' AND o.order_id IS NULL",
    },
];
