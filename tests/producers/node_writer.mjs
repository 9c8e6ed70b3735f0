// One transaction at the test's command: a request a line on stdin, `done` a line on stdout.
//
// Usage: node node_writer.mjs FOLDER_OF_PACKAGES MODULE URL
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const [packages, module, connectionString] = process.argv.slice(2);
const { Client } = createRequire(`${packages}/`)('pg');
const { moveLead } = await import(pathToFileURL(module));

const client = new Client({ connectionString });
await client.connect();
await client.query('BEGIN');
for await (const line of createInterface({ input: process.stdin })) {
  const { end, lead, status } = JSON.parse(line);
  await (end ? client.query(end) : moveLead(client, lead, status));
  process.stdout.write('done\n');
  if (end) break;
}
await client.end();
process.stdin.destroy();
