-- depends: 0005.webhook-endpoints
-- What people did to events, and what these were before. No reference to the outbox: an event moves to the archive and
-- back, and its history stays. Purging the event from the archive removes it.
CREATE TABLE domain_event_edit (
    number         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- The event; of a replay, which concerns many, the replay's own id.
    event_id       uuid        NOT NULL,
    edited_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    verb           text        NOT NULL CHECK (verb IN ('retry', 'discard', 'replay')),
    edited_by      text        NOT NULL,
    reason         text        NOT NULL DEFAULT '',
    error_before   text,
    -- Only where the payload was changed.
    payload_before jsonb
);

CREATE INDEX domain_event_edit_event ON domain_event_edit (event_id);
