-- depends: 0008.notifications
-- How an endpoint is written to, and whether it still is. An endpoint without a secret is signed for with
-- WEBHOOK_SIGNING_SECRET.
ALTER TABLE tenant_webhook_endpoint
    ADD COLUMN secret                text CHECK (secret ~ '^wh(sec|sk)_'),
    -- The one before, with which messages are signed too until then, so that a receiver can change over in peace.
    ADD COLUMN previous_secret       text CHECK (previous_secret ~ '^wh(sec|sk)_'),
    ADD COLUMN previous_secret_until timestamptz,
    ADD COLUMN rate_per_second       double precision CHECK (rate_per_second > 0 AND rate_per_second <= 1000),
    ADD COLUMN ordered               boolean     NOT NULL DEFAULT false,
    -- Statuses after which a message is not tried again, beside 410.
    ADD COLUMN permanent_statuses    integer[]   NOT NULL DEFAULT '{}'
                                     CHECK (400 <= ALL (permanent_statuses) AND 599 >= ALL (permanent_statuses)),
    ADD COLUMN headers               jsonb       NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(headers) = 'object'),
    -- When the failures began that no success has ended yet.
    ADD COLUMN failing_since         timestamptz,
    -- Both are set together with `active = false`, whoever did it.
    ADD COLUMN disabled_at           timestamptz,
    ADD COLUMN disabled_because      text;
