-- transactional: false
-- depends: 0003.outbox-order
-- Without a transaction, because writers need not wait for an index that is built concurrently. What a run that was
-- killed left behind is invalid, and is dropped first.
DROP INDEX CONCURRENTLY IF EXISTS domain_event_outbox_next;

-- The pending events of one aggregate in their order.
CREATE INDEX CONCURRENTLY domain_event_outbox_next ON domain_event_outbox (aggregate_type, aggregate_id, position)
 WHERE processed_at IS NULL;
