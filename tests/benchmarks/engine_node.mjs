// Node's BullMQ as a contender. Usage: node engine_node.mjs FOLDER_OF_PACKAGES, with the task as JSON in TASK.
import { writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { setTimeout as sleep } from 'node:timers/promises';

const require = createRequire(`${process.argv[2]}/`);
const { Queue, Worker } = require('bullmq');
const Redis = require('ioredis');

const { role, url, jobs, concurrency, body, limit_max: limitMax, limit_ms: limitMs, hold_seconds: holdSeconds } =
  JSON.parse(process.env.TASK);
const say = line => writeSync(1, `${JSON.stringify(line)}\n`);
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

async function watch() {
  let missing = jobs;
  let worker;
  await new Promise(async resolve => {
    const limiter = limitMax ? { limiter: { max: limitMax, duration: limitMs } } : {};
    worker = new Worker('events', async job => {
      // The clock that all processes of a machine share.
      say({ job: job.data.eventId, began: Number(process.hrtime.bigint()) / 1e9 });
      if (--missing === 0) resolve();
      await sleep(holdSeconds * 1000);
    }, { ...options(), concurrency, ...limiter });
    // Redis going away is what some of it is about.
    worker.on('error', () => {});
    await worker.waitUntilReady();
    say('ready');
  });
  await worker.close();
}

await { enqueue, work, watch }[role]();
if (role !== 'watch') say({ seconds, cpu, peakMb: process.resourceUsage().maxRSS / 1024 });
process.exit(0);
