-- transactional: false
-- depends: 0006.outbox-edits
-- Without a transaction, because writers need not wait for an index that is built concurrently. What a run that was
-- killed left behind is invalid, and is dropped first.
DROP INDEX CONCURRENTLY IF EXISTS domain_event_outbox_dead;

-- The dead letters, few among all that was handled.
CREATE INDEX CONCURRENTLY domain_event_outbox_dead ON domain_event_outbox (processed_at) WHERE status = 'dead_letter';

DROP INDEX CONCURRENTLY IF EXISTS domain_event_outbox_archive_dead;

CREATE INDEX CONCURRENTLY domain_event_outbox_archive_dead ON domain_event_outbox_archive (processed_at)
 WHERE status = 'dead_letter';

DROP INDEX CONCURRENTLY IF EXISTS domain_event_outbox_archive_created;

-- For the purge, and for the replay of a time range.
CREATE INDEX CONCURRENTLY domain_event_outbox_archive_created ON domain_event_outbox_archive (created_at);

DROP INDEX CONCURRENTLY IF EXISTS domain_event_outbox_archive_aggregate;

-- For the replay of an aggregate, at a third of the size of an index on its names.
CREATE INDEX CONCURRENTLY domain_event_outbox_archive_aggregate ON domain_event_outbox_archive (aggregate_hash);
