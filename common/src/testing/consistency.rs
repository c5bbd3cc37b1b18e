//! Queries that count the rows which violate an invariant, whatever a test did.

/// The invariant, and the query. Each counts 0.
pub(super) const CONSISTENCY_QUERIES: [(&str, &str); 9] = [
    (
        "I2: the counter of a campaign is the number of its issued coupons",
        "SELECT COUNT(*) FROM coupons c WHERE c.issued_quantity <> (SELECT COUNT(*) FROM user_coupons u \
         WHERE u.coupon_id = c.coupon_id)",
    ),
    (
        "I1: the counter of revoked coupons is the number of them",
        "SELECT COUNT(*) FROM coupons c WHERE c.revoked_quantity <> (SELECT COUNT(*) FROM user_coupons u \
         WHERE u.coupon_id = c.coupon_id AND u.status = 'REVOKED')",
    ),
    (
        "I5: sold units are those of the placed orders",
        "SELECT COUNT(*) FROM products p WHERE p.sold <> (SELECT COALESCE(SUM(i.quantity), 0) FROM order_items i \
         WHERE i.product_id = p.product_id)",
    ),
    (
        "I5: restored units are those of the ended orders",
        "SELECT COUNT(*) FROM products p WHERE p.restored <> (SELECT COALESCE(SUM(i.quantity), 0) FROM order_items i \
         JOIN orders o ON o.order_id = i.order_id WHERE i.product_id = p.product_id AND o.status IN ('CANCELLED', 'EXPIRED'))",
    ),
    (
        "I6: a balance is the sum of its ledger",
        "SELECT COUNT(*) FROM point_accounts a WHERE a.balance <> (SELECT COALESCE(SUM(h.amount), 0) \
         FROM point_histories h WHERE h.user_id = a.user_id)",
    ),
    (
        "I7: the total of an order is the sum of its items",
        "SELECT COUNT(*) FROM orders o WHERE o.status <> 'REJECTED' AND o.total_amount <> \
         (SELECT SUM(i.unit_price * i.quantity) FROM order_items i WHERE i.order_id = o.order_id)",
    ),
    (
        "I7: a paid order took its amount from its user, any other order nothing",
        "SELECT COUNT(*) FROM orders o WHERE (SELECT COALESCE(SUM(h.amount), 0) FROM point_histories h \
         WHERE h.order_id = o.order_id AND h.user_id = o.user_id) <> \
         IF(o.status IN ('PAY_DONE', 'BUY_CONFIRM'), -o.pay_amount, 0)",
    ),
    (
        "I7: a coupon is USED exactly while a live order uses it",
        "SELECT COUNT(*) FROM user_coupons c LEFT JOIN orders o ON o.live_user_coupon_id = c.user_coupon_id \
         WHERE (c.status = 'USED') <> (o.order_id IS NOT NULL)",
    ),
    (
        "I8: a payment has the status of its order",
        "SELECT COUNT(*) FROM payments p JOIN orders o ON o.order_id = p.order_id WHERE p.status <> 'FAIL' AND \
         (p.payment_id <> o.payment_id OR (p.status = 'CANCELLED') <> (o.status = 'CANCELLED'))",
    ),
];
