-- An event to try: change the address, commit it, and a welcome mail is on its way.
INSERT INTO domain_event_outbox (id, event_type, aggregate_type, aggregate_id, tenant_id, payload, metadata)
VALUES (
    gen_random_uuid(), 'lead.created', 'Lead', 'lead-1', 'first-run',
    '{"leadId": "lead-1", "tenantId": "first-run", "email": "you@example.com", "firstName": "You"}',
    '{"correlationId": "trying-it-out", "version": "1.0"}'
);
