// SPDX-License-Identifier: MIT
// The client. Any number of requests are outstanding at once over one connection; iterators have connections of their own.
//
// When the connection has ended, requests that only read are sent once more on a new one; any other rejects with
// ConnectionLost, for it may have been carried out. The next request connects again by itself. Iterators throw ConnectionLost.
// With the option `reconnect` (reconnect.js) requests and events go on.
import { FINISHED, LIMITS, METHODS, READING, WAITING } from './api.js';
import { Channel, defaultPath } from './channel.js';
import { ConnectionLost, OutputLost, taskError } from './errors.js';
import { Tries, mayTryAgain, policyOf, prepare } from './reconnect.js';
import { wireId, wireParams, withIds } from './values.js';

const DEFAULT_TIMEOUT_MS = 30000;
const STDOUT = 1, BOTH = 3;

/** A submitted task. It is only a name: dropping it does nothing to the task. */
export class Task {
  #client;

  constructor(client, pair, queue) {
    this.#client = client;
    this.pair = pair;
    this.queue = queue;
    this.id = `${queue}/${pair[1]}`;
  }

  toString() { return this.id; }
  async wait(options) { return (await this.#client.wait([this], options))[0]; }
  async show() { return (await this.#client.show([this]))[0]; }
  async payload() { return (await this.#client.show([this], { payload: true }))[0].payload; }
  async why() { return (await this.#client.why([this]))[0]; }
  async done() { return FINISHED.includes((await this.show()).state); }
  follow(options) { return this.#client.follow(this, options); }

  async result(options) {
    const record = await this.wait(options);
    if (record.state !== 'DONE') throw taskError(record);
    return record;
  }

  async cancel(options = {}) {
    const [result] = await this.#client.cancel([this], options);
    return result === 0 || (Boolean(options.running) && result === 1);
  }

  async output(streams = STDOUT, { attempt } = {}) {
    const { chunks } = await this.#client.logs(this, { streams, attempt });
    return Buffer.concat(chunks.map(([, data]) => data));
  }
}

/** Notifications one by one, until the channel ends. Each is read when those before it are taken. */
function notesOf(channel) {
  const notes = [];
  let wake = () => {};
  channel.onNotification = (method, params) => {
    notes.push([method, params]);
    channel.pause();
    wake();
  };
  channel.ended.then(() => wake());
  channel.keepAlive = true;
  return async () => {
    while (!notes.length) {
      if (channel.lost) throw channel.lost;
      channel.resume();
      await new Promise((resolve) => { wake = resolve; });
    }
    return notes.shift();
  };
}

export class Client {
  #channel = null;
  #closed = false;
  #left = new Set(); // connections to an eqd that stops, for the answers that are on their way
  #away = false; // as last told

  constructor({ path, timeoutMs = DEFAULT_TIMEOUT_MS, reconnect } = {}) {
    this.path = defaultPath(path);
    this.policy = policyOf(reconnect);
    this.timeoutMs = timeoutMs;
  }

  /** Connects now, if it is not connected. Rejects with the system's error if eqd is not there. */
  async connect() {
    await this.#connected();
    return this;
  }

  async close() {
    this.#closed = true;
    const channel = await this.#channel?.catch(() => null);
    await Promise.all([channel, ...this.#left].map((c) => c?.close()));
  }

  /** What comes next is for the next eqd: on this connection it may be read by nobody. */
  async #leave(channel) {
    const at = this.#channel;
    if ((await at?.catch(() => null)) !== channel || this.#channel !== at) return;
    this.#channel = null;
    this.#left.add(channel);
    channel.ended.then(() => this.#left.delete(channel));
  }

  async #connected() {
    if (this.#closed) throw new ConnectionLost('the client was closed');
    const before = this.#channel;
    const lost = before && (await before.then((c) => c.lost, (e) => e));
    if ((!before || lost) && this.#channel === before) this.#channel = Channel.open(this.path);
    return this.#channel;
  }

  /** Any method by its name, with values as the wire has them: for what is newer than this package. */
  async call(name, params = [], { signal } = {}) {
    const map = params.at(-1);
    const waits = WAITING.includes(name) || map?.block_usec !== undefined;
    const options = { signal, timeout: waits ? undefined : this.timeoutMs };
    if (this.policy) return withIds(await this.#patiently(name, params, options));
    try {
      return withIds(await (await this.#connected()).exchange(name, params, options));
    } catch (e) {
      if (!(e instanceof ConnectionLost) || !READING.includes(name) || this.#closed) throw e;
    }
    return withIds(await (await this.#connected()).exchange(name, params, options));
  }

  #tell(away) {
    if (away === this.#away) return;
    this.#away = away;
    this.policy.onChange(away ? 'lost' : 'back');
  }

  async #patiently(name, params, options) {
    const [sending, repeatable] = prepare(this.policy, name, params);
    let tries = null;
    for (;;) {
      let sent = false, channel;
      try {
        channel = await this.#connected();
        sent = !channel.lost;
        const answer = await channel.exchange(name, sending, options);
        this.#tell(false);
        return answer;
      } catch (e) {
        if (this.#closed || !mayTryAgain(e, repeatable, sent)) throw e;
        if (channel && !channel.lost) await this.#leave(channel);
        this.#tell(true);
        tries ??= new Tries(this.policy);
        await tries.pause(e, options.signal);
      }
    }
  }

  /** Submits any number of payloads, or objects with wire options and `payload`; a Task for each. */
  async map(queue, payloads, options = {}) {
    const tasks = [];
    for (let at = 0; at < payloads.length; at += LIMITS.BATCH_MAX) {
      const part = payloads.slice(at, at + LIMITS.BATCH_MAX);
      const { first, ids } = await this.submitMany(queue, part, options);
      part.forEach((_, i) => tasks.push(new Task(this, ids?.[i] ?? [first[0], first[1] + i], queue)));
    }
    return tasks;
  }

  /** `list` without an end: page after page. */
  async *allTasks(which = {}) {
    let rows = await this.list(which);
    while (rows.length) {
      yield* rows;
      rows = await this.list({ ...which, from: rows.at(-1).pair });
    }
  }

  /** A connection of its own for what goes on after the answer. `signal` ends it. */
  async *#beside(name, params, signal, use) {
    signal?.throwIfAborted();
    const channel = await Channel.open(this.path);
    const abort = () => channel.close();
    signal?.addEventListener('abort', abort);
    try {
      const next = notesOf(channel);
      const reply = await channel.exchange(name, params, { signal, timeout: this.timeoutMs });
      yield* use(next, reply);
    } catch (e) {
      throw signal?.aborted ? signal.reason : e;
    } finally {
      signal?.removeEventListener('abort', abort);
      await channel.close();
    }
  }

  /** Events as they come. Nothing is read ahead of who iterates: {event: 'lost', n} tells that eqd dropped n of one who takes them
   * too slowly. With `reconnect` {event: 'reconnected'} comes where the connection was made again: events in between are missed. */
  async *events({ queue, events, ready, signal } = {}) {
    let tries = null;
    let connected = false;
    let subscribed = false;
    const begin = () => {
      if (!subscribed) ready?.();
      const again = subscribed;
      subscribed = true;
      tries = null;
      this.#tell(false);
      return again;
    };
    for (;;) {
      try {
        yield* this.#beside('subscribe', [{ queue, events }], signal, async function* (next) {
          if (begin()) yield { event: 'reconnected' };
          for (;;) {
            const [method, params] = await next();
            if (method === 'event') yield withIds(params[0]);
            else if (method === 'lost') yield { event: 'lost', n: params[0] };
          }
        });
        return;
      } catch (e) {
        connected ||= subscribed || e instanceof ConnectionLost;
        if (!this.policy || !connected || this.#closed || signal?.aborted || !mayTryAgain(e, true, false)) throw e;
        this.#tell(true);
        tries ??= new Tries(this.policy);
        await tries.pause(e, signal);
      }
    }
  }

  /** {stream, data} of the output of a task: what is kept, then what comes, until it has ended. Throws OutputLost where who iterates
   * takes it so slowly that eqd dropped some. */
  follow(task, { streams = BOTH, signal } = {}) {
    return this.#beside('logs', [wireId(task), { streams, follow: true }], signal, async function* (next, reply) {
      for (const [stream, data] of reply.chunks ?? []) yield { stream, data };
      while (reply.more) {
        const [method, params] = await next();
        if (method === 'lost') throw new OutputLost(params[0]);
        if (params[0]?.[0] !== reply.id[0] || params[0]?.[1] !== reply.id[1]) continue;
        if (method === 'output_end') return;
        if (method === 'output') yield { stream: params[1], data: params[2] };
      }
    });
  }
}

// The methods of eqd, one for one: required parameters by position, then options.
for (const [name, method] of Object.entries(METHODS)) {
  Client.prototype[name] = async function (...args) {
    const n = method.required.length;
    const options = args[n] ?? {};
    const reply = await this.call(method.name, wireParams(method, args, options), options);
    return method.reply === 'id' ? new Task(this, reply, args[0]) : reply ?? undefined;
  };
}
if (Symbol.asyncDispose) Client.prototype[Symbol.asyncDispose] = Client.prototype.close;

/** A connected Client. */
export function connect(options) {
  return new Client(options).connect();
}
