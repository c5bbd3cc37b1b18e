-- Assignments of lists that arrive in parts, with an approval by a second administrator and a budget a day. Times are UTC.
ALTER TABLE assignments
    DROP CONSTRAINT assignments_status,
    ADD COLUMN assignment_key      VARCHAR(64)  NULL COMMENT 'names it in URLs; none: the assignment_id does' AFTER coupon_id,
    ADD COLUMN list_hash           BINARY(32)   NULL COMMENT 'SHA-256 of its users in their order, 8 bytes each, big endian: a repeat has the same list',
    ADD COLUMN requested_by        VARCHAR(100) NULL COMMENT 'the administrator who asked for it',
    ADD COLUMN decided_by          VARCHAR(100) NULL COMMENT 'the administrator who approved or rejected it; none: none was needed',
    ADD COLUMN decided_at          DATETIME(3)  NULL,
    ADD COLUMN approval_expires_at DATETIME(3)  NULL COMMENT 'until when it can be approved; none: none is needed',
    MODIFY COLUMN status VARCHAR(17) NOT NULL DEFAULT 'PENDING'
        COMMENT 'AWAITING_APPROVAL; REJECTED or EXPIRED: without an effect; PENDING, or DONE once every user has an outcome',
    ADD UNIQUE KEY by_key (coupon_id, assignment_key),
    ADD CONSTRAINT assignments_status CHECK (status IN ('AWAITING_APPROVAL', 'REJECTED', 'EXPIRED', 'PENDING', 'DONE')),
    ADD CONSTRAINT assignments_second_administrator CHECK (
        status IN ('AWAITING_APPROVAL', 'REJECTED', 'EXPIRED') OR decided_by IS NULL OR decided_by <> requested_by);

CREATE TABLE assignment_outcomes (
    assignment_id BINARY(16)   NOT NULL,
    outcome       VARCHAR(40)  NOT NULL COMMENT 'as in assignment_users',
    users         INT UNSIGNED NOT NULL COMMENT 'rows in assignment_users with this outcome',
    PRIMARY KEY (assignment_id, outcome)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin COMMENT = 'how many users of an assignment have which outcome';

INSERT INTO assignment_outcomes (assignment_id, outcome, users)
    SELECT assignment_id, outcome, COUNT(*) FROM assignment_users WHERE outcome IS NOT NULL GROUP BY assignment_id, outcome;

CREATE TABLE assignment_uploads (
    assignment_id BINARY(16)      NOT NULL COMMENT 'of its rows in assignment_users',
    coupon_id     BIGINT UNSIGNED NOT NULL,
    state         VARCHAR(8)      NOT NULL COMMENT 'ARRIVING, or REMOVING: its rows are being deleted',
    expires_at    DATETIME(3)     NOT NULL COMMENT 'when its rows are deleted, unless more of them arrive',
    PRIMARY KEY (assignment_id),
    KEY by_expiry (expires_at),
    CONSTRAINT assignment_uploads_state CHECK (state IN ('ARRIVING', 'REMOVING'))
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin
  COMMENT = 'lists of users without an effect: not complete yet, refused, rejected or expired';

CREATE TABLE assignment_budgets (
    coupon_id    BIGINT UNSIGNED NOT NULL,
    business_day DATE            NOT NULL,
    assigned     INT UNSIGNED    NOT NULL COMMENT 'users of the assignments that took effect on that day',
    budget       INT UNSIGNED    NOT NULL COMMENT 'the setting ASSIGNMENT_DAILY_BUDGET at the last of them',
    PRIMARY KEY (coupon_id, business_day),
    CONSTRAINT assignment_budgets_kept CHECK (assigned <= budget)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin COMMENT = 'what administrators assigned on a day';
