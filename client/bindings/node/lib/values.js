// SPDX-License-Identifier: MIT
// Values as people write them, and as the wire wants them.

const UNITS = { us: 1, ms: 1000, s: 1e6, m: 60e6, h: 3600e6, d: 86400e6 };
const PART = /(\d+(?:\.\d+)?)(us|ms|s|m|h|d)\s*/g;

/** Milliseconds as a number, or text such as "30s", "1h 30m", "250ms"; in microseconds. */
export function durationUsec(value) {
  if (typeof value === 'number') {
    if (!(value >= 0)) throw new RangeError(`${value} is no duration`);
    return Math.round(value * 1000);
  }
  if (typeof value !== 'string') throw new TypeError('a duration is a number of milliseconds or text such as 30s');
  const parts = [...value.matchAll(PART)];
  if (!parts.length || value.replace(PART, '')) {
    throw new RangeError(`${JSON.stringify(value)} is no duration; write it as 30s, 1h30m or 250ms`);
  }
  return Math.round(parts.reduce((sum, [, n, unit]) => sum + Number(n) * UNITS[unit], 0));
}

/** A Date, or milliseconds since the epoch; in microseconds. */
export function timeUsec(value) {
  const ms = value instanceof Date ? value.getTime() : value;
  if (typeof ms !== 'number' || !(ms >= 0)) throw new TypeError('a time of day is a Date or milliseconds since the epoch');
  return Math.round(ms * 1000);
}

/** [queue id, SEQ], or the text QUEUE/SEQ, which eqd takes as well. */
export function wireId(value) {
  if (typeof value === 'string' || Array.isArray(value)) return value;
  if (Array.isArray(value?.pair)) return value.pair;
  throw new TypeError('a task is QUEUE/SEQ, [queue id, SEQ], or what submit gave back');
}

function wireStrings(value) {
  if (Array.isArray(value)) return value;
  if (value === null || typeof value !== 'object') throw new TypeError(`${JSON.stringify(value)} where a list of strings is wanted`);
  return Object.entries(value).map(([k, v]) => `${k}=${v === true ? 'yes' : v === false ? 'no' : v}`);
}

const wire = {
  duration: durationUsec, time: timeUsec, id: wireId, idv: (ids) => Array.from(ids, wireId), strv: wireStrings,
};

function wireValue(kind, value) {
  return value === null || !wire[kind] ? value : wire[kind](value);
}

/** Parameters of a request by its row of METHODS: required ones, then one map with the options that were given. */
export function wireParams(method, args, options = {}) {
  const params = method.required.map(([, kind], i) => wireValue(kind, args[i] ?? null));
  const map = {};
  for (const [key, value] of Object.entries(options)) {
    if (key === 'signal' || value === undefined) continue;
    const row = Object.hasOwn(method.options, key) ? method.options[key] : undefined;
    if (!row) throw new TypeError(`${method.name} has no option ${key}; it has ${Object.keys(method.options).join(', ') || 'none'}`);
    map[row[0]] = wireValue(row[1], value);
  }
  return Object.keys(map).length ? [...params, map] : params;
}

/** A reply whose records of tasks have `id` as QUEUE/SEQ, and the numbers as `pair`. Changes it in place. */
export function withIds(reply) {
  for (const record of Array.isArray(reply) ? reply : [reply]) {
    if (Array.isArray(record?.id) && typeof record.queue === 'string') {
      record.pair = record.id;
      record.id = `${record.queue}/${record.pair[1]}`;
    }
  }
  return reply;
}
