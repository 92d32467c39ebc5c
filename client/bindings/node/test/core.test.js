// SPDX-License-Identifier: MIT
// The package without an eqd: bytes, values, and clients against a server of the test's own.
import assert from 'node:assert/strict';
import { mkdtempSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after } from 'node:test';
import { decodeMultiStream, encode } from '@msgpack/msgpack';
import { Client, ConnectionLost, EqdError, LIMITS, ProtocolViolation, RequestTimeout, TaskFailed, connect, defaultPath, errors } from 'eqd';
import { Tries, policyOf } from '../lib/reconnect.js';
import { METHODS } from '../lib/api.js';
import { Channel, messages, pack } from '../lib/channel.js';
import { errorFromWire } from '../lib/errors.js';
import { durationUsec, timeUsec, wireParams, withIds } from '../lib/values.js';

const dir = mkdtempSync(join(tmpdir(), 'eqd-node-'));
after(() => rmSync(dir, { recursive: true }));

async function all(...chunks) {
  async function* source() { yield* chunks; }
  const got = [];
  for await (const message of messages(source())) got.push(message);
  return got;
}

test('messages come out of any cut of the bytes', async () => {
  const want = [[1, 7, null, 'x'], [2, 'event', [{ event: 'e' }]], [0, 9, 'run', [[1, 2]]]];
  const bytes = Buffer.concat(want.map((m) => encode(m)));
  for (let cut = 0; cut <= bytes.length; cut++) {
    assert.deepEqual(await all(bytes.subarray(0, cut), bytes.subarray(cut)), want);
  }
});

test('what is no message is a violation', async () => {
  const bad = [[0x01], [0xc1], encode([1, 2]), encode([3, 1, null, null]), encode([0, 1, 5, []]), encode([2, 'x', {}]), encode({}),
    encode([]), [0x94, 1, 0, 0xc0, 0xc6, 0x7f, 0xff, 0xff, 0xff]];
  for (const bytes of bad) await assert.rejects(all(Uint8Array.from(bytes)), ProtocolViolation, String(bytes));
});

test('a message without an end is refused', async () => {
  async function* endless() {
    yield Uint8Array.from([0x94, 1, 0, 0xc0, 0xdc, 0xff, 0xff]);
    for (;;) yield encode('x'.repeat(LIMITS.MESSAGE_MAX / 8));
  }
  await assert.rejects(async () => { for await (const m of messages(endless())) assert.fail(m); }, ProtocolViolation);
});

test('a message that eqd would refuse is not sent', () => {
  assert.throws(() => pack([0, 1, 'submit', [new Uint8Array(LIMITS.MESSAGE_MAX)]]), /eqd takes 4194304/);
});

test('each code has a class and an unknown one is an EqdError', () => {
  const e = errorFromWire([4, 'text', { a: 1 }]);
  assert.ok(e instanceof errors.NoQueueError && e instanceof EqdError);
  assert.deepEqual([e.name, e.code, e.codeName, e.message, e.details], ['NoQueueError', 4, 'no-queue', 'text', { a: 1 }]);
  assert.equal(e.retryAfter, undefined);
  assert.equal(errorFromWire([8, 'full', { retry_after_usec: 250000 }]).retryAfter, 250);
  assert.deepEqual([errorFromWire([999, 'new']).constructor, errorFromWire('odd').message], [EqdError, 'odd']);
});

test('how a task ended is said once', () => {
  for (const [record, said] of [
    [{ exit: 3, detail: 'exit status 3' }, 'exit status 3'],
    [{ signal: 9, detail: 'ended by signal 9 (Killed)' }, 'ended by signal 9 (Killed)'],
    [{ error: 'no luck', detail: 'no luck' }, 'no luck'],
    [{ exit: 7, error: 'no luck', detail: 'no luck' }, 'no luck, exit status 7'],
  ]) assert.equal(new TaskFailed({ id: 'q/4', state: 'FAILED', ...record }).message, `q/4: FAILED, ${said}`);
});

test('durations and times of day', () => {
  for (const [given, want] of [[1, 1000], [0.25, 250], ['30s', 30e6], ['1h 30m', 5400e6], ['250ms', 250000], ['7us', 7]]) {
    assert.equal(durationUsec(given), want);
  }
  for (const bad of ['', '5', '5 parsecs', 's', '1s x', -1, NaN]) assert.throws(() => durationUsec(bad), RangeError, String(bad));
  for (const bad of [null, true, []]) assert.throws(() => durationUsec(bad), TypeError);
  assert.equal(timeUsec(new Date(1500)), 1500000);
  assert.throws(() => timeUsec('noon'), TypeError);
});

test('parameters are sent in the form of the wire, and only those that were given', () => {
  const task = { pair: [3, 4] };
  assert.deepEqual(wireParams(METHODS.submit, ['q'], { timeout: '1s', env: { A: 1, B: true }, afterOk: ['q/1', task], hold: undefined }),
    ['q', null, { timeout_usec: 1e6, env: ['A=1', 'B=yes'], after_ok: ['q/1', [3, 4]] }]);
  assert.deepEqual(wireParams(METHODS.ping, []), []);
  assert.deepEqual(wireParams(METHODS.cancel, [[]], { signal: AbortSignal.abort(), killSignal: 2 }), [[], { signal: 2 }]);
  assert.throws(() => wireParams(METHODS.submit, ['q'], { tiemout: 1 }), /submit has no option tiemout; it has argv/);
  assert.throws(() => wireParams(METHODS.submit, ['q'], { argv: 'ls -l' }), /list of strings/);
  assert.throws(() => wireParams(METHODS.show, [[{}]]), /QUEUE\/SEQ/);
  assert.deepEqual(withIds([{ id: [1, 2], queue: 'q' }, { id: [1, 2] }]), [{ id: 'q/2', pair: [1, 2], queue: 'q' }, { id: [1, 2] }]);
});

test('where eqd is', () => {
  const system = '/run/eqd/eqd.sock';
  assert.equal(defaultPath(undefined, { XDG_RUNTIME_DIR: dir }, 1000), system);
  mkdirSync(`${dir}/eqd`);
  writeFileSync(`${dir}/eqd/eqd.sock`, '');
  assert.equal(defaultPath(undefined, { XDG_RUNTIME_DIR: dir }, 1000), `${dir}/eqd/eqd.sock`);
  assert.equal(defaultPath(undefined, { XDG_RUNTIME_DIR: dir }, 0), system);
  assert.equal(defaultPath(undefined, { EQD_SOCKET: '/e' }, 1000), '/e');
  assert.equal(defaultPath('/p', { EQD_SOCKET: '/e' }, 1000), '/p');
});

// A server that does what its script says: a function per connection, with the socket and the messages on it.
let servers = 0;
async function withFake(script, use) {
  const path = join(dir, `s${servers++}`);
  let failed = null;
  const server = net.createServer((socket) => {
    const step = script.shift();
    socket.on('error', () => {});
    Promise.resolve(step(socket, decodeMultiStream(socket)[Symbol.asyncIterator]())).catch((e) => { failed = e; socket.destroy(); });
  });
  await new Promise((resolve) => server.listen(path, resolve));
  try {
    await use(path);
  } finally {
    server.close();
    assert.equal(failed, null);
  }
}
const send = (socket, ...all_) => socket.write(Buffer.concat(all_.map((m) => encode(m))));
const next = async (incoming) => (await incoming.next()).value;
const hangUp = async (socket, incoming) => { await next(incoming); socket.destroy(); };
const answer = (result) => async (socket, incoming) => send(socket, [1, (await next(incoming))[1], null, result]);

test('a request that only reads is sent again on a new connection', async () => {
  await withFake([hangUp, answer([{ name: 'q' }])], async (path) => {
    const client = await connect({ path });
    assert.deepEqual(await client.queueList(), [{ name: 'q' }]);
    await client.close();
  });
});

test('a submit is not sent twice', async () => {
  await withFake([hangUp, answer([1, 2])], async (path) => {
    const client = await connect({ path });
    await assert.rejects(client.submit('q', null, { argv: ['true'] }), ConnectionLost);
    assert.equal((await client.submit('q', null, { argv: ['true'] })).id, 'q/2');
    await client.close();
  });
});

const QUICK = { firstMs: 1, maxMs: 2 };
const noting = (requests, step) => async (socket, incoming) => {
  requests.push(await next(incoming));
  await step(socket, requests.at(-1));
};

test('with a policy a submit is sent again with the key that it was given', async () => {
  const requests = [], changes = [];
  const steps = [noting(requests, async (socket) => { socket.destroy(); }), noting(requests, async (socket, r) => { send(socket, [1, r[1], null, [1, 2]]); })];
  await withFake(steps, async (path) => {
    const client = await connect({ path, reconnect: { ...QUICK, onChange: (what) => changes.push(what) } });
    assert.equal((await client.submit('q')).id, 'q/2');
    assert.deepEqual(requests[0][3], requests[1][3]);
    assert.match(requests[0][3][2].unique, /^node-[0-9a-f]{16}-[0-9]+$/);
    assert.deepEqual(changes, ['lost', 'back']);
    await client.close();
  });
});

test('with a policy what cannot be repeated is not', async () => {
  for (const options of [{ unique: 'k', onDup: 'replace' }, { unique: 'k', onDup: 'error' }]) {
    await withFake([hangUp, answer([1, 2])], async (path) => {
      const client = await connect({ path, reconnect: QUICK });
      await assert.rejects(client.submit('q', null, options), ConnectionLost);
      await client.ping();
      await client.close();
    });
  }
  await withFake([hangUp, answer(null)], async (path) => {
    const client = await connect({ path, reconnect: { ...QUICK, keys: false } });
    await assert.rejects(client.submit('q'), ConnectionLost);
    await client.ping();
    await client.close();
  });
});

test('with a policy what an eqd that stops refuses is for the next one, and what it still answers is taken', async () => {
  // It reads no more on that connection: a second request there was lost when it ended.
  let refused;
  const refuse = async (socket, incoming) => {
    const wait = await next(incoming);
    send(socket, [1, (await next(incoming))[1], [21, 'eqd is stopping'], null]);
    refused = () => send(socket, [1, wait[1], null, [{ state: 'DONE' }]]);
  };
  await withFake([refuse, answer(null)], async (path) => {
    const client = await connect({ path, reconnect: QUICK });
    const waiting = client.wait(['q/1']);
    await client.queuePause('q');
    refused();
    assert.deepEqual(await waiting, [{ state: 'DONE' }]);
    await client.close();
  });
});

test('with a policy events come although eqd ended before they were subscribed, and was away for a while', async (t) => {
  const away = async (socket, incoming) => {
    await next(incoming);
    renameSync(path, `${path}.away`);
    socket.destroy();
  };
  let path;
  const subscribed = async (socket, incoming) => send(socket, [1, (await next(incoming))[1], null, {}], [2, 'event', [{ event: 'x' }]]);
  await withFake([away, subscribed], async (path_) => {
    path = path_;
    const open = Channel.open;
    t.after(() => { Channel.open = open; });
    let opened = 0;
    Channel.open = (...args) => {
      if (++opened === 4) renameSync(`${path}.away`, path); // twice nobody was there
      return open(...args);
    };
    const changes = [];
    const client = new Client({ path, reconnect: { ...QUICK, onChange: (what) => changes.push(what) } });
    for await (const event of client.events()) {
      assert.equal(event.event, 'x');
      break;
    }
    assert.deepEqual([opened, changes], [4, ['lost', 'back']]);
    await client.close();
  });
});

test('pauses double up to the longest and end with the time', () => {
  let now = 100;
  const tries = new Tries(policyOf({ firstMs: 1, maxMs: 4, giveUpMs: 20 }), () => now);
  const pauses = [];
  for (let ms; (ms = tries.next()) !== null; now += ms) pauses.push(ms);
  assert.equal(pauses[0], 0);
  assert.ok(Math.abs(now - 120) < 1e-6);
  [1, 2, 4, 4].forEach((want, i) => assert.ok(pauses[i + 1] >= want / 2 && pauses[i + 1] <= want, `${pauses}`));
  for (const wrong of [{ firstMs: 0 }, { firstMs: 3, maxMs: 2 }, { giveUpMs: 0 }]) assert.throws(() => policyOf(wrong), RangeError);
});

test('an answer that does not come is a timeout, or ends with the signal', async () => {
  await withFake([async () => {}], async (path) => {
    const client = await connect({ path, timeoutMs: 20 });
    await assert.rejects(client.ping(), RequestTimeout);
    const stop = new AbortController();
    const waiting = client.wait([[1, 1]], { signal: stop.signal });
    stop.abort(new Error('enough'));
    await assert.rejects(waiting, /enough/);
    await assert.rejects(client.ping({ signal: stop.signal }), /enough/);
    await client.close();
  });
});

test('answers in another order reach their requests, and all that wait hear of the end', async () => {
  const step = async (socket, incoming) => {
    const requests = [await next(incoming), await next(incoming), await next(incoming)];
    send(socket, ...requests.reverse().map((r) => [1, r[1], null, [{ name: r[3][0].from }]]));
    await next(incoming);
    socket.destroy();
  };
  await withFake([step], async (path) => {
    const client = await connect({ path });
    assert.deepEqual(await Promise.all(['a', 'b', 'c'].map((from) => client.queueList({ from }))),
      [[{ name: 'a' }], [{ name: 'b' }], [{ name: 'c' }]]);
    await assert.rejects(client.submit('q'), ConnectionLost);
    await client.close();
  });
});

test('requests of the server go to handlers', async () => {
  const got = [];
  const step = async (socket, incoming) => {
    send(socket, [0, 1, 'good', ['x']], [0, 2, 'bad', []], [0, 3, 'none', []]);
    for (let i = 0; i < 3; i++) got.push(await next(incoming));
    socket.destroy();
  };
  await withFake([step], async (path) => {
    const channel = await Channel.open(path);
    channel.handlers.set('good', async ([word]) => [null, `${word}!`]);
    channel.handlers.set('bad', async () => { throw new Error('no'); });
    assert.ok(await channel.ended instanceof ConnectionLost);
    assert.deepEqual(got.sort((a, b) => a[1] - b[1]), [[1, 1, null, 'x!'], [1, 2, [19, 'Error: no'], null],
      [1, 3, [2, 'this client has no method none'], null]]);
  });
});

test('a closed client stays closed, and no eqd is an error of the system', async () => {
  const client = new Client({ path: '/nowhere/s' });
  await assert.rejects(client.ping(), { code: 'ENOENT' });
  await assert.rejects(client.ping(), { code: 'ENOENT' });
  await client.close();
  await assert.rejects(client.ping(), /closed/);
});
