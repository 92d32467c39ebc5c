// SPDX-License-Identifier: MIT
// Serving queues: eqd sends tasks, the program ends each with complete() or fail().
import { LIMITS } from './api.js';
import { Channel, defaultPath } from './channel.js';
import { Tries, mayTryAgain, policyOf } from './reconnect.js';
import { durationUsec } from './values.js';

const TEXT_MAX = 256;
const SERVE_TIMEOUT_MS = 30000;

/** Text as eqd takes it with an error: no control characters, at most 256 bytes of UTF-8. */
export function plainText(text) {
  const bytes = Buffer.from(String(text).replace(/\p{Cc}/gu, ' '));
  return bytes.subarray(0, TEXT_MAX).toString().replace(/\uFFFD+$/u, '');
}

const when = (retryAfter) => retryAfter != null && { retry_after_usec: durationUsec(retryAfter) };

/** A task that this worker was handed, to be ended once. */
export class Run {
  #channel;
  #end;
  #abort = new AbortController();
  #confirm;

  constructor(channel, [pair, queue, attempt, payload, options = {}], end, confirm) {
    this.#channel = channel;
    this.#end = end;
    this.pair = pair;
    this.id = `${queue}/${pair[1]}`;
    this.queue = queue;
    this.attempt = attempt; // the fencing token: no two leases of a task have the same
    this.payload = payload;
    this.label = options.label;
    this.mime = options.mime;
    this.uid = options.uid;
    this.timeoutUsec = options.timeout_usec;
    this.ended = false;
    if (confirm) this.confirmed = new Promise((resolve) => { this.#confirm = resolve; });
  }

  /** Aborted when the task is canceled, out of time, or no longer this worker's; `signal.reason` says which. */
  get signal() { return this.#abort.signal; }

  confirm(kept) { this.#confirm?.(kept); }

  cancel(reason) { this.#abort.abort(new DOMException(reason, 'AbortError')); }

  lose(lost) { this.#abort.abort(lost); }

  #answer(error, result) {
    if (this.ended) throw new Error(`${this.id} has been ended already`);
    this.ended = true;
    this.#end([error, result]);
  }

  /** It went well. result: bytes or text for whoever waits. */
  complete(result = null) {
    const bytes = typeof result === 'string' ? Buffer.from(result) : result;
    if (bytes != null && !(bytes instanceof Uint8Array)) {
      throw new TypeError(`a result of type ${typeof result}; eqd takes bytes, text or null`);
    }
    if (bytes && bytes.length > LIMITS.RESULT_MAX) {
      throw new RangeError(`a result of ${bytes.length} bytes; eqd takes ${LIMITS.RESULT_MAX}`);
    }
    this.#answer(null, bytes ?? null);
  }

  /** The attempt failed. final: no retry would help. retryAfter: when the next attempt comes, in place of the back-off. */
  fail(error, { final = false, retryAfter } = {}) {
    this.#answer({ text: plainText(error?.message ?? error), ...(final && { final }), ...when(retryAfter) }, null);
  }

  /** It was not begun: to its place again, nobody is to blame. The worker gets no more tasks; but with retryAfter, which says
   * when the task comes back, it goes on. */
  giveBack({ retryAfter } = {}) { this.#answer({ give_back: true, ...when(retryAfter) }, null); }

  /** A sign of life: percent done, and what it is at. */
  touch(progress, note) {
    if (!this.#channel.lost) this.#channel.notify('worker_touch', [this.pair, this.attempt, { progress, note }]);
  }
}

/** Serves queues: `for await (const run of worker)`, or worker.serve(handler). concurrency: runs handed out and not ended at
 * once; credit: tasks that eqd may send ahead, default concurrency. When eqd is gone what was not ended is somebody else's: its
 * signal is aborted, ending it says nothing to anybody and is counted in `late`. The iterator throws ConnectionLost then, or with
 * `reconnect` serves again and goes on. With `confirm` each run has a promise `confirmed`: true once what its answer ended is kept, of
 * a durable queue also over a crash of eqd; false if the connection ended before, or the answer was refused. */
export class Worker {
  #ready = []; // came, not handed out yet
  #out = new Set(); // handed out and not ended
  #runs = new Map(); // both, by task and attempt
  #unconfirmed = new Map(); // by task and attempt: [run, msgid]
  #wake = () => {};
  #stopping = false;
  #stop = new AbortController();

  constructor(queues, { concurrency = 1, credit = concurrency, name, path, reconnect, rescue, confirm } = {}) {
    Object.assign(this, { queues, concurrency, credit, name, rescue, confirm, path: defaultPath(path), number: undefined, late: 0 });
    this.policy = policyOf(reconnect);
  }

  /** Serves again, unless close() comes first. */
  async #startAgain() {
    const tries = new Tries(this.policy);
    let lost = this.channel.lost;
    this.#ready = [];
    this.policy.onChange('lost');
    while (!this.#stopping) {
      try {
        await tries.pause(lost, this.#stop.signal);
        await this.start();
        this.policy.onChange('back');
        return;
      } catch (e) {
        if (this.#stopping) return;
        if (e === lost || !mayTryAgain(e, true, false)) throw e;
        lost = e;
      }
    }
  }

  /** Connects and begins to serve. Rejects with errors of eqd, such as errors.DeniedError. */
  async start() {
    this.channel = await Channel.open(this.path);
    this.channel.keepAlive = true;
    this.channel.handlers.set('run', (params, msgid) => this.#take(params, msgid));
    this.channel.onNotification = (method, params) => this.#notice(method, params);
    this.channel.ended.then((lost) => this.#lose(lost));
    try {
      const options = { credit: this.credit, parallel: this.concurrency, name: this.name, rescue: this.rescue, confirm: this.confirm };
      const reply = await this.channel.exchange('worker_serve', [this.queues, options], { timeout: SERVE_TIMEOUT_MS });
      this.number = reply.worker;
    } catch (e) {
      await this.channel.close();
      throw e;
    }
    return this;
  }

  /** Once for a connection and not by each run: what waits for its end lives until then. */
  #lose(lost) {
    for (const run of this.#runs.values()) run.lose(lost);
    for (const key of this.#unconfirmed.keys()) this.#confirm(key, false);
    this.#wake();
  }

  #notice(method, [first, attempt, reason] = []) {
    if (method === 'run_cancel') {
      this.#runs.get(`${first}:${attempt}`)?.cancel(reason);
    } else if (method === 'run_confirmed') {
      for (const [pair, n] of first) this.#confirm(`${pair}:${n}`, true);
    } else if (method === 'run_refused') {
      for (const [key, [, msgid]] of this.#unconfirmed) if (msgid === first) this.#confirm(key, false);
    }
  }

  #confirm(key, kept) {
    this.#unconfirmed.get(key)?.[0].confirm(kept);
    this.#unconfirmed.delete(key);
  }

  #take(params, msgid) {
    return new Promise((resolve) => {
      const key = `${params[0]}:${params[2]}`;
      const { channel } = this;
      const run = new Run(channel, params, (answer) => {
        if (channel.lost) this.late++;
        this.#runs.delete(key);
        this.#out.delete(run);
        resolve(answer);
        this.#wake();
      }, this.confirm);
      if (this.confirm) this.#unconfirmed.set(key, [run, msgid]);
      this.#runs.set(key, run);
      if (this.#stopping) run.giveBack();
      else this.#ready.push(run);
      this.#wake();
    });
  }

  /** Runs as they come, each to be ended by the caller; at most `concurrency` at once. Returns after close(). */
  async *[Symbol.asyncIterator]() {
    while (!this.#stopping) {
      if (this.#ready.length && this.#out.size < this.concurrency) {
        const run = this.#ready.shift();
        if (run.signal.aborted && !run.ended) run.fail(run.signal.reason);
        if (run.ended) continue;
        this.#out.add(run);
        yield run;
      } else if (this.channel.lost) {
        if (!this.policy) throw this.channel.lost;
        await this.#startAgain();
      } else {
        await new Promise((resolve) => { this.#wake = resolve; });
      }
    }
  }

  /** Runs handler(run) for each, until close(); what it returns is the result, what it throws fails the attempt. */
  async serve(handler) {
    for await (const run of this) {
      Promise.resolve(run).then(handler).then(
        (result) => run.ended || run.complete(result ?? null),
      ).catch((error) => run.ended || run.fail(error));
    }
  }

  /** Takes no more tasks, gives back what was not handed out, and waits until all others are ended. */
  async close() {
    this.#stopping = true;
    this.#stop.abort();
    for (const run of this.#ready.splice(0)) if (!run.ended) run.giveBack();
    this.#wake();
    try {
      if (!this.channel.lost) await this.channel.exchange('worker_leave', []);
    } finally {
      await this.channel.close();
    }
  }
}

/** A worker that serves these queues. */
export function worker(queues, options) {
  return new Worker(Array.isArray(queues) ? queues : [queues], options).start();
}
