-- depends: 0007.outbox-search-index
-- What became of every notification: the notifications-worker's record, kept for DELIVERY_HISTORY_DAYS.
CREATE TABLE notification_delivery (
    tenant_id           text        NOT NULL,
    notification_id     text        NOT NULL,
    channel             text        NOT NULL,
    -- Who sends it, or was the last to: queue and job.
    job                 text        NOT NULL,
    recipient           text,
    state               text        NOT NULL CHECK (state IN
                        ('sending', 'waiting', 'accepted', 'delivered', 'undelivered', 'suppressed', 'expired', 'dropped',
                         'dead')),
    -- While it is being sent, nobody else may before this time.
    lease_until         timestamptz,
    -- Since when a provider may have it without our knowing.
    doubtful_since      timestamptz,
    attempts            integer     NOT NULL DEFAULT 0,
    provider            text,
    provider_message_id text,
    code                text,
    reason              text,
    event_id            text,
    -- The job's data, where sending it again by hand is worth keeping it for.
    payload             jsonb,
    created_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    accepted_at         timestamptz,
    PRIMARY KEY (tenant_id, notification_id, channel)
);
-- A provider's later word finds its delivery by this.
CREATE INDEX notification_delivery_provider ON notification_delivery (provider, provider_message_id)
 WHERE provider_message_id IS NOT NULL;
CREATE INDEX notification_delivery_recipient ON notification_delivery (lower(recipient)) WHERE recipient IS NOT NULL;
CREATE INDEX notification_delivery_changed ON notification_delivery (changed_at);
CREATE INDEX notification_delivery_job ON notification_delivery (job);

CREATE TABLE notification_attempt (
    id                  bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id           text        NOT NULL,
    notification_id     text        NOT NULL,
    channel             text        NOT NULL,
    -- The job's, from 1; a deferral keeps the number.
    attempt             integer     NOT NULL,
    provider            text        NOT NULL,
    started_at          timestamptz NOT NULL,
    milliseconds        integer     NOT NULL,
    -- accepted, retried, deferred, rejected, unknown
    outcome             text        NOT NULL,
    code                text,
    reason              text,
    -- What the provider said: its number, its finer code, its words with addresses masked, who said it, and the keys that
    -- had signed what it got.
    status              integer,
    status_code         text,
    said                text,
    remote              text,
    signed_by           text[]      NOT NULL DEFAULT '{}'
);
CREATE INDEX notification_attempt_delivery ON notification_attempt (tenant_id, notification_id, channel, id);

-- By fingerprint, so that an address that was erased stays suppressed.
CREATE TABLE notification_suppression (
    tenant_id           text        NOT NULL,
    channel             text        NOT NULL,
    fingerprint         text        NOT NULL,
    address             text,
    reason              text        NOT NULL,
    created_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, channel, fingerprint)
);
CREATE INDEX notification_suppression_fingerprint ON notification_suppression (fingerprint);
