// The relay most Node teams write: rows locked with SKIP LOCKED, BullMQ's addBulk, marked, committed. It keeps no order.
// Usage: node relay_node.mjs FOLDER_OF_PACKAGES, with DATABASE_URL, REDIS_URL and BATCH; starts on a line on stdin.
import { writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

const require = createRequire(`${process.argv[2]}/`);
const { Queue } = require('bullmq');
const { Client } = require('pg');
const Redis = require('ioredis');

const { DATABASE_URL, REDIS_URL, BATCH } = process.env;
const queue = new Queue('events', {
  connection: new Redis(REDIS_URL, { maxRetriesPerRequest: null }), prefix: 'intelliflow',
});
const database = new Client({ connectionString: DATABASE_URL });
await Promise.all([database.connect(), queue.waitUntilReady()]);

const pending = {
  name: 'pending',
  text: 'SELECT * FROM domain_event_outbox WHERE processed_at IS NULL ORDER BY position LIMIT $1 FOR UPDATE SKIP LOCKED',
  values: [Number(BATCH)],
};
const published = ids => ({
  name: 'published',
  text: "UPDATE domain_event_outbox SET status = 'processed', processed_at = now() WHERE id = ANY ($1::uuid[])",
  values: [ids],
});
const envelope = row => ({
  eventId: row.id,
  eventType: row.event_type,
  aggregateType: row.aggregate_type,
  aggregateId: row.aggregate_id,
  tenantId: row.tenant_id,
  metadata: { timestamp: row.created_at, version: '1.0', ...row.metadata },
  occurredAt: row.created_at,
  sequence: Number(row.position),
  payload: row.payload,
});

writeSync(1, 'ready\n');
await once(process.stdin, 'data');
for (;;) {
  await database.query('BEGIN');
  const { rows } = await database.query(pending);
  if (rows.length) {
    await queue.addBulk(rows.map(row => ({ name: row.event_type, data: envelope(row), opts: { jobId: row.id } })));
    await database.query(published(rows.map(row => row.id)));
  }
  await database.query('COMMIT');
  if (!rows.length) await sleep(100);
}
