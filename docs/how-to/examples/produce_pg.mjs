import { randomUUID } from 'node:crypto';

// Called between BEGIN and COMMIT of the client's transaction.
export async function moveLead(client, leadId, status) {
  // The lock comes first: it is what puts the events of a lead in order.
  const { rows: [lead] } = await client.query('SELECT * FROM leads WHERE id = $1 FOR UPDATE', [leadId]);
  const moved = { leadId, tenantId: lead.tenant_id, status, previousStatus: lead.status };
  const version = lead.version + 1;
  await client.query('UPDATE leads SET status = $2, version = $3 WHERE id = $1', [leadId, status, version]);
  await client.query(
    `INSERT INTO domain_event_outbox (id, event_type, aggregate_type, aggregate_id, tenant_id, payload, metadata)
     VALUES ($1, 'lead.status_changed', 'Lead', $2, $3, $4, $5)`,
    [randomUUID(), leadId, lead.tenant_id, { ...moved, version, changedAt: new Date().toISOString() }, {}]);
}
