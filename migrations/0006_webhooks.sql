-- Messages to receivers by HTTP that were not taken at once. Times are UTC.

ALTER TABLE sinks
    ADD COLUMN registered_through BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'it is told what came after this sequence';

CREATE TABLE parked_messages (
    sink             VARCHAR(40)     NOT NULL,
    sequence         BIGINT UNSIGNED NOT NULL COMMENT 'of its event',
    place            INT UNSIGNED    NOT NULL COMMENT 'its place among the messages of the event',
    lane             VARCHAR(120)    NOT NULL COMMENT 'messages of one lane are sent one after the other, by sequence and place',
    kind             VARCHAR(100)    NOT NULL COMMENT 'what it tells, such as order.paid',
    aggregate_id     VARCHAR(100)    NOT NULL,
    payload          MEDIUMTEXT      NOT NULL COMMENT 'as it is sent',
    attempts         INT UNSIGNED    NOT NULL,
    first_attempt_at DATETIME(3)     NULL     COMMENT 'since the receiver was last away; none yet when it waits for another of its lane',
    next_attempt_at  DATETIME(3)     NOT NULL,
    last_answer      VARCHAR(1000)   NULL,
    dead_letter_id   BIGINT UNSIGNED NULL     COMMENT 'the dead letter that is sent again by it',
    PRIMARY KEY (sink, sequence, place),
    KEY in_lane (sink, lane, next_attempt_at),
    UNIQUE KEY one_redrive (dead_letter_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin COMMENT = 'messages to be sent again; what follows them in the outbox goes on';
