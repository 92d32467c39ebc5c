// SPDX-License-Identifier: MIT
// A client of eqd in ten lines of @msgpack/msgpack, and what it does with them. node tenlines.mjs SOCKET
import net from 'node:net';
import { decodeMultiStream, encode } from '@msgpack/msgpack';

const socket = net.connect(process.argv[2]), waiting = new Map();
let msgid = 0;
const call = (method, ...params) => new Promise((resolve, reject) => {
  waiting.set(++msgid, (error, result) => (error ? reject(new Error(error[1])) : resolve(result)));
  socket.write(encode([0, msgid, method, params]));
});
const serve = (id, method, params) => socket.write(encode([1, id, null, run(method, params)])); // a request of eqd
(async () => { for await (const [kind, id, a, b] of decodeMultiStream(socket)) kind ? waiting.get(id)?.(a, b) : serve(id, a, b); })();

await call('queue_create', 'q');
const task = await call('submit', 'q', null, { argv: ['echo', 'hello'] });
console.log((await call('wait', [task]))[0].state);
console.log(String(Buffer.from((await call('logs', task)).chunks[0][1])).trim());

const run = (method, [, queue, , payload]) => {
  console.log(method, queue);
  return String(Buffer.from(payload)).toUpperCase();
};
await call('queue_create', 'work', { set: ['executor=worker'] });
await call('worker_serve', ['work']);
const work = await call('submit', 'work', 'payload');
const [done] = await call('wait', [work]);
console.log(done.state, String(Buffer.from(done.result)));
socket.end();
