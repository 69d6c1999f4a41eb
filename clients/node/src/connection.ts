/** A channel to a server, and the ways to call: once, with an upload, and with replies that go on. */

import { setMaxListeners } from 'node:events';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

import { Client as Channel, type ChannelCredentials, credentials, Metadata, type ServiceError } from '@grpc/grpc-js';

import type { Method } from './contract.js';
import { CancelledError, errorFrom, MatchcutError } from './errors.js';
import type { CallOptions, ConnectOptions } from './options.js';
import { Outlet, type Requests } from './outlet.js';
import { Attempts, DEFAULT_RETRY, type Repeatable, type Retry } from './retry.js';

const CHANNEL_OPTIONS = {
  'grpc.max_receive_message_length': 64 * 1024 * 1024, // a page of items with attributes, an item with vectors
  'grpc.max_send_message_length': 64 * 1024 * 1024, // a frame of 4K fits easily
  'grpc.use_local_subchannel_pool': 1, // a connection of its own: the server is fair between connections
};

/** What bounds one try: a signal that ends it, and until when it may take, in milliseconds since the epoch. */
export interface Limits {
  signal: AbortSignal;
  deadline: number;
}

/** A call under way to which requests are written and of which replies are read. */
export interface Exchange<Request, Reply> {
  outlet: Outlet<Request>;
  /** To be iterated over once; leaving the iteration cancels the call. */
  replies: AsyncGenerator<Reply, void, undefined>;
  cancel(): void;
}

const CENTURY_MS = 100 * 365 * 86_400_000;

/** A timeout in milliseconds; Infinity where there is no bound, or one beyond a century, which gRPC does not take. */
function bounded(timeoutMs: number | undefined, otherwise: number): number {
  if (timeoutMs === undefined) {
    return otherwise;
  }
  if (typeof timeoutMs !== 'number' || !(timeoutMs > 0)) {
    throw new TypeError(`timeoutMs is a number of milliseconds above 0, not ${String(timeoutMs)}`);
  }
  return timeoutMs > CENTURY_MS ? Infinity : timeoutMs;
}

/** Where the server is, who is calling, and the calls' defaults. */
export class Connection {
  readonly #channel: Channel;
  readonly #metadata = new Metadata();
  readonly #retry: Retry;
  readonly #timeoutMs: number;
  readonly #open = new Set<AbortController>();
  #closed = false;

  constructor(target: string, options: ConnectOptions) {
    this.#retry = { ...DEFAULT_RETRY, ...options.retry };
    this.#timeoutMs = bounded(options.timeoutMs, Infinity);
    if (options.token) {
      if (!/^[ -~]*$/.test(options.token)) {
        throw new TypeError('the token has characters that no header may have, such as the end of a line');
      }
      this.#metadata.set('authorization', `Bearer ${options.token}`);
    }
    this.#channel = new Channel(target, credentialsOf(options), {
      ...CHANNEL_OPTIONS,
      // Else tries are over before gRPC connects again, which it does a second after it failed to, then ever later.
      'grpc.initial_reconnect_backoff_ms': this.#retry.initialMs,
      'grpc.max_reconnect_backoff_ms': this.#retry.maximumMs,
    });
  }

  /** Cancels what is under way and closes the channel. */
  close(): void {
    this.#closed = true;
    for (const controller of this.#open) {
      controller.abort(new CancelledError('The client was closed during the call.', { code: 'CANCELLED' }));
    }
    this.#channel.close();
  }

  /** Makes tries until one is answered or must not be made again; they share the timeout. */
  async answer<Reply>(
    options: CallOptions,
    repeatable: Repeatable,
    attempt: (limits: Limits) => Promise<Reply>,
  ): Promise<Reply> {
    const attempts = new Attempts(this.#retry, repeatable, bounded(options.timeoutMs, this.#timeoutMs));
    const { signal, leave } = this.#enter(options.signal);
    try {
      for (;;) {
        try {
          return await attempt({ signal, deadline: Date.now() + attempts.remainingMs });
        } catch (error) {
          signal.throwIfAborted();
          const pause = error instanceof MatchcutError ? attempts.pause(error) : undefined;
          if (pause === undefined) {
            throw error;
          }
          await sleep(pause, undefined, { signal }).catch(() => signal.throwIfAborted());
        }
      }
    } finally {
      leave();
    }
  }

  /** One request, one reply. */
  unary<Request, Reply>(
    method: Method<Request, Reply>,
    request: Request,
    options: CallOptions,
    repeatable: Repeatable,
  ): Promise<Reply> {
    return this.answer(options, repeatable, (limits) => this.ask(method, request, limits));
  }

  /** One try of one request and one reply. */
  async ask<Request, Reply>(method: Method<Request, Reply>, request: Request, limits: Limits): Promise<Reply> {
    const { path, requestSerialize, responseDeserialize: read } = method;
    const { deadline, signal } = limits;
    signal.throwIfAborted();
    const bytes = requestSerialize(request);
    const { promise, told } = settled<Reply>();
    const call = this.#channel.makeUnaryRequest(path, same, read, bytes, this.#metadata, { deadline }, told);
    const done = onAbort(signal, () => call.cancel());
    try {
      return await promise;
    } catch (error) {
      throw errorFrom(error); // made here, its stack tells who asked
    } finally {
      done();
    }
  }

  /** One try of many requests and one reply, which may come before all are out and then ends the sending. */
  async upload<Request, Reply>(
    method: Method<Request, Reply>,
    requests: Requests<Request>,
    { deadline, signal }: Limits,
  ): Promise<Reply> {
    const { path, requestSerialize, responseDeserialize: read } = method;
    signal.throwIfAborted();
    const { promise, told } = settled<Reply>();
    const call = this.#channel.makeClientStreamRequest(path, same, read, this.#metadata, { deadline }, told);
    const outlet = new Outlet(call, requestSerialize);
    const done = onAbort(signal, () => call.cancel());
    try {
      void outlet.send(requests);
      return await promise;
    } catch (error) {
      throw outlet.failure ? outlet.failure.error : errorFrom(error);
    } finally {
      done();
      outlet.stop();
      call.cancel();
    }
  }

  /** Many requests, which the caller writes, and many replies. There are no retries. */
  exchange<Request, Reply>(method: Method<Request, Reply>, { deadline, signal }: Limits): Exchange<Request, Reply> {
    const { path, requestSerialize, responseDeserialize: read } = method;
    const call = this.#channel.makeBidiStreamRequest(path, same, read, this.#metadata, { deadline });
    call.on('error', () => undefined); // the iteration throws it; one that comes after its end is of no interest
    const outlet = new Outlet(call, requestSerialize);
    const done = onAbort(signal, () => call.cancel());
    async function* replies(): AsyncGenerator<Reply, void, undefined> {
      try {
        yield* call as AsyncIterable<Reply>;
      } catch (error) {
        signal.throwIfAborted();
        throw outlet.failure ? outlet.failure.error : errorFrom(error);
      } finally {
        done();
        outlet.stop();
        call.cancel();
      }
    }
    return { outlet, replies: replies(), cancel: () => call.cancel() };
  }

  /** Many requests, many replies. The call starts with the first step of the iteration; leaving it cancels the call. */
  async *stream<Request, Reply>(
    method: Method<Request, Reply>,
    requests: Requests<Request>,
    options: CallOptions,
  ): AsyncGenerator<Reply, void, undefined> {
    const { limits, leave } = this.enter(options);
    try {
      yield* this.streamOnce(method, requests, limits);
    } finally {
      leave();
    }
  }

  /** The same within limits that are there already. */
  streamOnce<Request, Reply>(
    method: Method<Request, Reply>,
    requests: Requests<Request>,
    limits: Limits,
  ): AsyncGenerator<Reply, void, undefined> {
    const { outlet, replies } = this.exchange(method, limits);
    void outlet.send(requests);
    return replies;
  }

  /** The limits of a call that goes on, which has no timeout but its own. `leave` is called when it is over. */
  enter(options: CallOptions): { limits: Limits; leave: () => void } {
    const deadline = Date.now() + bounded(options.timeoutMs, Infinity);
    const { signal, leave } = this.#enter(options.signal);
    return { limits: { signal, deadline }, leave };
  }

  /** A signal of this call's own: it follows the caller's, and the closing of the client. */
  #enter(given: AbortSignal | undefined): { signal: AbortSignal; leave: () => void } {
    given?.throwIfAborted();
    if (this.#closed) {
      throw new Error('this client is closed: make a new one');
    }
    const controller = new AbortController();
    const unfollow = given ? onAbort(given, () => controller.abort(given.reason)) : () => undefined;
    this.#open.add(controller);
    const leave = (): void => {
      unfollow();
      this.#open.delete(controller);
    };
    return { signal: controller.signal, leave };
  }
}

/** Calls `act` when the signal is aborted, unless the function that is returned was called before. */
function onAbort(signal: AbortSignal, act: () => void): () => void {
  setMaxListeners(0, signal); // any number of calls may share one; each lets go of it when it is over
  signal.addEventListener('abort', act, { once: true });
  return () => signal.removeEventListener('abort', act);
}

/** A promise, and the callback that settles it. */
function settled<T>(): { promise: Promise<T>; told: (error: ServiceError | null, value?: T) => void } {
  let told!: (error: ServiceError | null, value?: T) => void;
  const promise = new Promise<T>((resolve, reject) => {
    told = (error, value) => (error ? reject(error) : resolve(value as T));
  });
  return { promise, told };
}

/** Requests are bytes already, so that what is no such message is told as a TypeError. */
function same(bytes: Buffer): Buffer {
  return bytes;
}

function credentialsOf({ tls, certificate }: ConnectOptions): ChannelCredentials {
  if (!tls) {
    if (certificate) {
      throw new TypeError('a client certificate needs TLS: give tls: true or the path of the authorities');
    }
    return credentials.createInsecure();
  }
  const authorities = tls === true ? null : readFileSync(tls);
  return certificate
    ? credentials.createSsl(authorities, readFileSync(certificate.key), readFileSync(certificate.chain))
    : credentials.createSsl(authorities);
}
