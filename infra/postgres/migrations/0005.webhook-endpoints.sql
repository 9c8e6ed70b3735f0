-- depends: 0004.outbox-order-index
-- Where tenants want their events sent. The events-worker reads it for rules with the action `webhook`.
CREATE TABLE tenant_webhook_endpoint (
    id             uuid        NOT NULL DEFAULT gen_random_uuid(),
    tenant_id      text        NOT NULL CHECK (tenant_id <> ''),
    url            text        NOT NULL CHECK (url ~ '^https?://[^/\s]'),
    -- Types (lead.created), families (lead.*) or everything (*), as in a rule.
    event_patterns text[]      NOT NULL DEFAULT '{*}'
                   CHECK (array_to_string(event_patterns, E'\n', '')
                          ~ '^(\*|[^\s*]+(\.\*)?)(\n(\*|[^\s*]+(\.\*)?))*$'),
    active         boolean     NOT NULL DEFAULT true,
    created_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (id),
    -- An endpoint is one thing however many events it wants: it gets each of them once.
    UNIQUE (tenant_id, url)
);
