-- Credentials of servers and administrators. The key itself is shown once and stored nowhere.
CREATE TABLE api_keys (
    api_key_id   BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
    name         VARCHAR(64)     NOT NULL COMMENT 'the actor in admin_actions; never given twice',
    key_hash     BINARY(32)      NOT NULL COMMENT 'SHA-256 of the key, which is 256 random bits',
    scopes       VARCHAR(100)    NOT NULL COMMENT 'what it may do, with spaces between: claims, orders, points, read, admin, admin:read',
    created_at   DATETIME(3)     NOT NULL,
    expires_at   DATETIME(3)     NULL     COMMENT 'none: it does not expire',
    revoked_at   DATETIME(3)     NULL,
    last_used_at DATETIME(3)     NULL     COMMENT 'to the minute; of any API process',
    PRIMARY KEY (api_key_id),
    UNIQUE KEY by_name (name),
    UNIQUE KEY by_hash (key_hash),
    KEY usable (revoked_at, expires_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin COMMENT = 'API keys of servers and administrators';
