-- What ended before the first coupon that is still issued has been marked. Found by the key that the next file drops.

UPDATE coupons SET
    expired_until = LEAST(
        UTC_TIMESTAMP(3),
        COALESCE(
            (SELECT MIN(valid_until) - INTERVAL 1000 MICROSECOND FROM user_coupons WHERE status = 'ISSUED'),
            UTC_TIMESTAMP(3))),
    expired_claim = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF;
