-- What Dibs has given up on, until somebody asks for it to be sent again. Times are UTC.

CREATE TABLE dead_letters (
    dead_letter_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
    source         VARCHAR(100)    NOT NULL COMMENT 'the sink that did not take it, such as data-platform, or the intake it came in by, such as coupon.issue.requested',
    source_key     VARCHAR(200)    NOT NULL COMMENT 'what the source knows it by: the id of a message, or topic, partition and offset',
    kind           VARCHAR(100)    NOT NULL COMMENT 'what it tells, such as order.paid',
    aggregate_id   VARCHAR(100)    NULL     COMMENT 'the id of what it is about, when that is known',
    payload        MEDIUMTEXT      NOT NULL COMMENT 'as it was sent or came; need not be JSON',
    payload_bytes  INT UNSIGNED    NOT NULL COMMENT 'how long the payload was; above its length here, it was cut',
    redrivable     BOOLEAN         NOT NULL COMMENT 'whether it can be sent again as it stands here',
    reason         VARCHAR(1000)   NOT NULL COMMENT 'why: the last answer it got',
    attempts       INT UNSIGNED    NOT NULL COMMENT 'how often it was tried in all',
    status         VARCHAR(7)      NOT NULL DEFAULT 'DEAD' COMMENT 'DEAD; REDRIVE once somebody asked for it to be sent again; SENT when it was taken',
    buried_at      DATETIME(3)     NOT NULL COMMENT 'when it was last given up on',
    redrive_at     DATETIME(3)     NULL     COMMENT 'when it was last asked for',
    sent_at        DATETIME(3)     NULL,
    PRIMARY KEY (dead_letter_id),
    UNIQUE KEY once (source, source_key),
    KEY by_status (status, source, dead_letter_id),
    KEY by_source (source, dead_letter_id),
    KEY by_sent_at (sent_at),
    CONSTRAINT dead_letters_status CHECK (status IN ('DEAD', 'REDRIVE', 'SENT')),
    CONSTRAINT dead_letters_redrive CHECK (status = 'DEAD' OR redrivable),
    CONSTRAINT dead_letters_sent CHECK ((status = 'SENT') = (sent_at IS NOT NULL))
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin COMMENT = 'what was given up on, until it is sent again';
