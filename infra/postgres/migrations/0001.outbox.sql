-- Events that were committed together with the data they speak of, until the relay has published them.
-- A writer gives the first seven columns; everything else has a default.
CREATE TABLE domain_event_outbox (
    id             uuid        NOT NULL,
    event_type     text        NOT NULL,
    aggregate_type text        NOT NULL,
    aggregate_id   text        NOT NULL,
    tenant_id      text        NOT NULL,
    payload        jsonb       NOT NULL DEFAULT '{}',
    metadata       jsonb       NOT NULL DEFAULT '{}',
    status         text        NOT NULL DEFAULT 'pending'
                   CHECK (status IN ('pending', 'processed', 'dead_letter')),
    retry_count    integer     NOT NULL DEFAULT 0,
    next_retry_at  timestamptz,
    last_error     text,
    created_at     timestamptz NOT NULL DEFAULT now(),
    -- Also set on dead letters: NULL is what "pending" means to the relay and to the runbook.
    processed_at   timestamptz,
    -- Orders the events of one aggregate: its writers are serialised by the aggregate's own lock or version.
    position       bigint      GENERATED ALWAYS AS IDENTITY,
    -- Chooses the relay's partition. Stored, because adding it later would rewrite a live table.
    aggregate_hash integer     GENERATED ALWAYS AS (hashtext(aggregate_type || ':' || aggregate_id)) STORED,
    PRIMARY KEY (id)
);

CREATE INDEX domain_event_outbox_pending ON domain_event_outbox (position) WHERE processed_at IS NULL;

CREATE INDEX domain_event_outbox_finished ON domain_event_outbox (processed_at) WHERE processed_at IS NOT NULL;

-- Every row is updated once and deleted once: with the server's 20 % the dead rows would pile up between vacuums.
ALTER TABLE domain_event_outbox SET (
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_analyze_scale_factor = 0.02,
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 1
);
