-- The terms that Redis enforces, and since when. A claim that Redis accepted later is checked against them in MySQL: Redis may
-- have returned to an older state. KEY: the purge looks for ended campaigns that Redis still holds.
ALTER TABLE coupons
    ADD COLUMN enforced_terms VARCHAR(60) NULL COMMENT 'state and window that Redis was given last: state, opens_at, closes_at (ms)',
    ADD COLUMN enforced_since DATETIME(3) NULL COMMENT 'since when, by the clock of Redis; none: Redis does not hold the campaign',
    ADD KEY enforced_since (enforced_since);
-- Redis may hold each of them. A worker sets the true values of those that are not over.
UPDATE coupons SET enforced_terms = '', enforced_since = UTC_TIMESTAMP(3);
