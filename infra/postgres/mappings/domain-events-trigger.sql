-- For an application that keeps a table "domain_events" of its own: what is inserted there is in the outbox too, in the same
-- transaction. Events that wait there already are brought over first, so that each aggregate keeps its order.
--
-- Stop your own publisher, make the view below say what your columns mean, and then
--
--   psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f domain-events-trigger.sql
--
-- It may be run again. Inserts wait while it runs; it gives up when it has to wait five seconds itself. The application
-- needs: GRANT INSERT ON domain_event_outbox TO it; GRANT SELECT ON domain_events_mapped TO it;
BEGIN;
SET LOCAL lock_timeout = '5s';
LOCK TABLE domain_events IN SHARE ROW EXCLUSIVE MODE;

CREATE OR REPLACE VIEW domain_events_mapped AS
SELECT event.id AS source_id,
       -- An id that is no UUID becomes one, always the same.
       CASE WHEN event.id::text ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN event.id::text::uuid
            ELSE md5('domain_events/' || event.id::text)::uuid END AS id,
       -- Contracts, rules and handlers know dotted names: lead.created. Translate yours here if they are others.
       event."eventType"     AS event_type,
       event."aggregateType" AS aggregate_type,
       event."aggregateId"   AS aggregate_id,
       event."tenantId"      AS tenant_id,
       event.payload::jsonb  AS payload,
       coalesce(event.metadata::jsonb, '{}') AS metadata,
       -- Prisma's DateTime is UTC without saying so. A column with a time zone (@db.Timestamptz) stands here as it is.
       event."occurredAt" AT TIME ZONE 'UTC' AS created_at,
       -- What your publisher has published must not come again.
       event."processedAt" IS NULL AS pending,
       event.ctid AS place
  FROM domain_events AS event;

CREATE OR REPLACE FUNCTION copy_domain_event_to_outbox() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $copy$
BEGIN
    INSERT INTO domain_event_outbox
           (id, event_type, aggregate_type, aggregate_id, tenant_id, payload, metadata, created_at)
    SELECT id, event_type, aggregate_type, aggregate_id, tenant_id, payload, metadata, created_at
      FROM domain_events_mapped
     WHERE source_id = NEW.id AND pending
        ON CONFLICT DO NOTHING;
    RETURN NULL;
END;
$copy$;

-- Only the first time: whatever is pending in the table later has been in the outbox before.
INSERT INTO domain_event_outbox
       (id, event_type, aggregate_type, aggregate_id, tenant_id, payload, metadata, created_at)
SELECT id, event_type, aggregate_type, aggregate_id, tenant_id, payload, metadata, created_at
  FROM domain_events_mapped
 WHERE pending
   AND NOT EXISTS (SELECT FROM pg_trigger
                    WHERE tgrelid = 'domain_events'::regclass AND tgname = 'domain_events_to_outbox')
 ORDER BY created_at, place
    ON CONFLICT DO NOTHING;

CREATE OR REPLACE TRIGGER domain_events_to_outbox AFTER INSERT ON domain_events
FOR EACH ROW EXECUTE FUNCTION copy_domain_event_to_outbox();
COMMIT;
