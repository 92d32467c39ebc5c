// SPDX-License-Identifier: MIT
// What TypeScript makes of the package; compiled, never run. Everything that is exported is used as README.md says, and each line
// that must be refused stands beneath a word that TypeScript wants an error for.
import {
  Client, ConnectionLost, EVENTS, EqdError, EqdException, FINISHED, LIMITS, OutputLost, PROTOCOL, ProtocolViolation, REASONS,
  RequestTimeout, Run, STATES, Task, TaskCanceled, TaskError, TaskExpired, TaskFailed, TaskTimeout, Worker, connect, defaultPath, errors, worker,
} from 'eqd';
import type {
  AnyId, Api, Bytes, CancelOptions, Chunk, ClientOptions, Duration, ErrorDetailsRecord, ErrorName, EventKind, EventOptions, EventRecord,
  FollowOptions, ListOptions, QueueRecord, Reason, Reconnect, State, Strings, SubmitManyReplyRecord, SubmitOptions, TaskRecord, Time,
  WaitOptions, WorkerOptions, WhyRecord,
} from 'eqd';

const { signal } = new AbortController();

/** Compiles if both types are the same. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : never;
function same<A, B>(_: Same<A, B>): void {}

async function clients(): Promise<void> {
  const reconnect: Reconnect = { firstMs: 20, maxMs: 2000, giveUpMs: Infinity, keys: true, onChange: (what: 'lost' | 'back') => console.log(what) };
  const options: ClientOptions = { path: defaultPath(), timeoutMs: 1000, reconnect };
  const client: Client = await connect(options);
  const other = await new Client({ reconnect: true }).connect();
  same<typeof other, Client>(true);
  const api: Api = client;
  const path: string = client.path;
  await api.ping({ signal });
  const raw: unknown = await client.call('hello', [{ client: path }], { signal });
  await other.close();

  // @ts-expect-error: milliseconds
  await connect({ timeoutMs: '30s' });
  // @ts-expect-error: there is no such option
  await connect({ socket: '/run/eqd/eqd.sock' });
  // @ts-expect-error: there is no such method
  await client.queueDestroy('q');
  // @ts-expect-error: it stays where it is
  client.path = path;
  // @ts-expect-error: what a method by name answers has to be looked at
  const text: string = raw;
  // @ts-expect-error: told are two things
  const wrong: Reconnect = { onChange: (what: 'gone') => what };
  void [text, wrong];
}

async function tasks(client: Client): Promise<void> {
  const environment: Strings = { PATH: '/bin', N: 1, YES: true };
  const at: Time = new Date();
  const timeout: Duration = '30s';
  const payload: Bytes = new Uint8Array(1);
  const options: SubmitOptions = { argv: ['true'], env: environment, at, timeout, delay: 250, urgent: true, retries: 1, afterOk: ['q/1'] };
  const task: Task = await client.submit('q', payload, options);
  const wait: WaitOptions = { timeout: '1min', any: true };
  const cancel: CancelOptions = { running: true, killSignal: 15, grace: 100 };
  const record: TaskRecord = await task.result(wait);
  const why: WhyRecord = await task.why();
  same<Awaited<ReturnType<Task['wait']>>, TaskRecord>(true);
  same<Awaited<ReturnType<Task['output']>>, Buffer>(true);
  const said: [string, readonly [number, number], string, boolean, boolean] =
    [task.id, task.pair, task.queue, await task.done(), await task.cancel(cancel)];
  const ids: AnyId[] = [task, task.id, task.pair, [1, 2]];
  const rows: TaskRecord[] = await client.show(ids);
  const many: SubmitManyReplyRecord = await client.submitMany('q', ['a', { payload: 'b' }], { common: { retries: 1 } });
  const mapped: Task[] = await client.map('q', ['a', 'b']);
  const list: ListOptions = { queue: 'q', states: ['QUEUED'] };
  for await (const row of client.allTasks(list)) same<typeof row, TaskRecord>(true);
  for await (const chunk of task.follow({ streams: 3 })) same<typeof chunk, Chunk>(true);
  const follow: FollowOptions = { streams: 1, signal };
  for await (const { stream, data } of client.follow(task, follow)) process.stdout.write(stream === 1 ? data : '');
  const queue: QueueRecord = await client.queueCreate('q', { set: { max_active: 2 }, existOk: true });
  void [record.exit?.toFixed(), why.reason?.length, said, rows, many.n, mapped, queue.id];

  // @ts-expect-error: a payload is bytes, text or null
  await client.submit('q', 1);
  // @ts-expect-error: it has to be said that there is none
  await client.submit('q');
  // @ts-expect-error: times of day come with a zone
  await client.submit('q', null, { at: '12:00' });
  // @ts-expect-error: arguments, not a line for a shell
  await client.submit('q', null, { argv: 'ls -l' });
  // @ts-expect-error: durations have lost their unit in the name
  await client.submit('q', null, { timeout_usec: 1 });
  // @ts-expect-error: an id is text, a pair of numbers or a Task
  await client.show([1]);
  // @ts-expect-error: 3 is both
  await task.output(4);
  // @ts-expect-error: fields of a record may be missing
  const exit: number = record.exit;
  // @ts-expect-error: tasks are made by submit
  new Task();
  void exit;
}

async function events(client: Client): Promise<void> {
  const options: EventOptions = { queue: 'q', events: ['task.'], ready: () => {}, signal };
  for await (const event of client.events(options)) {
    same<typeof event, EventRecord>(true);
    // @ts-expect-error: there is no such field
    void event.nothing;
  }
}

async function workers(): Promise<void> {
  const options: WorkerOptions = { concurrency: 2, credit: 4, name: 'w', path: '/s', rescue: false, reconnect: true };
  const w: Worker = await worker(['q'], options);
  const said: [number, number] = [w.number, w.late];
  for await (const run of w) {
    same<typeof run, Run>(true);
    run.touch(50, 'half');
    run.signal.addEventListener('abort', () => run.fail(new Error('canceled'), { final: true }));
    const facts: [string, [number, number], string, number, Uint8Array, boolean] =
      [run.id, run.pair, run.queue, run.attempt, run.payload, run.ended];
    if (run.label ?? run.mime ?? run.uid ?? run.timeoutUsec) run.giveBack();
    if (run.attempt > 3) run.giveBack({ retryAfter: '30s' });
    if (run.attempt > 2) run.fail('not now', { retryAfter: 1500 });
    else run.complete(run.payload);
    void facts;
    // @ts-expect-error: a result is bytes, text or null
    run.complete(1);
    // @ts-expect-error: its text is borrowed from eqd
    run.id = 'q/1';
  }
  await w.serve((run) => run.payload);
  await w.serve(async () => null);
  await w.close();
  // @ts-expect-error: results of handlers are bytes, text or nothing
  await w.serve(() => 1);
  // @ts-expect-error: workers are made by worker()
  new Worker();
  // @ts-expect-error: runs come from a Worker
  new Run();
  void said;
}

function mistakes(e: unknown): string | undefined {
  if (e instanceof errors.NoQueueError) {
    const details: ErrorDetailsRecord = e.details;
    return details.queue ?? e.codeName;
  }
  const name: ErrorName = 'FullError';
  if (e instanceof errors[name]) return `${e.code} ${e.retryAfter?.toFixed() ?? ''}`;
  if (e instanceof TaskFailed || e instanceof TaskTimeout || e instanceof TaskCanceled || e instanceof TaskExpired) {
    const error: TaskError = e;
    return error.record.state;
  }
  // @ts-expect-error: there is no such class
  void errors.NoSuchError;
  // @ts-expect-error: that it is worth trying again is for eqd to say
  if (e instanceof EqdError) e.retryAfter = 1;
  const lost: EqdException[] = [new ConnectionLost(), new ProtocolViolation(), new RequestTimeout(), new OutputLost()];
  same<OutputLost['n'], number>(true);
  return lost[0]?.message;
}

function tables(): void {
  const states: readonly State[] = STATES;
  const reasons: readonly Reason[] = REASONS;
  const kinds: readonly EventKind[] = EVENTS;
  const ends: readonly State[] = FINISHED;
  const numbers: [number, number] = [PROTOCOL, LIMITS.RESULT_MAX];
  void [states, reasons, kinds, ends, numbers];
  // @ts-expect-error: they are constants
  STATES.push('DONE');
  // @ts-expect-error: states are in capitals
  const state: State = 'done';
  // @ts-expect-error: limits are constants
  LIMITS.RESULT_MAX = 1;
  void state;
}

void [clients, tasks, events, workers, mistakes, tables];
