// Node's BullMQ at the test's command: one JSON request a line on stdin, one JSON answer a line on stdout.
//
//   request  {"id": 1, "on": "queue", "method": "add", "args": ["welcome", {...}, {...}]}
//   answer   {"id": 1, "result": ...} or {"id": 1, "error": "..."}
//   news     {"news": "completed", ...}: what QueueEvents hears and what the worker does
//
// Usage: node peer.mjs FOLDER_OF_PACKAGES, with {url, prefix, name} as JSON in PEER.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const require = createRequire(`${process.argv[2]}/`);
const { DelayedError, FlowProducer, Queue, QueueEvents, UnrecoverableError, Worker } = require('bullmq');
const Redis = require('ioredis');

const { url, prefix, name } = JSON.parse(process.env.PEER);
const connect = () => new Redis(url, { maxRetriesPerRequest: null });
const options = () => ({ connection: connect(), prefix });

const say = message => process.stdout.write(`${JSON.stringify(message)}\n`);
const queue = new Queue(name, options());
let worker, flows, events;
// Jobs that run until the test lets them end, by id; once let go, they do not wait again.
const held = new Map();
const released = new Set();

// The same names are handlers in behaviours.py.
const behaviours = {
  complete: job => ({ echoed: job.data.n ?? null }),
  fail(job) {
    if (job.attemptsMade < job.data.times) throw new Error(job.data.says);
    return { echoed: job.data.n ?? null };
  },
  refuse(job) {
    throw new UnrecoverableError(job.data.says);
  },
  async progress(job) {
    await job.updateProgress(job.data.steps);
    return null;
  },
  // For ever, or until its worker dies of it.
  hang: job => (job.stalledCounter > 0 ? null : new Promise(() => {})),
  // Until the test says so.
  async hold(job) {
    if (!released.has(job.id)) await new Promise(resolve => held.set(job.id, resolve));
    return { echoed: job.data.n ?? null };
  },
  async log(job) {
    for (const line of job.data.steps) await job.log(line);
    return null;
  },
  async children(job) {
    return { results: await job.getChildrenValues(), failures: await job.getIgnoredChildrenFailures() };
  },
  // Not now, once.
  async defer(job, token) {
    if (job.attemptsStarted > 1) return null;
    await job.moveToDelayed(Date.now() + job.data.n, token);
    throw new DelayedError();
  },
  // Nobody now, once.
  async limit(job) {
    if (job.attemptsStarted > 1) return null;
    await queue.rateLimit(job.data.n);
    throw Worker.RateLimitError();
  },
  context: job => job.opts.telemetry ?? null,
};

// A strategy of our own; Node has one function for all that BullMQ does not know.
const settings = {
  backoffStrategy: (attemptsMade, type) => (type === 'steps' ? 20 * attemptsMade : -1),
};

const worked = {
  start({ custom, ...more }) {
    const process = async (job, token) => {
      say({ news: 'ran', jobId: job.id, at: Date.now() });
      return behaviours[job.name](job, token);
    };
    worker = new Worker(name, process, { ...options(), ...(custom && { settings }), ...more });
    worker.on('error', error => say({ news: 'error', message: String(error) }));
    return worker.waitUntilReady().then(() => null);
  },
  // Those who wait for a word get it.
  close() {
    for (const letGo of held.values()) letGo();
    held.clear();
    released.clear();
    return worker.close();
  },
  release(id) {
    released.add(id);
    held.get(id)?.();
  },
  // What it goes by, defaults included; its connection is nobody's business.
  options() {
    const { connection, ...rest } = worker.opts;
    return rest;
  },
  // Take a job and let its lock run out, as a worker does that dies.
  async abandon() {
    const dead = new Worker(name, null, { ...options(), lockDuration: 1 });
    const job = await dead.getNextJob('dead', { block: false });
    await dead.close();
    return job.id;
  },
};

const heard = [
  'active', 'added', 'completed', 'deduplicated', 'delayed', 'duplicated', 'failed', 'paused', 'progress',
  'removed', 'resumed', 'retries-exhausted', 'stalled', 'waiting', 'waiting-children',
];

const listening = {
  start() {
    events = new QueueEvents(name, { ...options(), lastEventId: '0-0' });
    for (const event of heard) events.on(event, fields => say({ news: event, ...fields }));
    return events.waitUntilReady().then(() => null);
  },
};

const targets = {
  queue: () => queue,
  job: id => queue.getJob(id),
  flow: () => (flows ??= new FlowProducer(options())),
  worker: () => worked,
  events: () => listening,
};

async function answer({ id, on, job, method, args }) {
  try {
    const target = await targets[on](job);
    say({ id, result: (await target[method](...args)) ?? null });
  } catch (error) {
    say({ id, error: error.message });
  }
}

createInterface({ input: process.stdin })
  .on('line', line => answer(JSON.parse(line)))
  .on('close', () => process.exit(0));
