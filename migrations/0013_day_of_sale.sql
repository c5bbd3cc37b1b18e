-- The business day of a sale is stored with the order. It was computed from paid_at, so a change of TIME_ZONE moved sales to
-- other days. No SQL here knows the time zone of the shop: a worker fills the column for orders that were paid before.
ALTER TABLE orders
    ADD COLUMN paid_on DATE NULL COMMENT 'business day of paid_at, in the time zone of the shop at that time' AFTER paid_at,
    ADD KEY paid_on (paid_on, paid_at),
    DROP KEY paid_at;
