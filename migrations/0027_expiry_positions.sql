-- How far the coupons of each campaign were marked as expired.

ALTER TABLE coupons
    ADD COLUMN expired_until DATETIME(3) NOT NULL DEFAULT '1970-01-01 00:00:00.000'
        COMMENT 'no coupon is to be marked as expired up to this end of validity, and, of those with this end,',
    ADD COLUMN expired_claim BINARY(16) NOT NULL DEFAULT 0x00000000000000000000000000000000 COMMENT 'up to this id',
    ADD KEY expired_until (expired_until);
