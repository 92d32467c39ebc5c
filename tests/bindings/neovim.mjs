// SPDX-License-Identifier: MIT
// The RPC layer of npm's neovim, unmodified: handshake, requests, notifications, errors, answers. node neovim.mjs SOCKET
import { attach } from 'neovim';

const log = process.stdout;
const quiet = Object.fromEntries(['debug', 'info', 'warn', 'error', 'level'].map((name) => [name, () => quiet]));
const client = attach({ socket: process.argv[2], options: { logger: quiet } });
const channel = await client.channelId; // after api_info
log.write(channel > 0 ? 'eqd channel\n' : `channel ${channel}\n`);
await client.request('queue_create', ['q']);
await client.request('subscribe', [{ queue: 'q', events: ['task.finished'] }]);
const event = new Promise((resolve) => client.on('notification', (method, params) => resolve(`${method} ${params[0].event}`)));
const task = await client.request('submit', ['q', '', { argv: ['echo', 'hello'] }]);
const [{ state }] = await client.request('wait', [[task]]);
const { chunks } = await client.request('logs', [task]);
log.write(`${state} ${String(Buffer.from(chunks[0][1])).trim()}\n`);
log.write(`${await event}\n`);
const error = await client.request('queue_show', ['none']).catch((e) => e);
log.write(`${error}\n`);

// As a worker: it answers a request of eqd.
client.on('request', (method, [, queue, , payload], response) => {
  log.write(`${method} ${queue}\n`);
  response.send(String(Buffer.from(payload)).toUpperCase());
});
await client.request('queue_create', ['work', { set: ['executor=worker'] }]);
await client.request('worker_serve', [['work']]);
const work = await client.request('submit', ['work', 'payload']);
const [done] = await client.request('wait', [[work]]);
log.write(`${done.state} ${String(Buffer.from(done.result))}\n`);
await client.close();
process.exit();
