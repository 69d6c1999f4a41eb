/** When a call that failed is sent again: a policy, and the count of one call's tries. */

import { type MatchcutError, OverloadedError, UnavailableError } from './errors.js';

/**
 * Exponential backoff with jitter, for calls that are safe to send again.
 *
 * Sent again are reads, and ingests whose source can be read twice (a path, bytes, vectors), when the server is
 * unavailable or says when to come back. A removal is sent again only when the server refused to start it.
 */
export interface Retry {
  /** Tries in all; 1 means none again. Default: 4. */
  attempts: number;
  /** Milliseconds before the second try. Default: 100. */
  initialMs: number;
  /** The most milliseconds between two; a server that asks for more is not waited for. Default: 10000. */
  maximumMs: number;
  /** Growth of the pause from try to try. Default: 2. */
  multiplier: number;
}

/** The policy where none is given. */
export const DEFAULT_RETRY: Readonly<Retry> = { attempts: 4, initialMs: 100, maximumMs: 10_000, multiplier: 2 };

/** Errors after which a call may be sent again. */
export type Repeatable = readonly (typeof MatchcutError)[];

/** For reads, and what is idempotent: doing it twice is doing it once. */
export const READ: Repeatable = [UnavailableError, OverloadedError];
/** For what must not be done twice: it was certainly not begun. */
export const REFUSED: Repeatable = [OverloadedError];
/** For what cannot be sent again. */
export const NEVER: Repeatable = [];

/**
 * Milliseconds to wait after the failed try number `attempt` (from 1); undefined: give up.
 *
 * `draw` gives the jitter, uniform in [0, 1): a backoff shrinks by up to half, a server's wish grows by up to a
 * quarter, so that callers who were turned away together do not come back together.
 */
export function pauseAfter(
  attempt: number,
  error: MatchcutError,
  policy: Retry,
  draw: () => number = Math.random,
): number | undefined {
  if (attempt >= policy.attempts) {
    return undefined;
  }
  if (error.retryAfterMs !== undefined) {
    return error.retryAfterMs <= policy.maximumMs ? error.retryAfterMs * (1 + draw() / 4) : undefined;
  }
  if (error instanceof OverloadedError) {
    return undefined; // a limit, such as a message's size, that waiting does not lift
  }
  return Math.min(policy.maximumMs, policy.initialMs * policy.multiplier ** (attempt - 1)) * (1 - draw() / 2);
}

/** The tries of one call, which share its timeout: Infinity is no bound. */
export class Attempts {
  readonly #policy: Retry;
  readonly #repeatable: Repeatable;
  readonly #now: () => number;
  readonly #end: number;
  #made = 0;

  constructor(policy: Retry, repeatable: Repeatable, timeoutMs: number, now = () => performance.now()) {
    this.#policy = policy;
    this.#repeatable = repeatable;
    this.#now = now;
    this.#end = now() + timeoutMs;
  }

  /** Milliseconds left for the next try. */
  get remainingMs(): number {
    return Math.max(0, this.#end - this.#now());
  }

  /** Counts a failed try; milliseconds to wait before the next one, or undefined: pass the error on. */
  pause(error: MatchcutError, draw?: () => number): number | undefined {
    this.#made += 1;
    if (!this.#repeatable.some((kind) => error instanceof kind)) {
      return undefined;
    }
    const pause = pauseAfter(this.#made, error, this.#policy, draw);
    return pause !== undefined && pause < this.remainingMs ? pause : undefined;
  }
}
