// Node's BullMQ as a contender. Usage: node engine_node.mjs FOLDER_OF_PACKAGES, with the task as JSON in TASK.
import { createRequire } from 'node:module';

const require = createRequire(`${process.argv[2]}/`);
const { Queue, Worker } = require('bullmq');
const Redis = require('ioredis');

const { role, url, jobs, concurrency, body } = JSON.parse(process.env.TASK);
const callSize = 100;
const options = () => ({ connection: new Redis(url, { maxRetriesPerRequest: null }), prefix: 'intelliflow' });

let began, used, seconds, cpu;
const start = () => ([began, used] = [process.hrtime.bigint(), process.cpuUsage()]);
const stop = () => {
  const { user, system } = process.cpuUsage(used);
  [seconds, cpu] = [Number(process.hrtime.bigint() - began) / 1e9, (user + system) / 1e6];
};

async function enqueue() {
  const queue = new Queue('events', options());
  await queue.getJobCounts('wait');
  const data = JSON.parse(body);
  start();
  for (let done = 0; done < jobs; done += callSize) {
    const size = Math.min(callSize, jobs - done);
    await queue.addBulk(Array.from({ length: size }, () => ({ name: 'event', data })));
  }
  stop();
}

async function work() {
  let hits = 0;
  let worker;
  await new Promise(resolve => {
    worker = new Worker('events', async () => {
      if (++hits === 1) start();
      if (hits === jobs) {
        stop();
        resolve();
      }
    }, { ...options(), concurrency });
  });
  await worker.close();
}

await (role === 'enqueue' ? enqueue() : work());
console.log(JSON.stringify({ seconds, cpu }));
process.exit(0);
