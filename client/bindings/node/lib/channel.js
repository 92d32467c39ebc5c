// SPDX-License-Identifier: MIT
// One connection, and MessagePack-RPC on it.
import { existsSync } from 'node:fs';
import net from 'node:net';
import { decodeMultiStream, encode } from '@msgpack/msgpack';
import { ERRORS, LIMITS } from './api.js';
import { ConnectionLost, EqdException, ProtocolViolation, RequestTimeout, errorFromWire } from './errors.js';

const REQUEST = 0, RESPONSE = 1, NOTIFICATION = 2;
const code = (name) => Number(Object.keys(ERRORS).find((key) => ERRORS[key][1] === name));
export const METHOD_CODE = code('method'), INTERNAL_CODE = code('internal');

/** Where eqd is: as given, else EQD_SOCKET, else for root the system's socket, for others their own if it is there. */
export function defaultPath(path, env = process.env, euid = process.geteuid()) {
  if (path || env.EQD_SOCKET) return path || env.EQD_SOCKET;
  const own = env.XDG_RUNTIME_DIR && `${env.XDG_RUNTIME_DIR}/eqd/eqd.sock`;
  return euid !== 0 && own && existsSync(own) ? own : '/run/eqd/eqd.sock';
}

export function pack(message) {
  const bytes = encode(message, { ignoreUndefined: true });
  if (bytes.length > LIMITS.MESSAGE_MAX) {
    throw new RangeError(`a message of ${bytes.length} bytes; eqd takes ${LIMITS.MESSAGE_MAX}`);
  }
  return bytes;
}

function isMessage(m) {
  if (!Array.isArray(m)) return false;
  return (m[0] === RESPONSE && m.length === 4 && Number.isInteger(m[1])) ||
    (m[0] === REQUEST && m.length === 4 && typeof m[2] === 'string' && Array.isArray(m[3])) ||
    (m[0] === NOTIFICATION && m.length === 3 && typeof m[1] === 'string' && Array.isArray(m[2]));
}

/** The messages in an async iterable of bytes, however these are cut. Throws ProtocolViolation at what is none. */
export async function* messages(source) {
  const max = LIMITS.MESSAGE_MAX;
  const limits = { maxStrLength: max, maxBinLength: max, maxArrayLength: max, maxMapLength: max, maxExtLength: 0 };
  async function* within() {
    let partial = 0;
    for await (const bytes of source) {
      partial = taken ? bytes.length : partial + bytes.length;
      taken = false;
      if (partial > 2 * max) throw new ProtocolViolation('eqd sent a message without an end');
      yield bytes;
    }
  }
  let taken = false;
  try {
    for await (const message of decodeMultiStream(within(), limits)) {
      taken = true;
      if (!isMessage(message)) throw new ProtocolViolation('what eqd sent is no message');
      yield message;
    }
  } catch (e) {
    if (e instanceof EqdException || e?.code) throw e;
    throw new ProtocolViolation(`what eqd sent is no message: ${e.message}`, { cause: e });
  }
}

export class Channel {
  #waiting = new Map();
  #nextId = 0;
  #paused = null; // what reading waits for
  #resume = () => {};

  constructor(socket) {
    this.socket = socket;
    this.handlers = new Map(); // method -> async (params, msgid) => [error, result]
    this.onNotification = () => {};
    this.lost = null;
    socket.on('error', () => {}); // the reader hears of it
    this.ended = this.#read();
  }

  static open(path) {
    return new Promise((resolve, reject) => {
      const socket = net.connect({ path });
      socket.once('error', reject);
      socket.once('connect', () => {
        socket.off('error', reject);
        resolve(new Channel(socket));
      });
    });
  }

  async close() {
    this.lost ??= new ConnectionLost('the client was closed');
    this.resume();
    this.socket.destroy();
    await this.ended;
  }

  /** Sends a request and waits for its answer. Aborted: the answer is dropped; eqd may carry the request out. */
  exchange(method, params, { signal, timeout } = {}) {
    return new Promise((resolve, reject) => {
      if (this.lost) throw this.lost;
      signal?.throwIfAborted();
      const msgid = this.#nextId;
      this.#nextId = (msgid + 1) % 2 ** 32;
      const bytes = pack([REQUEST, msgid, method, params]);
      const give = (settle, value) => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', abort);
        this.#waiting.delete(msgid);
        this.#hold();
        settle(value);
      };
      const abort = () => give(reject, signal.reason);
      const timer = timeout && setTimeout(() => give(reject, new RequestTimeout('no answer from eqd in time')), timeout);
      signal?.addEventListener('abort', abort);
      this.#waiting.set(msgid, {
        answer: ([, , error, result]) => (error === null ? give(resolve, result) : give(reject, errorFromWire(error))),
        lose: (why) => give(reject, why),
      });
      this.#hold();
      this.socket.write(bytes);
    });
  }

  notify(method, params) {
    this.socket.write(pack([NOTIFICATION, method, params]));
  }

  /** Reads no more until resume(), but for answers that are waited for: of who is too slow eqd holds little, then drops and says so. */
  pause() {
    this.#paused ??= new Promise((resolve) => { this.#resume = resolve; });
  }

  resume() {
    this.#resume();
    this.#paused = null;
  }

  /** A connection that nothing is awaited from does not keep the program alive. */
  #hold() {
    if (this.lost) return; // a socket that was destroyed would wait for its next connect to do it
    if (this.#waiting.size || this.keepAlive) this.socket.ref();
    else this.socket.unref();
  }

  async #read() {
    let lost = new ConnectionLost('eqd closed the connection');
    try {
      for await (const message of messages(this.socket)) {
        this.#dispatch(message);
        if (this.#paused && !this.#waiting.size && !this.lost) await this.#paused;
      }
    } catch (e) {
      lost = e instanceof EqdException ? e : new ConnectionLost(`the connection to eqd ended: ${e.message}`, { cause: e });
    }
    this.lost ??= lost;
    this.socket.destroy();
    for (const { lose } of [...this.#waiting.values()]) lose(this.lost);
    return this.lost;
  }

  #dispatch(message) {
    if (message[0] === RESPONSE) this.#waiting.get(message[1])?.answer(message);
    else if (message[0] === NOTIFICATION) this.onNotification(message[1], message[2]);
    else this.#serve(message);
  }

  /** One request of eqd: its handler's answer, an error for a method that has none or a handler that throws. */
  async #serve([, msgid, method, params]) {
    let answer = [[METHOD_CODE, `this client has no method ${method}`], null];
    try {
      if (this.handlers.has(method)) answer = await this.handlers.get(method)(params, msgid);
    } catch (e) {
      answer = [[INTERNAL_CODE, String(e)], null];
    }
    if (!this.lost) this.socket.write(pack([RESPONSE, msgid, ...answer]));
  }
}
