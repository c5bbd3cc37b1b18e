-- The sampled requests that an event comes from, so that its messages join their traces; NULL without one.
ALTER TABLE outbox_events
    ADD COLUMN traces TEXT CHARACTER SET ascii NULL COMMENT 'JSON: place of a message in the event -> W3C traceparent';
