-- transactional: false
-- depends: 0003.outbox-order
-- Without a transaction, because writers need not wait for an index that is built concurrently. What a run that was
-- killed left behind is invalid, and is dropped first.
DROP INDEX CONCURRENTLY IF EXISTS domain_event_outbox_next;

-- The pending events of one aggregate in their order. Its condition says the same as domain_event_outbox_pending's in
-- other words, so that a statement chooses between the two by its own words: the planner, whose statistics are of
-- another minute, takes a backlog for one row and the wrong index for as good.
CREATE INDEX CONCURRENTLY domain_event_outbox_next ON domain_event_outbox (aggregate_type, aggregate_id, position)
 WHERE num_nulls(processed_at) = 1;
