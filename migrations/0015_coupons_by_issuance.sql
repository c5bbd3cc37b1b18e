-- Coupons of a user are listed by the time of their issuance: ids of claims that came by Kafka may follow from a request id.
-- The primary key is part of every secondary index, so it need not be named.
ALTER TABLE user_coupons
    ADD KEY owned_by_time (user_id, issued_at),
    DROP KEY owned;
