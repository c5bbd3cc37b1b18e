-- What a refusal states beside its words, as fields; rows of older versions have none. And what a keyed request is known by.
ALTER TABLE orders
    ADD COLUMN facts JSON NULL COMMENT 'the facts of its rejection, as fields of the API';
ALTER TABLE order_commands
    ADD COLUMN facts JSON NULL COMMENT 'the facts of its refusal, as fields of the API';
ALTER TABLE payments
    ADD COLUMN facts JSON NULL COMMENT 'the facts of its failure, as fields of the API';

-- A repeat is one with the same JSON value. Rows of older versions are compared by the bytes of the body.
ALTER TABLE idempotency_keys
    MODIFY COLUMN body_hash BINARY(32) NOT NULL COMMENT 'SHA-256 of the bytes of the body, and of the query',
    ADD COLUMN value_hash BINARY(32) NULL COMMENT 'SHA-256 of the JSON value of the body, and of the query';
