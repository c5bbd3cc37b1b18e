//! I5: the stock of products.

use super::rule::Rule;

/// Stock adds up, and the sold and restored units match the orders.
pub const RULES: [Rule; 4] = [
    Rule::new(
        "I5",
        "products: stock is not negative, and equals initial + restocked - sold + restored",
        "products",
        "SELECT CONCAT_WS(' ', 'product', product_id, 'has', stock, 'in stock: initial', initial_stock, \
                 'restocked', restocked, 'sold', sold, 'restored', restored) AS difference FROM products \
             WHERE stock < 0 OR stock <> initial_stock + restocked - sold + restored",
    ),
    Rule::new(
        "I5",
        "products: sold equals the units of all orders",
        "products",
        "SELECT CONCAT_WS(' ', 'product', p.product_id, 'sold', p.sold, 'units of orders', \
                 COALESCE(i.units, 0)) AS difference \
             FROM products p LEFT JOIN (SELECT product_id, SUM(quantity) AS units FROM order_items \
                 GROUP BY product_id) AS i ON i.product_id = p.product_id \
             WHERE p.sold <> COALESCE(i.units, 0)",
    ),
    Rule::new(
        "I5",
        "products: restored equals the units of cancelled and expired orders",
        "products",
        "SELECT CONCAT_WS(' ', 'product', p.product_id, 'restored', p.restored, 'units of ended orders', \
                 COALESCE(i.units, 0)) AS difference \
             FROM products p LEFT JOIN (SELECT i.product_id, SUM(i.quantity) AS units FROM order_items i \
                 JOIN orders o ON o.order_id = i.order_id WHERE o.status IN ('CANCELLED', 'EXPIRED') \
                 GROUP BY i.product_id) AS i ON i.product_id = p.product_id \
             WHERE p.restored <> COALESCE(i.units, 0)",
    ),
    Rule::new(
        "I5",
        "items of orders: each of a product, and of an order that was not rejected",
        "order_items",
        "SELECT CONCAT_WS(' ', 'order', LOWER(HEX(i.order_id)), COALESCE(o.status, 'is missing'), \
                 'has an item of product', i.product_id, IF(p.product_id IS NULL, 'which is missing', NULL)) \
                 AS difference \
             FROM order_items i LEFT JOIN orders o ON o.order_id = i.order_id \
             LEFT JOIN products p ON p.product_id = i.product_id \
             WHERE o.order_id IS NULL OR o.status = 'REJECTED' OR p.product_id IS NULL",
    ),
];
