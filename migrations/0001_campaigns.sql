-- Campaigns, issuances, and claims that were refused after their acceptance. Times are UTC.

CREATE TABLE coupons (
    coupon_id            BIGINT UNSIGNED   NOT NULL AUTO_INCREMENT,
    name                 VARCHAR(100)      NOT NULL,
    discount_type        VARCHAR(7)        NOT NULL COMMENT 'FIXED: won. PERCENT: of the order total',
    discount_value       BIGINT            NOT NULL,
    discount_max_amount  BIGINT            NULL     COMMENT 'cap of a PERCENT discount, won',
    minimum_order_amount BIGINT            NOT NULL DEFAULT 0,
    total_quantity       INT UNSIGNED      NOT NULL,
    issued_quantity      INT UNSIGNED      NOT NULL DEFAULT 0 COMMENT 'rows in user_coupons',
    rejected_quantity    INT UNSIGNED      NOT NULL DEFAULT 0 COMMENT 'rows in claim_rejections',
    per_user_limit       SMALLINT UNSIGNED NOT NULL DEFAULT 1,
    opens_at             DATETIME(3)       NOT NULL,
    closes_at            DATETIME(3)       NOT NULL,
    validity_days        INT UNSIGNED      NULL     COMMENT 'days from issuance; or valid_until is set',
    valid_until          DATETIME(3)       NULL,
    state                VARCHAR(6)        NOT NULL DEFAULT 'ACTIVE' COMMENT 'ACTIVE, PAUSED or CLOSED, as administrators set it',
    partition_number     SMALLINT UNSIGNED NOT NULL COMMENT 'where it lives in Redis; fixed for its life',
    created_at           DATETIME(3)       NOT NULL,
    updated_at           DATETIME(3)       NOT NULL,
    PRIMARY KEY (coupon_id),
    KEY closes_at (closes_at),
    CONSTRAINT coupons_discount CHECK (
        (discount_type = 'FIXED' AND discount_value > 0 AND discount_max_amount IS NULL)
        OR (discount_type = 'PERCENT' AND discount_value BETWEEN 1 AND 100
            AND (discount_max_amount IS NULL OR discount_max_amount > 0))),
    CONSTRAINT coupons_quantity CHECK (issued_quantity <= total_quantity),
    CONSTRAINT coupons_limit CHECK (per_user_limit >= 1),
    CONSTRAINT coupons_window CHECK (opens_at < closes_at),
    CONSTRAINT coupons_validity CHECK ((validity_days IS NULL) <> (valid_until IS NULL)),
    CONSTRAINT coupons_state CHECK (state IN ('ACTIVE', 'PAUSED', 'CLOSED'))
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin COMMENT = 'campaigns';

CREATE TABLE user_coupons (
    user_coupon_id       BINARY(16)        NOT NULL COMMENT 'the id of the claim it answers (UUIDv7)',
    coupon_id            BIGINT UNSIGNED   NOT NULL,
    user_id              BIGINT UNSIGNED   NOT NULL,
    ordinal              SMALLINT UNSIGNED NOT NULL COMMENT 'first, second, .. of this user in this campaign',
    per_user_limit       SMALLINT UNSIGNED NOT NULL COMMENT 'copied, so that the table itself refuses more',
    sequence             INT UNSIGNED      NOT NULL COMMENT 'place in the order of acceptance',
    discount_type        VARCHAR(7)        NOT NULL COMMENT 'terms, copied at issuance',
    discount_value       BIGINT            NOT NULL,
    discount_max_amount  BIGINT            NULL,
    minimum_order_amount BIGINT            NOT NULL,
    status               VARCHAR(7)        NOT NULL DEFAULT 'ISSUED' COMMENT 'ISSUED, USED, EXPIRED or REVOKED',
    accepted_at          DATETIME(3)       NOT NULL COMMENT 'of the claim, by the clock of Redis',
    issued_at            DATETIME(3)       NOT NULL,
    valid_until          DATETIME(3)       NOT NULL,
    used_at              DATETIME(3)       NULL,
    PRIMARY KEY (user_coupon_id),
    UNIQUE KEY one_per_ordinal (coupon_id, user_id, ordinal),
    KEY owned (user_id, user_coupon_id),
    CONSTRAINT user_coupons_limit CHECK (ordinal BETWEEN 1 AND per_user_limit),
    CONSTRAINT user_coupons_status CHECK (status IN ('ISSUED', 'USED', 'EXPIRED', 'REVOKED'))
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin COMMENT = 'issuances';

CREATE TABLE claim_rejections (
    claim_id    BINARY(16)      NOT NULL,
    coupon_id   BIGINT UNSIGNED NOT NULL,
    user_id     BIGINT UNSIGNED NOT NULL,
    sequence    INT UNSIGNED    NOT NULL,
    code        VARCHAR(40)     NOT NULL COMMENT 'why, as the API names it',
    accepted_at DATETIME(3)     NOT NULL,
    rejected_at DATETIME(3)     NOT NULL,
    PRIMARY KEY (claim_id),
    KEY by_user (coupon_id, user_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin
  COMMENT = 'accepted claims that the second check refused';

CREATE TABLE products (
    product_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
    name       VARCHAR(200)    NOT NULL,
    price      BIGINT          NOT NULL COMMENT 'won',
    stock      BIGINT          NOT NULL,
    status     VARCHAR(7)      NOT NULL DEFAULT 'SELLING' COMMENT 'SELLING or STOPPED',
    created_at DATETIME(3)     NOT NULL,
    updated_at DATETIME(3)     NOT NULL,
    PRIMARY KEY (product_id),
    CONSTRAINT products_price CHECK (price >= 0),
    CONSTRAINT products_stock CHECK (stock >= 0),
    CONSTRAINT products_status CHECK (status IN ('SELLING', 'STOPPED'))
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin COMMENT = 'what the shop sells';
