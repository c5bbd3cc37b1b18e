-- What runs: `dibs-worker doctor` compares the settings, pools and clocks of the processes.
CREATE TABLE processes (
    process_id           BINARY(16)        NOT NULL COMMENT 'given at its start (UUIDv7)',
    program              VARCHAR(20)       NOT NULL COMMENT 'dibs-api or dibs-worker',
    version              VARCHAR(40)       NOT NULL,
    address              VARCHAR(60)       NOT NULL COMMENT 'API_ADDRESS or WORKER_ADDRESS',
    settings             VARCHAR(4000)     NOT NULL COMMENT 'JSON: those that all processes must share, by name',
    database_connections SMALLINT UNSIGNED NOT NULL COMMENT 'the most that its pool opens',
    clock_offset_ms       BIGINT            NOT NULL COMMENT 'its clock, less that of the database',
    started_at           DATETIME(3)       NOT NULL COMMENT 'by the clock of the database, as is seen_at',
    seen_at              DATETIME(3)       NOT NULL COMMENT 'every 10 s; the row is deleted when the process ends',
    PRIMARY KEY (process_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin COMMENT = 'API and worker processes that run';
