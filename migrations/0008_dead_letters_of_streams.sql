-- Dead letters of claims and commands are rows as well, and a letter can be dropped. Times are UTC.

ALTER TABLE dead_letters RENAME COLUMN buried_at TO dead_lettered_at;

ALTER TABLE dead_letters
    MODIFY COLUMN source VARCHAR(100) NOT NULL COMMENT 'where processing failed: a sink such as data-platform, a topic such as coupon.issue.requested, or the streams of claims and commands',
    MODIFY COLUMN source_key VARCHAR(200) NOT NULL COMMENT 'its id at the source: of a message; topic, partition and offset; or partition, stream and entry',
    MODIFY COLUMN status VARCHAR(7) NOT NULL DEFAULT 'DEAD' COMMENT 'DEAD; REDRIVE once a redrive is requested; SENT when that succeeded; DROPPED by an administrator',
    MODIFY COLUMN dead_lettered_at DATETIME(3) NOT NULL COMMENT 'when its last attempt failed',
    ADD COLUMN dropped_at DATETIME(3) NULL,
    ADD KEY by_aggregate (source, aggregate_id, status),
    ADD KEY by_dropped_at (dropped_at);

ALTER TABLE dead_letters DROP CONSTRAINT dead_letters_status;
ALTER TABLE dead_letters DROP CONSTRAINT dead_letters_redrive;
ALTER TABLE dead_letters
    ADD CONSTRAINT dead_letters_status CHECK (status IN ('DEAD', 'REDRIVE', 'SENT', 'DROPPED')),
    ADD CONSTRAINT dead_letters_redrive CHECK (redrivable OR status IN ('DEAD', 'DROPPED')),
    ADD CONSTRAINT dead_letters_dropped CHECK ((status = 'DROPPED') = (dropped_at IS NOT NULL));
