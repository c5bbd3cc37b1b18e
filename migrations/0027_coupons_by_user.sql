-- Fewer places to fill for each coupon: one key by user serves uniqueness and the list of its owner, and one by campaign
-- serves audits and expiry. Both keep their names, which statements of the earlier version force.

ALTER TABLE user_coupons
    DROP KEY owned_by_time,
    DROP KEY one_per_ordinal,
    DROP KEY expiring,
    ADD UNIQUE KEY one_per_ordinal (user_id, coupon_id, ordinal),
    ADD KEY expiring (coupon_id, valid_until);

ALTER TABLE coupons
    ADD COLUMN expired_until DATETIME(3) NOT NULL DEFAULT '1970-01-01 00:00:00.000'
        COMMENT 'no coupon is to be marked as expired up to this end of validity, and, of those with this end,',
    ADD COLUMN expired_claim BINARY(16) NOT NULL DEFAULT 0x00000000000000000000000000000000 COMMENT 'up to this id',
    ADD KEY expiring (expired_until);
