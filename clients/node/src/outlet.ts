/** The sending side of a call: messages leave one by one, as fast as the transport takes them. */

import { setMaxListeners } from 'node:events';
import { setImmediate } from 'node:timers/promises';

/** A call of grpc-js to which requests are written; they are bytes already. */
export interface Writing {
  write(bytes: Buffer, done: (error?: Error | null) => void): unknown;
  end(): unknown;
  cancel(): void;
}

/** The requests of one try of a call; the signal tells that no more are wanted. */
export type Requests<Request> = (signal: AbortSignal) => AsyncIterable<Request>;

/** What is written to one call. Its owner says with stop() that the call is over. */
export class Outlet<Request> {
  readonly #call: Writing;
  readonly #serialize: (request: Request) => Buffer;
  readonly #over = new AbortController();
  #ended = false;
  /** Why a request could not be made, which is then what the call failed of. */
  failure: { error: unknown } | undefined;

  constructor(call: Writing, serialize: (request: Request) => Buffer) {
    this.#call = call;
    this.#serialize = serialize;
    setMaxListeners(0, this.#over.signal); // one for each request that is being written
  }

  /** Writes one request. True once the transport took it, false where the call is over or its sending side ended. */
  write(request: Request): Promise<boolean> {
    const { signal } = this.#over;
    return new Promise((resolve, reject) => {
      if (signal.aborted || this.#ended) {
        resolve(false);
        return;
      }
      const over = (): void => resolve(false);
      try {
        this.#call.write(this.#serialize(request), (error) => {
          signal.removeEventListener('abort', over);
          resolve(!error);
        });
        signal.addEventListener('abort', over, { once: true });
      } catch (error) {
        reject(error); // of the serializer: no such message
      }
    });
  }

  /** Writes all requests and ends the sending side; one that cannot be made cancels the call. Never rejects. */
  async send(requests: Requests<Request>): Promise<void> {
    try {
      for await (const request of requests(this.#over.signal)) {
        if (!(await this.write(request))) {
          return;
        }
        await setImmediate(); // the transport may take many messages in one turn, and all else would wait for its end
      }
      this.end();
    } catch (error) {
      if (!this.#over.signal.aborted) {
        this.failure = { error };
        this.#call.cancel();
      }
    }
  }

  /** No more requests come. */
  end(): void {
    if (!this.#ended && !this.#over.signal.aborted) {
      this.#ended = true;
      this.#call.end();
    }
  }

  /** The call is over: whoever still makes requests for it is told. */
  stop(): void {
    this.#over.abort();
  }
}
