//! I12: an idempotency key stands for one operation.

use super::rule::Rule;

/// Keys, their operations, and what these created.
pub const RULES: [Rule; 2] = [
    Rule::new(
        "I12",
        "idempotency keys: each with an operation of its own",
        "idempotency_keys",
        "SELECT CONCAT_WS(' ', 'operation', LOWER(HEX(operation_id)), 'has', COUNT(*), 'keys') AS difference \
             FROM idempotency_keys GROUP BY operation_id HAVING COUNT(*) > 1",
    ),
    Rule::new(
        "I12",
        "stored responses with an order or a charge: the one that the operation created",
        "idempotency_keys WHERE status BETWEEN 200 AND 299 \
             AND (location REGEXP '^/orders/[0-9a-f-]{36}$' OR location LIKE '/points/charges/%')",
        "SELECT CONCAT_WS(' ', 'operation', LOWER(HEX(k.operation_id)), 'has the response', k.status, k.location, \
                 IF(o.order_id IS NULL AND c.charge_id IS NULL, 'and created nothing', NULL)) AS difference \
             FROM idempotency_keys k LEFT JOIN orders o ON o.order_id = k.operation_id \
             LEFT JOIN charges c ON c.charge_id = k.operation_id \
             WHERE k.status BETWEEN 200 AND 299 \
                 AND (k.location REGEXP '^/orders/[0-9a-f-]{36}$' OR k.location LIKE '/points/charges/%') \
                 AND (UNHEX(REPLACE(SUBSTRING_INDEX(k.location, '/', -1), '-', '')) <> k.operation_id \
                     OR IF(k.location LIKE '/orders/%', o.order_id, c.charge_id) IS NULL)",
    ),
];
