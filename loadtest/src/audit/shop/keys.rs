//! I12: that a key stands for one thing.

use super::rule::Rule;

/// Keys, their operations, and what these made.
pub const RULES: [Rule; 2] = [
    Rule {
        invariant: "I12",
        holds: "idempotency keys: each with an operation of its own",
        rows: "idempotency_keys",
        broken: "SELECT CONCAT_WS(' ', 'operation', LOWER(HEX(operation_id)), 'has', COUNT(*), 'keys') AS difference \
             FROM idempotency_keys GROUP BY operation_id HAVING COUNT(*) > 1",
    },
    Rule {
        invariant: "I12",
        holds: "stored answers that name an order or a charge: the one that the operation made",
        rows: "idempotency_keys WHERE status BETWEEN 200 AND 299 \
             AND (location REGEXP '^/orders/[0-9a-f-]{36}$' OR location LIKE '/points/charges/%')",
        broken: "SELECT CONCAT_WS(' ', 'operation', LOWER(HEX(k.operation_id)), 'was answered', k.status, k.location, \
                 IF(o.order_id IS NULL AND c.charge_id IS NULL, 'and made nothing', NULL)) AS difference \
             FROM idempotency_keys k LEFT JOIN orders o ON o.order_id = k.operation_id \
             LEFT JOIN charges c ON c.charge_id = k.operation_id \
             WHERE k.status BETWEEN 200 AND 299 \
                 AND (k.location REGEXP '^/orders/[0-9a-f-]{36}$' OR k.location LIKE '/points/charges/%') \
                 AND (UNHEX(REPLACE(SUBSTRING_INDEX(k.location, '/', -1), '-', '')) <> k.operation_id \
                     OR IF(k.location LIKE '/orders/%', o.order_id, c.charge_id) IS NULL)",
    },
];
