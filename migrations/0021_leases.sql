-- Leases: work that one process at a time does. `dibs-worker migrate` also takes one, so it creates this table first.
CREATE TABLE IF NOT EXISTS leases (
    name       VARCHAR(128)    NOT NULL COMMENT 'such as sink ranking',
    epoch      BIGINT UNSIGNED NOT NULL COMMENT 'higher each time it is taken: transactions of an earlier holder fail',
    holder     BINARY(16)      NOT NULL COMMENT 'given when it was taken (UUIDv7)',
    expires_at DATETIME(6)     NOT NULL COMMENT 'by the clock of the database; renewed every 3 s',
    PRIMARY KEY (name)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin COMMENT = 'leases that are held; a released one has no row';
