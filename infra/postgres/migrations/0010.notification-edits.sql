-- depends: 0009.webhook-endpoint-keys
-- What people did to deliveries and addresses, and why. A delivery's go with it; the others stay. No address is in here.
CREATE TABLE notification_edit (
    number              bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    edited_at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    verb                text        NOT NULL CHECK (verb IN ('replay', 'suppress', 'unsuppress', 'erase')),
    tenant_id           text,
    notification_id     text,
    channel             text,
    fingerprint         text,
    edited_by           text        NOT NULL,
    reason              text        NOT NULL DEFAULT '',
    -- Of a delivery that was put back on its queue.
    state_before        text
);

CREATE INDEX notification_edit_delivery ON notification_edit (tenant_id, notification_id, channel)
 WHERE notification_id IS NOT NULL;
