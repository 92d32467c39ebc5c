// SPDX-License-Identifier: MIT
// A client of eqd in ten lines of @msgpack/msgpack. node tenlines.mjs SOCKET
import net from 'node:net';
import { decodeMultiStream, encode } from '@msgpack/msgpack';

const socket = net.connect(process.argv[2]), waiting = new Map();
let msgid = 0;
const call = (method, ...params) => new Promise((resolve, reject) => {
  waiting.set(++msgid, (error, result) => (error ? reject(new Error(error[1])) : resolve(result)));
  socket.write(encode([0, msgid, method, params]));
});
(async () => { for await (const [, id, error, result] of decodeMultiStream(socket)) waiting.get(id)?.(error, result); })();

await call('queue_create', 'q');
const task = await call('submit', 'q', null, { argv: ['echo', 'hello'] });
console.log((await call('wait', [task]))[0].state);
console.log(String(Buffer.from((await call('logs', task)).chunks[0][1])).trim());
socket.end();
