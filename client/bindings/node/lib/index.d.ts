// SPDX-License-Identifier: MIT
/// <reference types="node" />
import type { Api, CancelOptions, ErrorDetailsRecord, ErrorName, EventRecord, ListOptions, SubmitManyOptions, TaskRecord, WaitOptions, WhyRecord } from './api.js';

export * from './api.js';

/** Text is sent as UTF-8. */
export type Bytes = Uint8Array | string;
/** QUEUE/SEQ, [queue id, SEQ], or what submit gave back. */
export type AnyId = string | readonly [number, number] | { pair: readonly [number, number] };
/** Strings; an object stands for KEY=VALUE strings, with yes and no for booleans. */
export type Strings = readonly (string | Uint8Array)[] | Record<string, string | number | boolean>;
/** Milliseconds, or text such as "30s", "1h 30m", "250ms". */
export type Duration = number | string;
/** A Date, or milliseconds since the epoch. */
export type Time = Date | number;

export class EqdException extends Error {}
/** An error that eqd answered; the subclasses are in `errors`. */
export class EqdError extends EqdException {
  code: number;
  codeName: string;
  details: ErrorDetailsRecord & Record<string, unknown>;
  /** Milliseconds until it is worth trying again; undefined: eqd does not know, or it is not. */
  readonly retryAfter: number | undefined;
}
export class ConnectionLost extends EqdException {}
export class ProtocolViolation extends EqdException {}
export class RequestTimeout extends EqdException {}
/** What follow() iterates was not taken in time. What is kept is in output(). */
export class OutputLost extends EqdException {
  /** Pieces that eqd dropped. */
  n: number;
}
export class TaskError extends EqdException {
  record: TaskRecord;
}
export class TaskFailed extends TaskError {}
/** It ran longer than it was allowed to: TIMEOUT, or with retries, in the last attempt, DEAD. */
export class TaskTimeout extends TaskError {}
export class TaskCanceled extends TaskError {}
export class TaskExpired extends TaskError {}

/** A submitted task. It is only a name: dropping it does nothing to the task. */
export class Task {
  private constructor();
  /** QUEUE/SEQ */
  readonly id: string;
  readonly pair: [number, number];
  readonly queue: string;
  /** Waits for the end, however it is. */
  wait(options?: WaitOptions): Promise<TaskRecord>;
  /** Waits for the end; rejects with a TaskError if it is not DONE. */
  result(options?: WaitOptions): Promise<TaskRecord>;
  show(): Promise<TaskRecord>;
  /** What it was submitted with, also when it has ended. undefined: it ended before eqd had read it from the store. */
  payload(): Promise<Uint8Array | undefined>;
  why(): Promise<WhyRecord>;
  done(): Promise<boolean>;
  /** true: canceled; or, with `running`, being stopped. */
  cancel(options?: CancelOptions): Promise<boolean>;
  /** What is kept of its output, of the last attempt or of that one. 1: standard output (default), 2: standard error, 3: both
   * as they came. */
  output(streams?: 1 | 2 | 3, options?: { attempt?: number }): Promise<Buffer>;
  follow(options?: FollowOptions): AsyncGenerator<Chunk, void, void>;
}

export interface Chunk {
  stream: 1 | 2;
  data: Uint8Array;
}
export interface FollowOptions {
  streams?: 1 | 2 | 3;
  signal?: AbortSignal;
}
export interface EventOptions {
  queue?: string;
  /** Kinds, or prefixes such as "task." */
  events?: string[];
  /** Called once eqd sends events. */
  ready?: () => void;
  signal?: AbortSignal;
}
/** What is done when the connection ends; see README.md. Milliseconds. */
export interface Reconnect {
  /** The first try is made at once; pauses begin with this and double, less a random half. Default 20. */
  firstMs?: number;
  /** Longest pause. Default 2000. */
  maxMs?: number;
  /** After so long without an answer what was waiting rejects; Infinity: never. Default 60000. */
  giveUpMs?: number;
  /** false: submits without a key get none, and are not sent again. */
  keys?: boolean;
  onChange?: (what: 'lost' | 'back') => void;
}
export interface ClientOptions {
  /** true: with the defaults. Default: none. */
  reconnect?: boolean | Reconnect;
  /** Default: EQD_SOCKET, else as eqctl finds eqd. */
  path?: string;
  /** Time that an answer may take; requests that wait for tasks have limits of their own. 0: none. Default 30000. */
  timeoutMs?: number;
}

export interface Client extends Api {}
export class Client {
  constructor(options?: ClientOptions);
  readonly path: string;
  connect(): Promise<this>;
  close(): Promise<void>;
  call(name: string, params?: unknown[], options?: { signal?: AbortSignal }): Promise<unknown>;
  map(queue: string, payloads: readonly unknown[], options?: SubmitManyOptions): Promise<Task[]>;
  allTasks(which?: ListOptions): AsyncGenerator<TaskRecord, void, void>;
  /** Nothing is read ahead of who iterates: { event: 'lost', n } tells that eqd dropped n of one who takes them too slowly. */
  events(options?: EventOptions): AsyncGenerator<EventRecord, void, void>;
  /** Throws OutputLost where who iterates takes it so slowly that eqd dropped some. */
  follow(task: AnyId, options?: FollowOptions): AsyncGenerator<Chunk, void, void>;
}

/** A task that a worker was handed, to be ended once. */
export class Run {
  private constructor();
  readonly id: string;
  readonly pair: [number, number];
  readonly queue: string;
  /** The fencing token: no two leases of a task have the same. */
  readonly attempt: number;
  readonly payload: Uint8Array;
  readonly label?: string;
  /** Type of the payload, as who submitted it says. */
  readonly mime?: string;
  /** Who submitted it, where that is not the worker's own user. */
  readonly uid?: number;
  readonly timeoutUsec?: number;
  readonly ended: boolean;
  /** Aborted when the task is canceled, out of time, or no longer this worker's. */
  readonly signal: AbortSignal;
  /** With `confirm`: true once what its answer ended is kept, of a durable queue also over a crash of eqd; false: nobody knows. */
  readonly confirmed?: Promise<boolean>;
  complete(result?: Bytes | null): void;
  /** retryAfter: when the next attempt comes, if there is one, in place of the back-off. */
  fail(error: unknown, options?: { final?: boolean; retryAfter?: Duration }): void;
  /** retryAfter: when the task comes back; without it the worker gets no more tasks. */
  giveBack(options?: { retryAfter?: Duration }): void;
  /** A sign of life: percent done, and what it is at. */
  touch(progress?: number, note?: string): void;
}
export interface WorkerOptions {
  /** Runs handed out and not ended at once. Default 1. */
  concurrency?: number;
  /** Tasks that eqd may send ahead. Default: concurrency. */
  credit?: number;
  name?: string;
  path?: string;
  /** A reserve: gets tasks of queues with a rescuer, while their other workers are stuck. */
  rescue?: boolean;
  /** Runs tell by `confirmed` when their answers are kept. */
  confirm?: boolean;
  /** Serve again when the connection has ended. Default: the iterator throws ConnectionLost. */
  reconnect?: boolean | Reconnect;
}
export class Worker implements AsyncIterable<Run> {
  private constructor();
  /** As in `eqctl worker ls`. */
  readonly number: number;
  /** Runs that were ended after their lease. */
  readonly late: number;
  [Symbol.asyncIterator](): AsyncGenerator<Run, void, void>;
  serve(handler: (run: Run) => Bytes | null | void | Promise<Bytes | null | void>): Promise<void>;
  close(): Promise<void>;
}
export function worker(queues: string | string[], options?: WorkerOptions): Promise<Worker>;
export function connect(options?: ClientOptions): Promise<Client>;
export function defaultPath(path?: string): string;
/** Subclasses by name. */
export const errors: { readonly [name in ErrorName]: typeof EqdError };
