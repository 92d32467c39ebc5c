// SPDX-License-Identifier: MIT
// What can go wrong. What eqd itself answered is an EqdError, with a subclass for each code.
import { ERRORS } from './api.js';

export class EqdException extends Error {
  constructor(message, options) {
    super(message, options);
    this.name = this.constructor.name;
  }
}

/** An error that eqd answered: code, codeName, message, details (a record ErrorDetails). */
export class EqdError extends EqdException {
  constructor(message, code = 0, details = {}) {
    super(message);
    this.code = code;
    this.codeName = ERRORS[code]?.[1] ?? '';
    this.details = details;
  }

  /** Milliseconds until it is worth trying again; undefined: eqd does not know, or it is not. */
  get retryAfter() {
    const usec = this.details.retry_after_usec;
    return usec === undefined ? undefined : Number(usec) / 1000;
  }
}

/** The connection ended. Whether eqd carried the request out is not known. */
export class ConnectionLost extends EqdException {}
/** The other side sent what is no message. */
export class ProtocolViolation extends EqdException {}
/** No answer came in time. Whether eqd will carry the request out is not known. */
export class RequestTimeout extends EqdException {}

/** What follow() iterates was not taken in time: `n` pieces of output were dropped by eqd. What is kept is in output(). */
export class OutputLost extends EqdException {
  constructor(n) {
    super(`${n} pieces of output were lost: they came faster than they were taken`);
    this.n = n;
  }
}

/** result() of a task that did not end as DONE; `record` is the task as shown at its end. */
export class TaskError extends EqdException {
  constructor(record) {
    super(describe(record));
    this.record = record;
  }
}
export class TaskFailed extends TaskError {}
/** It ran longer than it was allowed to: TIMEOUT, or with retries, in the last attempt, DEAD. */
export class TaskTimeout extends TaskError {}
export class TaskCanceled extends TaskError {}
export class TaskExpired extends TaskError {}

const taskErrors = {
  FAILED: TaskFailed, DEAD: TaskFailed, TIMEOUT: TaskTimeout, CANCELED: TaskCanceled, EXPIRED: TaskExpired,
};

/** The exception for a task that did not end as DONE. */
export function taskError(record) {
  const timedOut = record.state === 'DEAD' && record.reason === 'timeout';
  return new (timedOut ? TaskTimeout : taskErrors[record.state] ?? TaskError)(record);
}

/** Classes by their names: NoQueueError, FullError... */
export const errorClasses = Object.fromEntries(
  Object.values(ERRORS).map(([name]) => [name, { [name]: class extends EqdError {} }[name]]));

function describe(record) {
  const parts = [`${record.id ?? '?'}: ${record.state ?? '?'}`];
  const said = [record.detail, record.error, record.signal && `signal ${record.signal}`, record.exit && `exit status ${record.exit}`];
  for (const text of said) if (text && !parts.some((part) => part.includes(text))) parts.push(text); // eqd's sentence has most of it
  return parts.join(', ');
}

/** The exception for the error of a response: [code, text, details]. */
export function errorFromWire(error) {
  if (!Array.isArray(error) || !Number.isInteger(error[0])) return new EqdError(String(error));
  const Class = errorClasses[ERRORS[error[0]]?.[0]] ?? EqdError;
  return new Class(String(error[1]), error[0], error[2] ?? {});
}
