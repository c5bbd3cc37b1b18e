-- What support reads of a user: claims that were refused at once, one row for each user, campaign and reason.
CREATE TABLE claim_attempts (
    user_id   BIGINT UNSIGNED NOT NULL,
    coupon_id BIGINT UNSIGNED NOT NULL,
    code      VARCHAR(40)     NOT NULL COMMENT 'why it was refused, as the API names it',
    attempts  INT UNSIGNED    NOT NULL COMMENT 'how often; those beyond the rate that a process stores are not counted',
    first_at  DATETIME(3)     NOT NULL,
    last_at   DATETIME(3)     NOT NULL,
    PRIMARY KEY (user_id, coupon_id, code),
    KEY by_age (last_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin COMMENT = 'claims that were refused, for support; a sample under load';

ALTER TABLE claim_rejections
    ADD KEY of_user (user_id, rejected_at);
ALTER TABLE claim_refusals
    ADD KEY of_user (user_id, refused_at);
