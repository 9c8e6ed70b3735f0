INSERT INTO domain_event_outbox (id, event_type, aggregate_type, aggregate_id, tenant_id, payload)
VALUES (
    gen_random_uuid(), 'lead.created', 'Lead', 'lead-9', 'first-run',
    '{"leadId": "lead-9", "tenantId": "first-run", "email": "ada@analytical.example", "score": 95}'
);
