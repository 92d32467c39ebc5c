// SPDX-License-Identifier: MIT
// Workers with a real eqd, at EQD_SOCKET.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import test, { after } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { LIMITS, connect, errors, worker } from 'eqd';
import { plainText } from '../lib/worker.js';

const client = await connect();
after(() => client.close());

let queues = 0;
async function queue(set = {}) {
  const name = `w${queues++}`;
  await client.queueCreate(name, { set: { executor: 'worker', ...set } });
  return name;
}

test('an iterator hands out runs, many at once', async () => {
  const q = await queue({ max_active: 8 });
  const w = await worker(q, { concurrency: 4, credit: 8, name: 'doubler' });
  const serving = (async () => {
    const out = [];
    for await (const run of w) { // ends them in another order
      out.push(run);
      if (out.length === 4) out.reverse().splice(0).forEach((r) => r.complete(Buffer.concat([r.payload, r.payload])));
    }
  })();
  const tasks = await client.map(q, Array.from({ length: 20 }, (_, i) => String(i)));
  const records = await Promise.all(tasks.map((t) => t.result()));
  assert.deepEqual(records.map((r) => String(Buffer.from(r.result))), Array.from({ length: 20 }, (_, i) => `${i}${i}`));
  const row = (await client.workerList()).find((r) => r.worker === w.number);
  assert.deepEqual([row.name, row.done, row.credit, row.parallel], ['doubler', 20, 8, 4]);
  await w.close();
  await serving;
});

test('a reserved worker comes where no other does', async () => {
  const q = await queue({ rescuer: 'yes' });
  const w = await worker(q, { rescue: true });
  const serving = w.serve(() => 'rescued');
  assert.equal(String(Buffer.from((await (await client.submit(q)).result()).result)), 'rescued');
  assert.equal((await client.queueShow(q)).rescued, 1);
  await w.close();
  await serving;
});

test('runs tell when their answers are kept', async () => {
  const q = await queue();
  const w = await worker(q, { confirm: true });
  const kept = [];
  const serving = w.serve((run) => {
    kept.push(run.confirmed);
    if (run.payload.length) throw new Error('no');
  });
  await (await client.submit(q)).wait();
  await (await client.submit(q, 'x')).wait();
  assert.deepEqual(await Promise.all(kept), [true, true]);
  await w.close();
  await serving;

  const lost = await worker(q, { confirm: true });
  const task = await client.submit(q);
  const { value: run } = await lost[Symbol.asyncIterator]().next();
  await client.workerKick(lost.number);
  assert.equal(await run.confirmed, false);
  await client.cancel([task.id]);
});

test('a run is kept no longer than it takes', async () => {
  // Each waited for the end of the connection: a worker grew by every payload that it had ever had.
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc');
  const q = await queue({ max_active: 4 });
  const w = await worker(q, { concurrency: 4, confirm: true });
  const runs = [];
  const kept = [];
  const serving = w.serve((run) => {
    runs.push(new WeakRef(run));
    kept.push(run.confirmed);
  });
  const tasks = await client.map(q, Array.from({ length: 100 }, (_, i) => String(i)));
  await tasks.at(-1).wait();
  await Promise.all(kept);
  collect();
  const left = runs.filter((run) => run.deref()).length;
  assert.ok(left <= 4, `${left} of ${runs.length} are still there`); // the loop has the last one in its hands
  await w.close();
  await serving;
});

test('what a handler throws fails the attempt, and what it ends itself stays', async () => {
  const q = await queue();
  const w = await worker(q);
  const attempts = [];
  const serving = w.serve(async (run) => {
    attempts.push(run.attempt);
    if (run.payload.length) return run.fail('never', { final: true });
    throw new Error('not\nnow');
  });
  const record = await (await client.submit(q, null, { retries: 1, backoff: 1 })).wait();
  assert.deepEqual([attempts, record.error], [[1, 2], 'not now']);
  assert.equal((await (await client.submit(q, 'x', { retries: 1, backoff: 1 })).wait()).error, 'never');
  assert.equal(attempts.length, 3);
  await w.close();
  await serving;
});

test('a run says when the next attempt comes, whatever the back-off', async () => {
  const q = await queue();
  const w = await worker(q);
  const serving = w.serve((run) => {
    if (run.attempt === 1) return run.fail('not yet', { retryAfter: 0 });
    if (run.attempt === 2) return run.giveBack({ retryAfter: '1ms' }); // and the worker goes on
    return String(run.attempt);
  });
  const record = await (await client.submit(q, null, { retries: 1, backoff: '1h' })).wait();
  assert.deepEqual([record.state, String(record.result)], ['DONE', '3']);
  await w.close();
  await serving;
});

test('a result that is too large is an error, and the run can still be ended', async () => {
  const q = await queue();
  const w = await worker(q);
  const serving = w.serve((run) => run.complete(new Uint8Array(LIMITS.RESULT_MAX + 1)));
  assert.match((await (await client.submit(q)).wait()).error, /eqd takes 65536/);
  await w.close();
  await serving;
});

test('a result that is neither bytes nor text is an error that says so', async () => {
  const q = await queue();
  const w = await worker(q);
  const results = [5, { attempt: 7 }, [1], true];
  const serving = w.serve((run) => results[Number(run.payload)]);
  const records = await Promise.all((await client.map(q, ['0', '1', '2', '3'])).map((task) => task.wait()));
  for (const record of records) assert.match(record.error, /a result of type (number|object|boolean); eqd takes bytes/);
  await w.close();
  await serving;
});

test('a canceled task aborts its signal', async () => {
  const q = await queue();
  const w = await worker(q);
  let first;
  const subscribed = new Promise((resolve) => {
    const progress = client.events({ queue: q, events: ['task.progress'], ready: resolve });
    first = progress.next().finally(() => progress.return());
  });
  await subscribed;
  const serving = w.serve(async (run) => {
    run.touch(50, 'half');
    await once(run.signal, 'abort');
    throw run.signal.reason;
  });
  const task = await client.submit(q);
  assert.equal((await first).value.event, 'task.progress');
  assert.equal((await task.show()).note, 'half');
  assert.equal(await task.cancel({ running: true }), true);
  assert.equal((await task.wait()).state, 'CANCELED');
  await w.close();
  await serving;
});

test('a closed worker gives back what it has not handed out', async () => {
  const q = await queue({ max_active: 3 });
  const w = await worker(q, { concurrency: 1, credit: 3 });
  const tasks = await client.map(q, ['0', '1', '2']);
  const runs = w[Symbol.asyncIterator]();
  const { value: run } = await runs.next();
  while ((await client.workerList()).find((r) => r.worker === w.number).in_flight < 3); // a round trip each
  const closing = w.close();
  run.complete('done');
  await closing;
  assert.equal((await runs.next()).done, true);
  assert.equal(String(Buffer.from((await tasks[0].result()).result)), 'done');
  for (const task of tasks.slice(1)) assert.equal((await task.show()).state, 'QUEUED');
  assert.throws(() => run.complete(), /ended already/);
  await client.queueRm(q, { yes: true });
});

test('a queue that is not for workers, or not there, is refused', async () => {
  await client.queueCreate('commands');
  await assert.rejects(worker('none'), errors.NoQueueError);
  await assert.rejects(worker('commands'), errors.EqdError);
});

test('texts of errors are cut to what eqd takes', () => {
  assert.equal(plainText('a\nb'), 'a b');
  assert.equal(Buffer.from(plainText('\u00e4'.repeat(200))).length, 256);
  assert.equal(Buffer.from(plainText(`x${'\u00e4'.repeat(200)}`)).length, 255);
});
