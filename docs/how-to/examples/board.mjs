import { createBullBoard } from '@bull-board/api';
import { BullMQAdapter } from '@bull-board/api/bullMQAdapter';
import { ExpressAdapter } from '@bull-board/express';
import { Queue } from 'bullmq';
import express from 'express';

// What metrics and logs call intelliflow:notifications:email is the queue `email` under the rest as its prefix.
const queues = ['intelliflow:events', 'intelliflow:notifications:email'].map(label => {
  const [name, ...prefix] = label.split(':').reverse();
  return { name, prefix: prefix.reverse().join(':') };
});
const connection = { url: process.env.REDIS_URL };
const views = queues.map(({ name, prefix }) =>
  new BullMQAdapter(new Queue(name, { connection, prefix, skipMetasUpdate: true }), { prefix: `${prefix}:` }));

const serverAdapter = new ExpressAdapter();
createBullBoard({ queues: views, serverAdapter });
const server = express().use(serverAdapter.getRouter()).listen(process.env.PORT ?? 3000, '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${server.address().port}`);
});
