-- Points that an administrator grants or takes back are rows of the ledger of their own types.
ALTER TABLE point_histories
    DROP CONSTRAINT point_histories_type,
    MODIFY COLUMN type VARCHAR(9) NOT NULL COMMENT 'CHARGE, PAYMENT, REFUND; of administrators GRANT and DEDUCTION',
    MODIFY COLUMN reference_id BINARY(16) NOT NULL COMMENT 'the charge, the payment that was made or refunded, or the adjustment',
    ADD CONSTRAINT point_histories_type CHECK (
        (type IN ('CHARGE', 'REFUND', 'GRANT') AND amount > 0) OR (type IN ('PAYMENT', 'DEDUCTION') AND amount < 0));
