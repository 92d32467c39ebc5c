// SPDX-License-Identifier: MIT
// Coming back by itself: what a client with the option `reconnect` does when its connection ends. The rules are those of libeq(3).
import { randomBytes } from 'node:crypto';
import { READING } from './api.js';
import { ConnectionLost, EqdException, errorClasses } from './errors.js';

const seed = randomBytes(8).toString('hex');
let keys = 0;

/** The policy with its defaults, null for none. Milliseconds; giveUpMs Infinity: never. */
export function policyOf(reconnect) {
  if (!reconnect) return null;
  const policy = { firstMs: 20, maxMs: 2000, giveUpMs: 60000, keys: true, onChange: () => {}, ...(reconnect === true ? {} : reconnect) };
  const { firstMs, maxMs, giveUpMs } = policy;
  if (!(firstMs > 0 && maxMs >= firstMs && giveUpMs > 0)) {
    throw new RangeError('reconnect: firstMs, maxMs and giveUpMs are milliseconds above 0, and maxMs is not below firstMs');
  }
  return policy;
}

/** The pauses between tries: the first is made at once, then they double, less a random half. */
export class Tries {
  #pause = 0;
  #n = 0;

  constructor(policy, now = () => performance.now()) {
    this.policy = policy;
    this.now = now;
    this.since = now();
  }

  /** Milliseconds before the next try; null: the time is over. */
  next() {
    if (this.#n++ === 0) return 0;
    const { firstMs, maxMs, giveUpMs } = this.policy;
    const left = this.since + giveUpMs - this.now();
    if (left <= 0) return null;
    this.#pause = Math.min(2 * this.#pause || firstMs, maxMs);
    return Math.min(this.#pause * (0.5 + Math.random() / 2), left);
  }

  /** Waits for the next try; throws `error` when the time is over. `signal` ends the pause. */
  async pause(error, signal) {
    const ms = this.next();
    if (ms === null) throw error;
    await new Promise((resolve, reject) => {
      const abort = () => {
        clearTimeout(timer);
        reject(signal.reason);
      };
      const timer = setTimeout(() => {
        signal?.removeEventListener('abort', abort);
        resolve();
      }, ms);
      signal?.addEventListener('abort', abort, { once: true });
    });
  }
}

function withKey(options, common, policy) {
  const keyed = policy.keys && options.unique === undefined && common.unique === undefined
    ? { ...options, unique: `node-${seed}-${++keys}` } : options;
  const given = { ...common, ...keyed };
  return [keyed, given.unique !== undefined && (given.on_dup ?? 'skip') === 'skip'];
}

const isMap = (value) => value !== null && typeof value === 'object' && !Array.isArray(value) && !ArrayBuffer.isView(value);

/** [the parameters to send, may that be done twice?] */
export function prepare(policy, method, params) {
  const options = isMap(params.at(-1)) ? params.at(-1) : {};
  const required = isMap(params.at(-1)) ? params.slice(0, -1) : params;
  if (method === 'submit' && !options.stdin_fd && !options.payload_fd) {
    const [keyed, repeatable] = withKey(options, {}, policy);
    return [[required[0], required[1] ?? null, keyed], repeatable];
  }
  if (method === 'submit_many' && Array.isArray(required[1])) {
    const pairs = required[1].map((task) => withKey(isMap(task) ? task : { payload: task }, options.common ?? {}, policy));
    return [[required[0], pairs.map(([task]) => task), options], pairs.every(([, repeatable]) => repeatable)];
  }
  return [params, READING.includes(method)];
}

/** Was this error only the end of a connection, which may be made again for the request? */
export function mayTryAgain(error, repeatable, sent) {
  if (error instanceof errorClasses.StoppingError) return true;
  if (error instanceof EqdException) return error instanceof ConnectionLost && (repeatable || !sent);
  return Boolean(error?.syscall) && !sent; // of the system, from connecting
}
