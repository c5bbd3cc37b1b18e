-- Coupons that an administrator revoked stay as rows, and free their slots.
ALTER TABLE coupons
    ADD COLUMN revoked_quantity INT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'rows in user_coupons that are REVOKED; their slots are free again' AFTER issued_quantity,
    DROP CONSTRAINT coupons_quantity,
    ADD CONSTRAINT coupons_quantity CHECK (issued_quantity <= total_quantity + revoked_quantity),
    ADD CONSTRAINT coupons_revoked CHECK (revoked_quantity <= issued_quantity);
