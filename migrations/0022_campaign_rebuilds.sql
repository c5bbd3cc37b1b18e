-- Rebuilds of campaigns in Redis that administrators request and a worker executes.
CREATE TABLE campaign_rebuilds (
    rebuild_id   BINARY(16)      NOT NULL COMMENT 'the operation id of the request (UUIDv7)',
    coupon_id    BIGINT UNSIGNED NOT NULL,
    status       VARCHAR(7)      NOT NULL DEFAULT 'PENDING' COMMENT 'PENDING, or DONE once Redis was rebuilt after the request',
    requested_at DATETIME(3)     NOT NULL,
    done_at      DATETIME(3)     NULL,
    claimed      INT UNSIGNED    NULL     COMMENT 'accepted claims that Redis then had',
    PRIMARY KEY (rebuild_id),
    KEY by_status (status, rebuild_id),
    KEY by_done_at (done_at),
    CONSTRAINT campaign_rebuilds_status CHECK (status IN ('PENDING', 'DONE')),
    CONSTRAINT campaign_rebuilds_done CHECK ((status = 'DONE') = (done_at IS NOT NULL))
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin COMMENT = 'rebuilds of campaigns in Redis that were requested';
