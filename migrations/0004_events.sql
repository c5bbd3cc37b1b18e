-- Events on their way to those who are told of them, what sold on each day, and the jobs that keep count. A day is a
-- business day, in the time zone of the shop's settings; times are UTC.

ALTER TABLE outbox_events
    ADD COLUMN sequence BIGINT UNSIGNED NULL COMMENT 'place in the order of delivery, without gaps; none until it is numbered',
    ADD UNIQUE KEY in_sequence (sequence);

ALTER TABLE orders
    ADD KEY paid_at (paid_at),
    ADD KEY ended_at (ended_at);

CREATE TABLE outbox_sequence (
    only_row      TINYINT UNSIGNED NOT NULL DEFAULT 1,
    last_sequence BIGINT UNSIGNED  NOT NULL COMMENT 'the highest sequence given; whoever gives more locks this row',
    PRIMARY KEY (only_row),
    CONSTRAINT outbox_sequence_only_row CHECK (only_row = 1)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin COMMENT = 'how far outbox_events are numbered';
INSERT INTO outbox_sequence (last_sequence) VALUES (0);

CREATE TABLE sinks (
    name              VARCHAR(40)     NOT NULL,
    delivered_through BIGINT UNSIGNED NOT NULL COMMENT 'it has taken every event up to this sequence',
    updated_at        DATETIME(3)     NOT NULL,
    PRIMARY KEY (name)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin COMMENT = 'receivers of events, each with its own progress';

CREATE TABLE product_daily_sales (
    day        DATE            NOT NULL COMMENT 'on which the orders were paid',
    product_id BIGINT UNSIGNED NOT NULL,
    quantity   BIGINT          NOT NULL COMMENT 'units paid that day, less those of orders cancelled since',
    PRIMARY KEY (day, product_id),
    KEY of_product (product_id, day)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin COMMENT = 'what sold on each day that is over';

CREATE TABLE best_sellers (
    day         DATE            NOT NULL COMMENT 'the last of the three days that are counted',
    rank_number INT UNSIGNED    NOT NULL COMMENT '1 for what sold best; of two that sold the same, the lower product_id is first',
    product_id  BIGINT UNSIGNED NOT NULL,
    quantity    BIGINT          NOT NULL COMMENT 'units of the three days',
    PRIMARY KEY (day, rank_number),
    UNIQUE KEY one_rank (day, product_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin COMMENT = 'the 1,000 products that sold best in three days';

CREATE TABLE job_runs (
    name       VARCHAR(40)  NOT NULL COMMENT 'as dibs-worker job names it',
    day        DATE         NOT NULL COMMENT 'for which it ran',
    status     VARCHAR(7)   NOT NULL COMMENT 'RUNNING, DONE or FAILED, of the last run for that day',
    started_at DATETIME(3)  NOT NULL,
    ended_at   DATETIME(3)  NULL,
    as_of      DATETIME(3)  NULL     COMMENT 'when the last run began that was done: what happened until then is in its result',
    detail     VARCHAR(300) NULL     COMMENT 'what it did, or why it failed',
    PRIMARY KEY (name, day),
    CONSTRAINT job_runs_status CHECK (status IN ('RUNNING', 'DONE', 'FAILED'))
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin COMMENT = 'runs of jobs, one row for each day';
