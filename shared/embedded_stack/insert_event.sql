-- What a writer gives; every other column has a default, so that any language's ORM can insert.
INSERT INTO domain_event_outbox (id, event_type, aggregate_type, aggregate_id, tenant_id, payload, metadata)
VALUES (%s, %s, %s, %s, %s, %s, %s)
