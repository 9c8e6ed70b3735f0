// Node's worker in the soak, doing what soak_ours.py does. Usage: node soak_node.mjs FOLDER_OF_PACKAGES, told by SOAK.
import { openSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { setTimeout as sleep } from 'node:timers/promises';

const require = createRequire(`${process.argv[2]}/`);
const { Worker } = require('bullmq');
const Redis = require('ioredis');

const { url, prefix, name, runs, options } = JSON.parse(process.env.SOAK);
const file = openSync(runs, 'a');
const write = (what, id) => writeSync(file, `${JSON.stringify([what, id, Date.now() / 1000])}\n`);

const connection = new Redis(url, { maxRetriesPerRequest: null });
connection.on('error', () => {}); // Outages are the point.
const worker = new Worker(name, async job => {
  write('begun', job.id);
  await sleep(job.data.seconds * 1000);
  write('ended', job.id);
  if (job.attemptsMade < job.data.fails) throw new Error('told to fail');
  return null;
}, { connection, prefix, ...options });
worker.on('error', () => {});

process.on('SIGTERM', async () => {
  await worker.close();
  process.exit(0);
});
