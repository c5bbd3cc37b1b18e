-- Changes of products by administrators, so that a repeated request changes nothing more. Times are UTC.

CREATE TABLE product_changes (
    operation_id BINARY(16)      NOT NULL COMMENT 'of the request, the same at every attempt',
    product_id   BIGINT UNSIGNED NOT NULL,
    product      JSON            NOT NULL COMMENT 'the product after the change, which a repeat is answered',
    created_at   DATETIME(3)     NOT NULL,
    PRIMARY KEY (operation_id),
    KEY created_at (created_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin COMMENT = 'changes of products, as long as a repeat may come';
