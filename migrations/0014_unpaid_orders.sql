-- Orders that are not paid hold stock: they are counted for each user, and a product may require payment with the order.
ALTER TABLE orders
    ADD KEY unpaid_of_user (user_id, status);
ALTER TABLE products
    ADD COLUMN payment_required BOOLEAN NOT NULL DEFAULT FALSE COMMENT 'an order with it has to be paid in the same step' AFTER status;
