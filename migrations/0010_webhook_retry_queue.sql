-- Standard names for the messages that webhooks send again.
ALTER TABLE parked_messages
    RENAME COLUMN lane TO ordering_key,
    RENAME COLUMN last_answer TO last_response,
    RENAME INDEX in_lane TO by_ordering_key;
RENAME TABLE parked_messages TO webhook_retry_queue;
