-- Fewer places to fill for each coupon: one key by user refuses a coupon too many and leads to those of an owner, and one
-- by campaign serves audits, rebuilds and expiry.

ALTER TABLE user_coupons
    DROP KEY owned_by_time,
    DROP KEY one_per_ordinal,
    DROP KEY expiring,
    ADD UNIQUE KEY one_per_ordinal (user_id, coupon_id, ordinal),
    ADD KEY by_validity (coupon_id, valid_until);
