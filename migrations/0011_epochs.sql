-- Epochs. After a restore to an earlier state, sequences are given a second time: each restore begins an epoch, which is
-- part of message ids and of what Redis remembers.
CREATE TABLE epochs (
    epoch          BIGINT UNSIGNED NOT NULL COMMENT 'Unix time in seconds when it began; 0 for the first',
    after_sequence BIGINT UNSIGNED NOT NULL COMMENT 'events with a higher sequence belong to it, or to a later epoch',
    reason         VARCHAR(100)    NOT NULL COMMENT 'what began it',
    began_at       DATETIME(3)     NOT NULL,
    PRIMARY KEY (epoch)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin COMMENT = 'one row, and one more for each restore';
INSERT INTO epochs (epoch, after_sequence, reason, began_at) VALUES (0, 0, 'installed', UTC_TIMESTAMP(3));

ALTER TABLE webhook_retry_queue
    ADD COLUMN epoch BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'of its event; part of the message id' AFTER sink;
