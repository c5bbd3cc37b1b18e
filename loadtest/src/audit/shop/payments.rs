//! I7: the amounts of orders, and that each is paid and refunded at most once.

use super::rule::Rule;

/// Amounts, coupons, payments and ledger rows of orders.
pub const RULES: [Rule; 7] = [
    Rule::new(
        "I7",
        "orders: total is the sum of the items, the amount to pay is total minus discount",
        "orders",
        "SELECT CONCAT_WS(' ', 'order', LOWER(HEX(o.order_id)), o.status, 'has a total of', o.total_amount, \
                 'a discount of', o.discount_amount, o.pay_amount, 'to pay, items of', COALESCE(i.total, 0)) \
                 AS difference \
             FROM orders o LEFT JOIN (SELECT order_id, SUM(unit_price * quantity) AS total FROM order_items \
                 GROUP BY order_id) AS i ON i.order_id = o.order_id \
             WHERE o.total_amount <> COALESCE(i.total, 0) OR o.pay_amount <> o.total_amount - o.discount_amount \
                 OR o.discount_amount NOT BETWEEN 0 AND o.total_amount \
                 OR (o.status = 'REJECTED') <> (i.order_id IS NULL)",
    ),
    Rule::new(
        "I7",
        "orders with a coupon or a discount: the coupon is the user's, the discount follows its terms",
        "orders WHERE status <> 'REJECTED' AND (user_coupon_id IS NOT NULL OR discount_amount <> 0)",
        "SELECT CONCAT_WS(' ', 'order', LOWER(HEX(o.order_id)), 'of', o.total_amount, 'has a discount of', \
                 o.discount_amount, 'by coupon', LOWER(HEX(o.user_coupon_id)), c.discount_type, c.discount_value, \
                 'at most', c.discount_max_amount, 'from', c.minimum_order_amount, 'on, of user', c.user_id) \
                 AS difference \
             FROM orders o LEFT JOIN user_coupons c ON c.user_coupon_id = o.user_coupon_id \
             WHERE o.status <> 'REJECTED' AND (o.user_coupon_id IS NOT NULL OR o.discount_amount <> 0) \
                 AND (c.user_coupon_id IS NULL OR c.user_id <> o.user_id OR o.total_amount < c.minimum_order_amount \
                 OR o.discount_amount <> LEAST(o.total_amount, IF(c.discount_type = 'FIXED', c.discount_value, \
                     LEAST(o.total_amount * c.discount_value DIV 100, \
                         COALESCE(c.discount_max_amount, o.total_amount)))))",
    ),
    Rule::new(
        "I7",
        "issued coupons: USED with one live order, otherwise with none",
        "user_coupons",
        "SELECT CONCAT_WS(' ', 'coupon', LOWER(HEX(c.user_coupon_id)), 'of user', c.user_id, 'is', c.status, \
                 'since', c.used_at, 'with', COALESCE(o.orders, 0), 'live orders') AS difference \
             FROM user_coupons c LEFT JOIN (SELECT user_coupon_id, COUNT(*) AS orders FROM orders \
                 WHERE user_coupon_id IS NOT NULL AND status IN ('DEPOSIT_WAIT', 'PAY_DONE', 'BUY_CONFIRM') \
                 GROUP BY user_coupon_id) AS o ON o.user_coupon_id = c.user_coupon_id \
             WHERE COALESCE(o.orders, 0) <> (c.status = 'USED') OR (c.status = 'USED') <> (c.used_at IS NOT NULL)",
    ),
    Rule::new(
        "I7",
        "orders: one payment DONE when paid, one CANCELLED when refunded, no other",
        "orders",
        "SELECT CONCAT_WS(' ', 'order', LOWER(HEX(o.order_id)), o.status, IF(o.paid_at IS NULL, 'never paid', \
                 'paid'), 'has', COALESCE(p.done, 0), 'payments DONE', COALESCE(p.cancelled, 0), 'CANCELLED') \
                 AS difference \
             FROM orders o LEFT JOIN (SELECT order_id, SUM(status = 'DONE') AS done, \
                 SUM(status = 'CANCELLED') AS cancelled FROM payments GROUP BY order_id) AS p \
                 ON p.order_id = o.order_id \
             WHERE COALESCE(p.done, 0) <> (o.status IN ('PAY_DONE', 'BUY_CONFIRM')) \
                 OR COALESCE(p.cancelled, 0) <> (o.status = 'CANCELLED' AND o.paid_at IS NOT NULL)",
    ),
    Rule::new(
        "I7",
        "orders: one ledger row PAYMENT when paid, one REFUND when refunded; none for 0 won",
        "orders",
        "SELECT CONCAT_WS(' ', 'order', LOWER(HEX(o.order_id)), o.status, IF(o.paid_at IS NULL, 'never paid', \
                 'paid'), 'with', o.pay_amount, 'has', COALESCE(h.payments, 0), 'rows PAYMENT', \
                 COALESCE(h.refunds, 0), 'rows REFUND of', h.amount, 'together') AS difference \
             FROM orders o LEFT JOIN (SELECT order_id, SUM(type = 'PAYMENT') AS payments, \
                 SUM(type = 'REFUND') AS refunds, SUM(amount) AS amount FROM point_histories \
                 WHERE order_id IS NOT NULL GROUP BY order_id) AS h ON h.order_id = o.order_id \
             WHERE COALESCE(h.payments, 0) <> (o.paid_at IS NOT NULL AND o.pay_amount > 0) \
                 OR COALESCE(h.refunds, 0) <> (o.paid_at IS NOT NULL AND o.pay_amount > 0 AND o.status = 'CANCELLED') \
                 OR h.amount <> IF(o.status = 'CANCELLED', 0, -o.pay_amount)",
    ),
    Rule::new(
        "I7",
        "payments: each of an order of its user, with its amount; the order names it unless it failed",
        "payments",
        "SELECT CONCAT_WS(' ', 'payment', LOWER(HEX(p.payment_id)), p.status, 'of user', p.user_id, 'with', \
                 p.amount, 'for order', LOWER(HEX(p.order_id)), o.status, 'of user', o.user_id, 'with', o.pay_amount, \
                 'paid by', LOWER(HEX(o.payment_id))) AS difference \
             FROM payments p LEFT JOIN orders o ON o.order_id = p.order_id \
             WHERE o.order_id IS NULL OR p.user_id <> o.user_id OR p.amount <> o.pay_amount \
                 OR (p.status <> 'FAIL') <> (p.payment_id <=> o.payment_id)",
    ),
    Rule::new(
        "I7",
        "ledger rows PAYMENT and REFUND: each of a payment, with its order, user and amount",
        "point_histories WHERE type IN ('PAYMENT', 'REFUND')",
        "SELECT CONCAT_WS(' ', 'row', h.point_history_id, h.type, 'of user', h.user_id, 'with', h.amount, \
                 'names payment', LOWER(HEX(h.reference_id)), COALESCE(p.status, 'which is missing'), 'with', \
                 p.amount) AS difference \
             FROM point_histories h LEFT JOIN payments p ON p.payment_id = h.reference_id \
             WHERE h.type IN ('PAYMENT', 'REFUND') AND (p.payment_id IS NULL OR p.status = 'FAIL' OR NOT (p.order_id <=> h.order_id) \
                 OR p.user_id <> h.user_id OR h.amount <> IF(h.type = 'PAYMENT', -p.amount, p.amount))",
    ),
];
