-- For an application whose ORM writes a table "domain_events" with columns in camelCase, and that has no such table, or not
-- any more: the outbox under those names. What is inserted here is in the outbox, in the same transaction.
--
--   psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f domain-events-view.sql
--
-- The ORM's model has these columns and no others; what it leaves out has the outbox's defaults. Whoever may write the
-- view needs no right on the table: GRANT INSERT, SELECT ON domain_events TO the_application;
CREATE OR REPLACE VIEW domain_events AS
SELECT id,
       event_type     AS "eventType",
       aggregate_type AS "aggregateType",
       aggregate_id   AS "aggregateId",
       tenant_id      AS "tenantId",
       payload,
       metadata,
       created_at     AS "occurredAt"
  FROM domain_event_outbox;
