/** A user's list that follows what the user does: events go out, lists come back. */

import type { Exchange } from './connection.js';
import { ServerError } from './errors.js';
import type { RecommendForUserLiveHeaderInput } from './generated/matchcut/v1/RecommendForUserLiveHeader.js';
import type { RecommendForUserLiveRequestInput } from './generated/matchcut/v1/RecommendForUserLiveRequest.js';
import type { EventInput } from './options.js';
import { type Media, newEventId } from './packing.js';
import type { UserRanking } from './results.js';

/** Lists that wait for whoever iterates; the oldest of more are left out. */
const ROOM = 16;

interface Waiter {
  resolve: (ranking: UserRanking) => void;
  reject: (error: unknown) => void;
}

/**
 * A user's live list, of Client.recommendLiveFor(). Iterating over it gives the lists that answer no event, e.g. those
 * that live media makes; leaving the iteration does not end the call. Call end() or close().
 */
export class LiveList implements AsyncIterable<UserRanking> {
  readonly #exchange: Exchange<RecommendForUserLiveRequestInput, UserRanking>;
  readonly #waiting = new Map<string, Waiter>();
  readonly #kept: UserRanking[] = [];
  readonly #finished: Promise<void>;
  readonly #wake: (() => void)[] = [];
  #ranking: UserRanking | undefined;
  #over: { error: unknown; failed: boolean } | undefined;

  /** Not for callers: `leave` is called when the call is over. */
  constructor(exchange: Exchange<RecommendForUserLiveRequestInput, UserRanking>, leave: () => void) {
    this.#exchange = exchange;
    this.#finished = this.#receive().finally(leave);
  }

  /** Not for callers: sends the header, then media where there is some, else waits for the first list. */
  async begin(header: RecommendForUserLiveHeaderInput, media: Media | undefined): Promise<void> {
    const { outlet } = this.#exchange;
    try {
      await outlet.write({ header });
      if (media) {
        void outlet.send((signal) => chunksOf(media, signal));
      } else if (!(await this.#next())) {
        throw this.#over?.error;
      }
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** The newest list; undefined before the first, for which live media has to come. */
  get ranking(): UserRanking | undefined {
    return this.#ranking;
  }

  /**
   * Tells what the user did and returns the list that answers it, by when the event is durable. `userId` may be left
   * out, and an event without `eventId` gets one. Events may be told before earlier ones are answered.
   */
  async event(event: EventInput): Promise<UserRanking> {
    const eventId = event.eventId || newEventId();
    if (this.#over) {
      throw this.#over.error;
    }
    if (this.#waiting.has(eventId)) {
      throw new TypeError(`an event with the id ${eventId} is under way already`);
    }
    const answer = new Promise<UserRanking>((resolve, reject) => this.#waiting.set(eventId, { resolve, reject }));
    answer.catch(() => undefined); // it may be rejected while the event is being written
    try {
      await this.#exchange.outlet.write({ event: { ...event, eventId } });
    } catch (error) {
      this.#waiting.delete(eventId);
      throw error;
    }
    return answer;
  }

  /** Ends the call and returns the last list. */
  async end(): Promise<UserRanking> {
    this.#exchange.outlet.end();
    await this.#finished;
    if (this.#ranking?.final) {
      return this.#ranking;
    }
    throw this.#over?.error;
  }

  /** Cancels the call, unless it has ended. */
  close(): void {
    this.#exchange.cancel();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<UserRanking, void, undefined> {
    for (let ranking = await this.#next(); ranking; ranking = await this.#next()) {
      yield ranking;
    }
  }

  /** The next list that answers no event; undefined at the end of the call. */
  async #next(): Promise<UserRanking | undefined> {
    while (this.#kept.length === 0 && !this.#over) {
      await new Promise<void>((resolve) => this.#wake.push(resolve));
    }
    const ranking = this.#kept.shift();
    if (!ranking && this.#over?.failed) {
      throw this.#over.error;
    }
    return ranking;
  }

  async #receive(): Promise<void> {
    let error: unknown = new ServerError('The call has ended; no more lists come.', { code: 'INTERNAL' });
    let failed = false;
    try {
      for await (const ranking of this.#exchange.replies) {
        this.#ranking = ranking;
        this.#sort(ranking);
      }
    } catch (failure) {
      error = failure;
      failed = true;
    }
    this.#over = { error, failed };
    for (const { reject } of this.#waiting.values()) {
      reject(error);
    }
    this.#waiting.clear();
    this.#tell();
  }

  /** To the event that it answers, or to whoever iterates. */
  #sort(ranking: UserRanking): void {
    const waiter = this.#waiting.get(ranking.eventId);
    if (waiter) {
      this.#waiting.delete(ranking.eventId);
      waiter.resolve(ranking);
      return;
    }
    this.#kept.push(ranking);
    if (this.#kept.length > ROOM) {
      this.#kept.shift();
    }
    this.#tell();
  }

  #tell(): void {
    for (const wake of this.#wake.splice(0)) {
      wake();
    }
  }
}

async function* chunksOf(media: Media, signal: AbortSignal): AsyncGenerator<RecommendForUserLiveRequestInput> {
  for await (const chunk of media.chunks(signal)) {
    yield { chunk };
  }
}
