WITH rule AS (
    INSERT INTO fw_workflow_rules (organization_id, name, trigger_event)
    VALUES ('tenant-1', 'order-followup', 'order.created')
        ON CONFLICT (organization_id, name) DO NOTHING
    RETURNING id
)
INSERT INTO fw_workflow_definitions (rule_id, version, definition)
SELECT id, 1, '{
    "name": "order-followup",
    "trigger": {"event": "order.created", "when": "payload.total > 100"},
    "steps": [
        {"id": "paid", "wait_for_event": {
            "event": "invoice.paid",
            "correlation": "input.orderId or input.event.aggregateId",
            "timeoutSeconds": 86400,
            "onTimeout": "continue"
        }},
        {"id": "seen", "set": {"paid": "steps.paid.payload.amount or 0"}}
    ]
}' FROM rule;
