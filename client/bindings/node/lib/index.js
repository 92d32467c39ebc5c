// SPDX-License-Identifier: MIT
// eqd: feed and serve the execution queues of this machine. See README.md.
import { errorClasses } from './errors.js';

export { Client, Task, connect } from './client.js';
export { Run, Worker, worker } from './worker.js';
export { defaultPath } from './channel.js';
export { EVENTS, FINISHED, LIMITS, PROTOCOL, REASONS, STATES } from './api.js';
export {
  ConnectionLost, EqdError, EqdException, OutputLost, ProtocolViolation, RequestTimeout, TaskCanceled, TaskError, TaskExpired,
  TaskFailed, TaskTimeout,
} from './errors.js';
/** Classes of EqdError by name: errors.NoQueueError, errors.FullError... */
export const errors = errorClasses;
