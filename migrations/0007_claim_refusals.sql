-- Requests for coupons that came by Kafka and were refused: nobody waited for an answer, so it is kept. Times are UTC.

CREATE TABLE claim_refusals (
    claim_id   BINARY(16)      NOT NULL COMMENT 'the request, whenever it comes',
    coupon_id  BIGINT UNSIGNED NOT NULL,
    user_id    BIGINT UNSIGNED NOT NULL,
    code       VARCHAR(40)     NOT NULL COMMENT 'why, as the API names it',
    refused_at DATETIME(3)     NOT NULL,
    PRIMARY KEY (claim_id),
    KEY by_user (coupon_id, user_id, refused_at),
    KEY by_age (refused_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin
  COMMENT = 'claims taken in from Kafka that were never accepted';
