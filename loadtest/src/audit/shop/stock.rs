//! I5: what is on the shelves.

use super::rule::Rule;

/// Stock adds up, and what was sold and given back is what the orders say.
pub const RULES: [Rule; 4] = [
    Rule {
        invariant: "I5",
        holds: "products: stock is not negative, and initial + restocked - sold + restored",
        rows: "products",
        broken: "SELECT CONCAT_WS(' ', 'product', product_id, 'has', stock, 'in stock: initial', initial_stock, \
                 'restocked', restocked, 'sold', sold, 'restored', restored) AS difference FROM products \
             WHERE stock < 0 OR stock <> initial_stock + restocked - sold + restored",
    },
    Rule {
        invariant: "I5",
        holds: "products: sold is what all orders are for",
        rows: "products",
        broken: "SELECT CONCAT_WS(' ', 'product', p.product_id, 'sold', p.sold, 'orders are for', \
                 COALESCE(i.units, 0)) AS difference \
             FROM products p LEFT JOIN (SELECT product_id, SUM(quantity) AS units FROM order_items \
                 GROUP BY product_id) AS i ON i.product_id = p.product_id \
             WHERE p.sold <> COALESCE(i.units, 0)",
    },
    Rule {
        invariant: "I5",
        holds: "products: restored is what cancelled and expired orders were for",
        rows: "products",
        broken: "SELECT CONCAT_WS(' ', 'product', p.product_id, 'restored', p.restored, 'ended orders were for', \
                 COALESCE(i.units, 0)) AS difference \
             FROM products p LEFT JOIN (SELECT i.product_id, SUM(i.quantity) AS units FROM order_items i \
                 JOIN orders o ON o.order_id = i.order_id WHERE o.status IN ('CANCELLED', 'EXPIRED') \
                 GROUP BY i.product_id) AS i ON i.product_id = p.product_id \
             WHERE p.restored <> COALESCE(i.units, 0)",
    },
    Rule {
        invariant: "I5",
        holds: "items of orders: each of a product, and of an order that was not refused",
        rows: "order_items",
        broken: "SELECT CONCAT_WS(' ', 'order', LOWER(HEX(i.order_id)), COALESCE(o.status, 'is not there'), \
                 'has an item of product', i.product_id, IF(p.product_id IS NULL, 'which is not there', NULL)) \
                 AS difference \
             FROM order_items i LEFT JOIN orders o ON o.order_id = i.order_id \
             LEFT JOIN products p ON p.product_id = i.product_id \
             WHERE o.order_id IS NULL OR o.status = 'REJECTED' OR p.product_id IS NULL",
    },
];
