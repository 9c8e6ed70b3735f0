-- depends: 0001.outbox
-- Same columns, same order, so that INSERT INTO domain_event_outbox_archive SELECT * FROM domain_event_outbox works.
-- No unique key: a repeated hand-made copy must not fail half-way.
CREATE TABLE domain_event_outbox_archive (
    id             uuid,
    event_type     text,
    aggregate_type text,
    aggregate_id   text,
    tenant_id      text,
    payload        jsonb,
    metadata       jsonb,
    status         text,
    retry_count    integer,
    next_retry_at  timestamptz,
    last_error     text,
    created_at     timestamptz,
    processed_at   timestamptz,
    position       bigint,
    aggregate_hash integer
);

CREATE INDEX domain_event_outbox_archive_id ON domain_event_outbox_archive (id);

-- Security definer: whoever may delete an event need not be allowed to write the archive. Tables are named with their
-- schema because of it, and EXECUTE because that schema is known only at run time.
CREATE FUNCTION archive_deleted_outbox_events() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $archive$
BEGIN
    EXECUTE format(
        'INSERT INTO %1$I.domain_event_outbox_archive SELECT gone.* FROM gone'
        ' WHERE NOT EXISTS (SELECT FROM %1$I.domain_event_outbox_archive kept WHERE kept.id = gone.id)',
        TG_TABLE_SCHEMA
    );
    RETURN NULL;
END;
$archive$;

-- Who may execute it may attach it to a table of their own, whose triggers would then run with our rights.
REVOKE EXECUTE ON FUNCTION archive_deleted_outbox_events() FROM PUBLIC;

CREATE TRIGGER domain_event_outbox_archive_deleted AFTER DELETE ON domain_event_outbox
REFERENCING OLD TABLE AS gone
FOR EACH STATEMENT EXECUTE FUNCTION archive_deleted_outbox_events();
