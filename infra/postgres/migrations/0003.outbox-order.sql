-- depends: 0002.outbox-archive
-- At most one event of an aggregate is under way: published, and not yet handled. The unique key is what keeps the
-- effects of one aggregate in order, whatever relays and workers believe.
CREATE TABLE domain_event_under_way (
    event_id       uuid        NOT NULL PRIMARY KEY,
    aggregate_type text        NOT NULL,
    aggregate_id   text        NOT NULL,
    aggregate_hash integer     NOT NULL,
    claimed_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Receipts: the handlers that are done with it. A retry runs only the others.
    finished       text[]      NOT NULL DEFAULT '{}',
    -- A dead letter, until somebody retries or discards it.
    dead_reason    text,
    -- The attempt that it died of. A job that comes back with the same one was not retried by anybody: its worker died
    -- before Redis heard of the end, or Redis lost it.
    dead_attempt   integer,
    -- False for a dead letter that later events of its aggregate have passed.
    blocks         boolean     NOT NULL DEFAULT true
);

CREATE UNIQUE INDEX domain_event_under_way_one ON domain_event_under_way (aggregate_type, aggregate_id) WHERE blocks;

-- Every row is deleted soon: without this the few pages would bloat between the server's default vacuums.
ALTER TABLE domain_event_under_way SET (
    autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0
);

-- Each partition of the aggregates has one owner at a time. A claim names the token by which it believes to be the
-- owner, so that one that has been replaced finds nothing.
CREATE TABLE domain_event_partition (
    partition   integer     NOT NULL PRIMARY KEY,
    owner       text,
    token       bigint      NOT NULL DEFAULT 0,
    lease_until timestamptz NOT NULL DEFAULT '-infinity'
);

-- The relays that live, so that each takes its fair share.
CREATE TABLE domain_event_relay (
    instance   text        NOT NULL PRIMARY KEY,
    seen_until timestamptz NOT NULL
);

-- True for an event whose end is noted above all: gone from domain_event_under_way means handled. A release that knows
-- nothing of that table publishes without it, and such events run without receipts.
ALTER TABLE domain_event_outbox ADD COLUMN receipted boolean NOT NULL DEFAULT false;
ALTER TABLE domain_event_outbox_archive ADD COLUMN receipted boolean;
