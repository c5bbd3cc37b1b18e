-- Coupons that administrators give to many users at once. Times are UTC.

CREATE TABLE assignments (
    assignment_id BINARY(16)      NOT NULL COMMENT 'the operation id of the request that made it (UUIDv7)',
    coupon_id     BIGINT UNSIGNED NOT NULL,
    requested     INT UNSIGNED    NOT NULL COMMENT 'rows in assignment_users',
    status        VARCHAR(7)      NOT NULL DEFAULT 'PENDING' COMMENT 'PENDING, or DONE once every user has an outcome',
    created_at    DATETIME(3)     NOT NULL,
    done_at       DATETIME(3)     NULL,
    PRIMARY KEY (assignment_id),
    KEY of_coupon (coupon_id, assignment_id),
    KEY by_status (status, assignment_id),
    CONSTRAINT assignments_status CHECK (status IN ('PENDING', 'DONE')),
    CONSTRAINT assignments_done CHECK ((status = 'DONE') = (done_at IS NOT NULL))
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin
  COMMENT = 'coupons that administrators give to many users at once';

CREATE TABLE assignment_users (
    claim_id      BINARY(16)      NOT NULL COMMENT 'the claim by which the user gets the coupon, the same at every attempt; in the order given',
    assignment_id BINARY(16)      NOT NULL,
    user_id       BIGINT UNSIGNED NOT NULL,
    outcome       VARCHAR(40)     NULL     COMMENT 'ISSUED, or why the user does not get it, as the API names it; none yet',
    PRIMARY KEY (claim_id),
    UNIQUE KEY once (assignment_id, user_id),
    KEY by_outcome (assignment_id, outcome, claim_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin COMMENT = 'whom an assignment gives the coupon';
