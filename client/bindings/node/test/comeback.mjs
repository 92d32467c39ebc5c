// SPDX-License-Identifier: MIT
// Over kill -9 of a real eqd, at EQD_SOCKET: a line CRASH on standard output asks for one, a line on standard input tells that the next
// one is there.
import assert from 'node:assert/strict';
import { createInterface } from 'node:readline';
import { connect, worker } from 'eqd';

const POLICY = { firstMs: 5, maxMs: 50 };
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
async function crash() {
  console.log('CRASH');
  assert.equal((await lines.next()).value, 'BACK');
}

/** Until there is a worker. Looks for one when it would be told of the next: none comes in between. */
async function served() {
  const stop = new AbortController();
  let ready;
  const subscribed = new Promise((resolve) => (ready = resolve));
  const joined = client.events({ events: ['worker.joined'], ready, signal: stop.signal }).next();
  await Promise.race([subscribed, joined]);
  if ((await client.workerList()).length === 0) await joined;
  stop.abort();
  await joined.catch((e) => assert.equal(e.name, 'AbortError'));
}

const client = await connect({ reconnect: POLICY });
await client.queueCreate('w', { set: { executor: 'worker', max_active: 8, max_crashes: 100 } });
const w = await worker('w', { concurrency: 4, reconnect: POLICY });
const serving = w.serve((run) => String(Buffer.from(run.payload)).toUpperCase());
const stop = new AbortController();
const seen = [];
const watching = (async () => {
  for await (const event of client.events({ queue: 'w', signal: stop.signal })) seen.push(event.event);
})().catch((e) => assert.equal(e.name, 'AbortError'));

for (let part = 0; part < 3; part++) {
  const submits = Array.from({ length: 200 }, (_, i) => client.submit('w', `x${i}`));
  await submits[0];
  const crashing = crash();
  const records = await Promise.all((await Promise.all(submits)).map((t) => t.result()));
  assert.deepEqual(records.map((r) => String(Buffer.from(r.result))), Array.from({ length: 200 }, (_, i) => `X${i}`));
  await crashing;
}
assert.equal((await client.queueShow('w')).last_seq, 600); // none lost, none doubled
await served(); // it comes back by itself, after pauses of its own
assert.equal((await client.workerList()).length, 1);
assert.ok(seen.includes('reconnected'), `${new Set(seen)}`);
stop.abort();
await watching;
await w.close();
await serving;
await client.close();
console.log('DONE');
process.exit(0);
