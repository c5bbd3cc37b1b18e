-- Changes of campaigns while they run, and who made each.
ALTER TABLE coupons
    ADD COLUMN revision INT UNSIGNED NOT NULL DEFAULT 1 COMMENT 'raised by each change of an administrator; the entity tag of the API';

CREATE TABLE admin_actions (
    admin_action_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
    operation_id    BINARY(16)      NOT NULL COMMENT 'of the request: a repeat has no second effect',
    actor           VARCHAR(100)    NOT NULL COMMENT 'who called: the name of the credential',
    action          VARCHAR(40)     NOT NULL COMMENT 'such as campaign.pause',
    target_id       VARCHAR(64)     NOT NULL COMMENT 'of what was changed, such as the coupon_id',
    before_state    JSON            NULL     COMMENT 'the changed fields before; none when it was created',
    after_state     JSON            NULL     COMMENT 'the changed fields after',
    reason          VARCHAR(500)    NULL     COMMENT 'as the administrator gave it',
    request_id      VARCHAR(128)    NOT NULL COMMENT 'finds the request in the log',
    created_at      DATETIME(3)     NOT NULL,
    PRIMARY KEY (admin_action_id),
    UNIQUE KEY once (operation_id),
    KEY of_target (target_id, action, admin_action_id),
    KEY of_actor (actor, admin_action_id),
    KEY by_time (created_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin COMMENT = 'what administrators changed; rows are only added';
