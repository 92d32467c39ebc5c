// SPDX-License-Identifier: MIT
// Submits commands to a queue, waits for each, prints what they wrote. node submit.mjs QUEUE WORD...
import { connect } from 'eqd';

const [queue, ...words] = process.argv.slice(2);
const client = await connect();
await client.queueCreate(queue, { existOk: true });
const tasks = await Promise.all(words.map((word) => client.submit(queue, null, { argv: ['echo', word], timeout: '10s' })));
for (const task of tasks) {
  await task.result({ signal: AbortSignal.timeout(60000) });
  console.log(task.id, String(await task.output()).trimEnd());
}
await client.close();
