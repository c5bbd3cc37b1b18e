-- Points, orders, payments, and the events of every change. Times are UTC, money is whole won.

ALTER TABLE products
    MODIFY COLUMN stock BIGINT NOT NULL COMMENT 'initial_stock + restocked - sold + restored',
    ADD COLUMN initial_stock BIGINT NOT NULL DEFAULT 0 COMMENT 'when it was made' AFTER stock,
    ADD COLUMN restocked     BIGINT NOT NULL DEFAULT 0 COMMENT 'sum of the changes by administrators' AFTER initial_stock,
    ADD COLUMN sold          BIGINT NOT NULL DEFAULT 0 COMMENT 'units taken by orders' AFTER restocked,
    ADD COLUMN restored      BIGINT NOT NULL DEFAULT 0 COMMENT 'units of those orders that were cancelled or expired' AFTER sold,
    ADD COLUMN operation_id BINARY(16) NULL COMMENT 'of the request that made it: a repeat makes no second one',
    ADD UNIQUE KEY made_once (operation_id),
    ADD KEY by_status (status, product_id);
UPDATE products SET initial_stock = stock;
ALTER TABLE products
    ADD CONSTRAINT products_stock_adds_up CHECK (stock = initial_stock + restocked - sold + restored),
    ADD CONSTRAINT products_restored CHECK (restored <= sold);

ALTER TABLE coupons
    ADD COLUMN operation_id BINARY(16) NULL COMMENT 'of the request that made it: a repeat makes no second one',
    ADD UNIQUE KEY made_once (operation_id);

ALTER TABLE user_coupons
    ADD KEY expiring (status, valid_until);

CREATE TABLE point_accounts (
    user_id    BIGINT UNSIGNED NOT NULL,
    balance    BIGINT          NOT NULL COMMENT 'sum of the rows in point_histories',
    pending    BIGINT          NOT NULL DEFAULT 0 COMMENT 'sum of the PENDING charges; counts against the cap',
    created_at DATETIME(3)     NOT NULL,
    updated_at DATETIME(3)     NOT NULL,
    PRIMARY KEY (user_id),
    CONSTRAINT point_accounts_balance CHECK (balance >= 0),
    CONSTRAINT point_accounts_pending CHECK (pending >= 0)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin COMMENT = 'points a user holds';

CREATE TABLE point_histories (
    point_history_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
    user_id          BIGINT UNSIGNED NOT NULL,
    type             VARCHAR(7)      NOT NULL COMMENT 'CHARGE, PAYMENT or REFUND',
    amount           BIGINT          NOT NULL COMMENT 'positive when points came in, negative when they went out',
    balance_after    BIGINT          NOT NULL,
    reference_id     BINARY(16)      NOT NULL COMMENT 'the charge, or the payment that was made or refunded',
    order_id         BINARY(16)      NULL     COMMENT 'the order of that payment',
    created_at       DATETIME(3)     NOT NULL,
    PRIMARY KEY (point_history_id),
    UNIQUE KEY once (reference_id, type),
    KEY of_user (user_id, point_history_id),
    CONSTRAINT point_histories_balance CHECK (balance_after >= 0),
    CONSTRAINT point_histories_type CHECK ((type IN ('CHARGE', 'REFUND') AND amount > 0) OR (type = 'PAYMENT' AND amount < 0))
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin COMMENT = 'the ledger of points; rows are only added';

CREATE TABLE charges (
    charge_id       BINARY(16)        NOT NULL COMMENT 'UUIDv7; the payment gateway knows it as idempotency key',
    user_id         BIGINT UNSIGNED   NOT NULL,
    amount          BIGINT            NOT NULL,
    payment_method  VARCHAR(40)       NULL     COMMENT 'as the caller named it, for the payment gateway',
    status          VARCHAR(8)        NOT NULL COMMENT 'PENDING until the gateway has answered; APPROVED or DECLINED',
    attempts        INT UNSIGNED      NOT NULL DEFAULT 0 COMMENT 'how often the gateway was asked again',
    next_attempt_at DATETIME(3)       NULL     COMMENT 'when the gateway is asked again',
    created_at      DATETIME(3)       NOT NULL,
    decided_at      DATETIME(3)       NULL,
    PRIMARY KEY (charge_id),
    KEY due (status, next_attempt_at),
    KEY of_user (user_id, charge_id),
    CONSTRAINT charges_amount CHECK (amount > 0),
    CONSTRAINT charges_status CHECK (status IN ('PENDING', 'APPROVED', 'DECLINED'))
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin COMMENT = 'points bought';

CREATE TABLE orders (
    order_id            BINARY(16)      NOT NULL COMMENT 'the id of the command that placed it (UUIDv7)',
    user_id             BIGINT UNSIGNED NOT NULL,
    status              VARCHAR(12)     NOT NULL COMMENT 'DEPOSIT_WAIT, PAY_DONE, BUY_CONFIRM, CANCELLED, EXPIRED or REJECTED',
    code                VARCHAR(40)     NULL     COMMENT 'why it was REJECTED, as the API names it',
    detail              VARCHAR(300)    NULL     COMMENT 'the same in words',
    total_amount        BIGINT          NOT NULL COMMENT 'sum of unit_price * quantity of its items',
    discount_amount     BIGINT          NOT NULL COMMENT 'what the coupon takes off',
    pay_amount          BIGINT          NOT NULL,
    user_coupon_id      BINARY(16)      NULL,
    payment_id          BINARY(16)      NULL     COMMENT 'the payment that paid it',
    created_at          DATETIME(3)     NOT NULL,
    expires_at          DATETIME(3)     NOT NULL COMMENT 'unpaid by then, it ends',
    paid_at             DATETIME(3)     NULL,
    confirmed_at        DATETIME(3)     NULL,
    ended_at            DATETIME(3)     NULL     COMMENT 'cancelled or expired',
    live_user_coupon_id BINARY(16) GENERATED ALWAYS AS
        (CASE WHEN status IN ('DEPOSIT_WAIT', 'PAY_DONE', 'BUY_CONFIRM') THEN user_coupon_id END) STORED
        COMMENT 'the coupon, while the order is alive',
    PRIMARY KEY (order_id),
    UNIQUE KEY coupon_used_once (live_user_coupon_id),
    KEY of_user (user_id, order_id),
    KEY expiring (status, expires_at),
    CONSTRAINT orders_amounts CHECK (discount_amount >= 0 AND pay_amount >= 0
        AND pay_amount = total_amount - discount_amount),
    CONSTRAINT orders_rejected CHECK ((status = 'REJECTED') = (code IS NOT NULL)),
    CONSTRAINT orders_status CHECK (
        status IN ('DEPOSIT_WAIT', 'PAY_DONE', 'BUY_CONFIRM', 'CANCELLED', 'EXPIRED', 'REJECTED'))
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin COMMENT = 'orders, also those that were refused';

CREATE TABLE order_items (
    order_id   BINARY(16)      NOT NULL,
    product_id BIGINT UNSIGNED NOT NULL,
    name       VARCHAR(200)    NOT NULL COMMENT 'at order time',
    unit_price BIGINT          NOT NULL COMMENT 'at order time',
    quantity   INT UNSIGNED    NOT NULL,
    PRIMARY KEY (order_id, product_id),
    CONSTRAINT order_items_quantity CHECK (quantity > 0)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin COMMENT = 'what an order is for';

CREATE TABLE payments (
    payment_id      BINARY(16)      NOT NULL COMMENT 'UUIDv7',
    order_id        BINARY(16)      NOT NULL,
    user_id         BIGINT UNSIGNED NOT NULL,
    amount          BIGINT          NOT NULL,
    status          VARCHAR(9)      NOT NULL COMMENT 'DONE, FAIL, or CANCELLED with the refund',
    code            VARCHAR(40)     NULL     COMMENT 'why it failed, as the API names it',
    created_at      DATETIME(3)     NOT NULL,
    cancelled_at    DATETIME(3)     NULL,
    settled_order_id BINARY(16) GENERATED ALWAYS AS
        (CASE WHEN status IN ('DONE', 'CANCELLED') THEN order_id END) STORED
        COMMENT 'the order, unless the payment failed',
    PRIMARY KEY (payment_id),
    UNIQUE KEY paid_once (settled_order_id),
    KEY of_order (order_id),
    CONSTRAINT payments_amount CHECK (amount >= 0),
    CONSTRAINT payments_status CHECK (status IN ('DONE', 'FAIL', 'CANCELLED')),
    CONSTRAINT payments_failed CHECK ((status = 'FAIL') = (code IS NOT NULL))
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin COMMENT = 'payments with points';

CREATE TABLE order_commands (
    command_id BINARY(16)      NOT NULL COMMENT 'UUIDv7; of a payment, also the payment_id',
    order_id   BINARY(16)      NOT NULL,
    user_id    BIGINT UNSIGNED NOT NULL,
    type       VARCHAR(7)      NOT NULL COMMENT 'PAY, CONFIRM or CANCEL',
    code       VARCHAR(40)     NULL     COMMENT 'why it was refused, as the API names it; none when it was done',
    detail     VARCHAR(300)    NULL     COMMENT 'the same in words',
    decided_at DATETIME(3)     NOT NULL,
    PRIMARY KEY (command_id),
    KEY decided_at (decided_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin
  COMMENT = 'outcomes of commands; that of placing an order is the order';

CREATE TABLE outbox_events (
    event_id       BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
    aggregate_type VARCHAR(7)      NOT NULL COMMENT 'ORDER, COUPON, POINTS or PRODUCT',
    aggregate_id   VARCHAR(36)     NOT NULL COMMENT 'order_id, coupon_id, user_id or product_id',
    type           VARCHAR(40)     NOT NULL COMMENT 'such as order.paid',
    payload        JSON            NOT NULL,
    created_at     DATETIME(3)     NOT NULL,
    PRIMARY KEY (event_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin
  COMMENT = 'what happened, written in the transaction in which it did';

CREATE TABLE idempotency_keys (
    key_hash          BINARY(32)        NOT NULL COMMENT 'SHA-256 of method, path and Idempotency-Key',
    body_hash         BINARY(32)        NOT NULL COMMENT 'SHA-256 of the body',
    operation_id      BINARY(16)        NOT NULL COMMENT 'id of what the request makes, the same at every attempt',
    in_progress_until DATETIME(3)       NULL     COMMENT 'a repeat before then is told that the first is in progress',
    status            SMALLINT UNSIGNED NULL     COMMENT 'the stored answer, once there is one',
    content_type      VARCHAR(100)      NULL,
    location          VARCHAR(300)      NULL,
    body              MEDIUMBLOB        NULL,
    created_at        DATETIME(3)       NOT NULL,
    PRIMARY KEY (key_hash),
    KEY created_at (created_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin COMMENT = 'answers that a repeat gets again, for 24 hours';
