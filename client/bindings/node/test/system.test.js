// SPDX-License-Identifier: MIT
// The package with a real eqd, at EQD_SOCKET.
import assert from 'node:assert/strict';
import test, { after } from 'node:test';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { OutputLost, PROTOCOL, TaskCanceled, TaskFailed, TaskTimeout, connect, errors } from 'eqd';

const client = await connect();
after(() => client.close());

let queues = 0;
async function queue(set = {}) {
  const name = `n${queues++}`;
  await client.queueCreate(name, { set });
  return name;
}

test('a command is submitted, waited for and read', async () => {
  const q = await queue({ max_active: 2 });
  const task = await client.submit(q, 'in\n', { argv: ['sh', '-c', 'cat; echo err >&2'], timeout: '30s', label: 'x' });
  assert.equal(task.id, `${q}/1`);
  const record = await task.result({ timeout: 30000 });
  assert.deepEqual([record.state, record.id, record.pair, record.label, record.timeout_usec], ['DONE', task.id, task.pair, 'x', 30e6]);
  assert.deepEqual([String(await task.output()), String(await task.output(2)), await task.done()], ['in\n', 'err\n', true]);
  assert.deepEqual([String(await task.payload()), 'payload' in await task.show()], ['in\n', false]);
  assert.ok((await client.queueShow(q)).set.includes('max_active=2'));
  assert.equal(await client.ping(), undefined);
  assert.equal((await client.apiInfo())[1].version.api_level, PROTOCOL);
  assert.equal((await client.show([task.id]))[0].state, 'DONE'); // by its name as well
});

test('each attempt has its output', async () => {
  const q = await queue({ backoff: '1ms' });
  const task = await client.submit(q, null, { argv: ['sh', '-c', 'echo $EQD_ATTEMPT; [ $EQD_ATTEMPT = 2 ]'], retries: 1 });
  await task.result({ timeout: 30000 });
  const of = async (attempt) => String(await task.output(1, { attempt }));
  assert.deepEqual([await of(1), await of(2), await of()], ['1\n', '2\n', '2\n']);
  await assert.rejects(of(3), /has had 2 attempts; there is no attempt 3/);
});

test('no more of an array than its limit have their turn', async () => {
  const q = await queue({ max_active: 4 });
  const running = await client.submit(q, null, { argv: ['sleep', '1000'], array: 78, arrayLimit: 1 });
  const waits = await client.submit(q, null, { argv: ['true'], array: 78, arrayLimit: 1 });
  assert.deepEqual([(await waits.why()).reason, (await waits.show()).array_limit], ['array', 1]);
  await running.cancel({ running: true });
  await waits.result({ timeout: 30000 });
});

test('ends other than DONE reject', async () => {
  const q = await queue();
  const failed = await client.submit(q, null, { argv: ['sh', '-c', 'exit 3'] });
  await assert.rejects(failed.result(), (e) => e instanceof TaskFailed && e.record.exit === 3 && e.message.startsWith(`${q}/1: FAILED`));
  await assert.rejects((await client.submit(q, null, { argv: ['sleep', '60'], timeout: 50, grace: 100 })).result(), TaskTimeout);
  const late = await client.submit(q, null, { argv: ['sleep', '60'], timeout: 50, grace: 100, retries: 1, backoff: 1 });
  await assert.rejects(late.result(), (e) => e instanceof TaskTimeout && e.record.state === 'DEAD' && e.record.attempt === 2);
  await assert.rejects((await client.submit(q, null, { argv: ['false'], retries: 1, backoff: 1 })).result(), TaskFailed);
  const held = await client.submit(q, null, { argv: ['true'], hold: true });
  assert.equal((await held.why()).reason, 'held');
  await assert.rejects(held.wait({ timeout: 10 }), errors.TimedOutError);
  assert.deepEqual([await held.cancel(), await held.cancel()], [true, false]);
  await assert.rejects(held.result(), TaskCanceled);
});

test('errors of eqd have classes', async () => {
  await assert.rejects(client.submit('none', null, { argv: ['true'] }), (e) => e instanceof errors.NoQueueError && e.code === 4);
  await assert.rejects(client.call('no_such_method'), errors.MethodError);
});

test('many tasks take few messages', async () => {
  const q = await queue();
  await client.queuePause(q);
  const tasks = await client.map(q, Array.from({ length: 2500 }, (_, i) => ({ argv: ['true'], payload: String(i) })), { common: { label: 'many' } });
  const rows = [];
  for await (const row of client.allTasks({ queue: q, limit: 700 })) rows.push(row);
  assert.deepEqual(rows.map((r) => r.id), tasks.map((t) => t.id));
  assert.ok(rows.every((r) => r.label === 'many'));
  await client.queueRm(q, { yes: true });
});

test('queues are paused, drained, stopped and joined', async () => {
  const q = await queue();
  await client.queuePause(q);
  const task = await client.submit(q, null, { argv: ['true'] });
  assert.deepEqual([(await client.queueShow(q)).state, (await task.why()).reason], ['paused', 'paused']);
  await assert.rejects(client.queueFlush(q, { timeout: 10 }), errors.TimedOutError);
  await client.queueResume(q);
  await client.queueFlush(q);
  await client.queueDrain(q, { timeout: '30s' });
  await client.queueSet(q, { max_active: 3 });
  await client.queueStop(q);
  await client.queueJoin(q);
  await assert.rejects(client.submit(q, null, { argv: ['true'] }), errors.StoppedError);
});

test('output is followed to its end, and a signal ends following', async () => {
  const q = await queue();
  const task = await client.submit(q, null, { argv: ['sh', '-c', 'echo one; exec sleep 60'] });
  const got = [];
  for await (const { stream, data } of task.follow()) {
    got.push([stream, String(data)]);
    await task.cancel({ running: true });
  }
  assert.deepEqual(got, [[1, 'one\n']]);
  const held = await client.submit(q, null, { argv: ['true'], hold: true });
  const stop = new AbortController();
  const following = held.follow({ signal: stop.signal }).next();
  stop.abort(new Error('enough'));
  await assert.rejects(following, /enough/);
});

test('events come in order once subscribed', async () => {
  const q = await queue();
  const seen = [];
  for await (const event of client.events({ queue: q, events: ['task.'], ready: () => client.submit(q, null, { argv: ['true'] }) })) {
    seen.push([event.event, event.id]);
    if (event.event === 'task.finished') break;
  }
  assert.deepEqual(seen, ['accepted', 'started', 'finished'].map((kind) => [`task.${kind}`, `${q}/1`]));
});

test('who takes events too slowly is told how many eqd dropped', async () => {
  const q = await queue({ durable: 'no', executor: 'worker' });
  const total = 20000; // three times what sockets, eqd and a few reads hold
  let came = 0, lost = 0;
  const more = () => client.submitMany(q, Array(1000).fill(''));
  for await (const event of client.events({ queue: q, events: ['task.accepted'], ready: more })) {
    if (came + lost === 0) for (let n = 1000; n < total; n += 1000) await more();
    if (event.event === 'lost') lost += event.n;
    else came++;
    if (came + lost === total) break;
  }
  assert.ok(lost >= total / 2, `${came} events were kept for who did not take them, ${lost} lost`);
});

test('output that is followed too slowly is not lost in silence, and its end is not waited for', async (t) => {
  const q = await queue();
  const dir = mkdtempSync(join(tmpdir(), 'eqd-node-'));
  t.after(() => rmSync(dir, { recursive: true }));
  const follow = async (name) => {
    const fifo = join(dir, name);
    execFileSync('mkfifo', ['-m', '666', fifo]);
    const task = await client.submit(q, null, { argv: ['sh', '-c', `echo one; read line <${fifo}; head -c 8000000 /dev/zero`] });
    const following = task.follow();
    assert.equal(String((await following.next()).value.data), 'one\n');
    writeFileSync(fifo, 'go\n');
    await task.wait();
    return following;
  };
  const slow = await follow('a');
  await assert.rejects(async () => { for await (const _ of slow); }, (e) => e instanceof OutputLost && e.n > 0);
  await (await follow('b')).return(); // with much unread
});

test('a wait is given up by its signal and holds up nobody', async () => {
  const q = await queue({ max_active: 2 });
  const held = await client.submit(q, null, { argv: ['true'], hold: true });
  const stop = new AbortController();
  const waiting = held.result({ signal: stop.signal });
  await Promise.all(Array.from({ length: 20 }, async () => (await client.submit(q, null, { argv: ['true'] })).result()));
  stop.abort();
  await assert.rejects(waiting, { name: 'AbortError' });
});
