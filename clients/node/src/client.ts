/** The client: a method for each thing that a server does. */

import { Connection, type Limits } from './connection.js';
import { methods } from './contract.js';
import { ServerError } from './errors.js';
import type { IngestHeaderInput } from './generated/matchcut/v1/IngestHeader.js';
import type { IngestRequestInput } from './generated/matchcut/v1/IngestRequest.js';
import type { RecommendLiveRequestInput } from './generated/matchcut/v1/RecommendLiveRequest.js';
import { LiveList } from './live_list.js';
import type * as Options from './options.js';
import type { Requests } from './outlet.js';
import {
  batches,
  kindOf,
  type Media,
  mediaHeader,
  ofContainer,
  ofFrames,
  ofPictures,
  packClip,
  packEvent,
  packItem,
  packMedia,
  packQuery,
  requests,
} from './packing.js';
import type * as Results from './results.js';
import { NEVER, READ, REFUSED, type Repeatable } from './retry.js';
import { container, type ContainerSource, digest, Meter, type Pieces, type Source } from './sources.js';

/** Bytes; a larger clip is better decoded while it arrives. The server takes 64 MiB in one message. */
const ONE_MESSAGE = 8 * 1024 * 1024;
/** Frames per update, where only the last ranking is wanted. */
const NO_UPDATES = 2 ** 31 - 1;
/** Events a call. */
const BATCH = 500;

/**
 * A connection to a matchcut server, for any number of calls at once. It connects with the first call; call close()
 * when it is no longer needed.
 *
 *     const client = new Client('localhost:7411', { timeoutMs: 60_000 });
 *     await client.ingest('film', 'film.mp4', { tags: ['drama'] });
 *     for (const { item, score } of (await client.recommend({ clip: 'scene.mp4' }, { limit: 5 })).matches) {
 *       console.log(item.itemId, score);
 *     }
 *     client.close();
 *
 * Methods reject with the errors of errors.ts.
 */
export class Client {
  readonly #connection: Connection;
  readonly #tenant: string;

  /** `target` is host:port, or any name that gRPC resolves. */
  constructor(target = 'localhost:7411', options: Options.ConnectOptions = {}) {
    this.#tenant = options.tenant ?? '';
    this.#connection = new Connection(target, options);
  }

  /** Cancels what is under way and closes the connection. */
  close(): void {
    this.#connection.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** "SERVING" or "NOT_SERVING" for the server, or for one service of it; NotFoundError if it has no such one. */
  async health(service = '', options: Options.CallOptions = {}): Promise<string> {
    return (await this.#connection.unary(methods.check, { service }, options, READ)).status;
  }

  /**
   * Puts one item in from a container. Paths and bytes are hashed first, so an item that is there already costs no
   * upload. Nothing is kept where the source fails, which cancels the call.
   */
  async ingest(
    itemId: string,
    source: ContainerSource,
    options: Options.UploadOptions = {},
  ): Promise<Results.Ingested> {
    const bytes = await container(source);
    const media = ofContainer(bytes, options.format);
    const meter = new Meter(options.onProgress, bytes.size);
    // Of a part the server could not tell whether the digest is right.
    const hashed = Number(options.limits?.bytes ?? 0) === 0 ? bytes : undefined;
    return this.#ingest(itemId, media, options, bytes.replayable ? READ : NEVER, meter, hashed);
  }

  /** Puts one item in from decoded frames, all of the size and layout that `form` says. */
  ingestFrames(
    itemId: string,
    frames: Options.Frames,
    form: Options.FrameFormInput,
    options: Options.IngestOptions = {},
  ): Promise<Results.Ingested> {
    return this.#ingest(itemId, ofFrames(frames, form), options);
  }

  /** Puts one item in from JPEG or PNG pictures. */
  ingestPictures(
    itemId: string,
    pictures: Options.Pictures,
    options: Options.IngestOptions = {},
  ): Promise<Results.Ingested> {
    return this.#ingest(itemId, ofPictures(pictures), options);
  }

  /** Puts one item in from vectors, one a segment. */
  ingestVectors(
    itemId: string,
    segments: Options.VectorSegment[],
    options: Options.VectorOptions = {},
  ): Promise<Results.Ingested> {
    const { encoder, forNextEncoder } = options;
    const packed = segments.map(({ range, vector }) => ({ range, vector: Array.from(vector) }));
    const item = packItem(itemId, options);
    const request = { tenant: this.#tenant, item, segments: packed, encoder, forNextEncoder };
    return this.#connection.unary(methods.ingestVectors, request, options, READ);
  }

  /** One item with its segments, and their vectors if asked for. NotFoundError if there is none. */
  get(itemId: string, options: Options.CallOptions & { vectors?: boolean } = {}): Promise<Results.StoredItem> {
    const request = { tenant: this.#tenant, itemId, includeVectors: options.vectors };
    return this.#connection.unary(methods.getItem, request, options, READ);
  }

  /** Some of the tenant's items in the order of their ids; `pageToken` is the `nextPageToken` of the page before. */
  page(options: Options.ListOptions & { pageToken?: string } = {}): Promise<Results.Page> {
    const { pageSize, pageToken, tags, lackingNextEncoder } = options;
    const request = { tenant: this.#tenant, pageSize, pageToken, tags, lackingNextEncoder };
    return this.#connection.unary(methods.listItems, request, options, READ);
  }

  /** The tenant's items in the order of their ids; pages are asked for as they are needed, each with a timeout. */
  async *items(options: Options.ListOptions = {}): AsyncGenerator<Results.Item, void, undefined> {
    let pageToken = '';
    do {
      const page = await this.page({ ...options, pageToken });
      yield* page.items;
      pageToken = page.nextPageToken;
    } while (pageToken);
  }

  /** Removes one item and returns true. NotFoundError if there is none, or false with `allowMissing`. */
  async remove(itemId: string, options: Options.CallOptions & { allowMissing?: boolean } = {}): Promise<boolean> {
    const request = { tenant: this.#tenant, itemId, allowMissing: options.allowMissing };
    return (await this.#connection.unary(methods.removeItem, request, options, REFUSED)).removed;
  }

  /**
   * Lets the server's next encoder take over, for the items of all tenants; with `dryRun` only tells how it stands.
   * FailedPreconditionError if there is no next encoder, or if items lack its vectors; with `force` those stay as they
   * are.
   */
  switchEncoder(
    options: Options.CallOptions & { force?: boolean; dryRun?: boolean } = {},
  ): Promise<Results.Switched> {
    const { force, dryRun } = options;
    return this.#connection.unary(methods.switchEncoder, { force, dryRun }, options, dryRun ? READ : REFUSED);
  }

  /**
   * Ranks the catalogue once against items of it, a vector, or a clip. A clip too large for one message, or of unknown
   * length, goes through RecommendLive; its last ranking is returned.
   */
  async recommend(query: Options.QuerySource, options: Options.QueryOptions = {}): Promise<Results.Ranking> {
    const kind = kindOf(query);
    if (kind === undefined) {
      throw new TypeError('recommend takes one of items, vector and clip');
    }
    const request = { tenant: this.#tenant, options };
    if (query.clip === undefined) {
      return this.#connection.unary(methods.recommend, { ...request, query: packQuery(query) }, options, READ);
    }
    const clip = await container(query.clip);
    return this.#connection.answer(options, clip.replayable ? READ : NEVER, async (limits) => {
      if (clip.size === undefined || clip.size > ONE_MESSAGE) {
        return this.#last(ofContainer(clip, query.format), options, limits);
      }
      const packed = await packClip(clip, query.format, options, limits.signal);
      return this.#connection.ask(methods.recommend, { ...request, query: packed }, limits);
    });
  }

  /**
   * Ranks again and again while a container arrives. The call starts with the first step of the iteration; leaving the
   * loop cancels it. To end it while a ranking is waited for, use `signal`.
   */
  async *live(
    source: ContainerSource,
    options: Options.LiveOptions & Options.ContainerOptions = {},
  ): AsyncGenerator<Results.Ranking, void, undefined> {
    yield* this.#live(ofContainer(await container(source), options.format), options);
  }

  /** The same while decoded frames arrive, all of the size and layout that `form` says. */
  liveFrames(
    frames: Options.Frames,
    form: Options.FrameFormInput,
    options: Options.LiveOptions = {},
  ): AsyncGenerator<Results.Ranking, void, undefined> {
    return this.#live(ofFrames(frames, form), options);
  }

  /** The same while JPEG or PNG pictures arrive. */
  livePictures(
    pictures: Options.Pictures,
    options: Options.LiveOptions = {},
  ): AsyncGenerator<Results.Ranking, void, undefined> {
    return this.#live(ofPictures(pictures), options);
  }

  /**
   * Records events in calls of 500, each durable when it is answered; returns how many are new, known, of unknown items
   * and expired. Where one fails, those before it are kept, and all may be recorded again: what is there already
   * changes nothing. An event with neither `eventId` nor `timeUs` gets a random id, so that it can be sent again.
   */
  async record(events: Pieces<Options.EventInput>, options: Options.RecordOptions = {}): Promise<Results.Recorded> {
    let total: Results.Recorded = { recorded: 0, duplicates: 0, unknownItems: 0, expired: 0 };
    for await (const batch of batches(events, BATCH)) {
      const request = { tenant: this.#tenant, events: batch.map(packEvent) };
      const done = await this.#connection.unary(methods.recordEvents, request, options, READ);
      total = {
        recorded: total.recorded + done.recorded,
        duplicates: total.duplicates + done.duplicates,
        unknownItems: total.unknownItems + done.unknownItems,
        expired: total.expired + done.expired,
      };
      options.onProgress?.(total);
    }
    return total;
  }

  /** Deletes all that the server keeps of a user. Counts of 0 tell that there was nothing. */
  forget(userId: string, options: Options.CallOptions = {}): Promise<Results.Receipt> {
    return this.#connection.unary(methods.forgetUser, { tenant: this.#tenant, userId }, options, REFUSED);
  }

  /** How many users did what with these items; where none are named, with the `limit` that have the most users. */
  countEvents(
    itemIds: string[] = [],
    options: Options.CallOptions & { limit?: number } = {},
  ): Promise<Results.EventCounts> {
    const request = { tenant: this.#tenant, itemIds, limit: options.limit };
    return this.#connection.unary(methods.countEvents, request, options, READ);
  }

  /**
   * What a user should see now, of what the user did and of what is of interest right now. `userId` may be "" where a
   * `history` is given. A clip of `current` goes in one message.
   */
  async recommendFor(userId: string, options: Options.UserQueryOptions = {}): Promise<Results.UserRanking> {
    const { current = {}, history } = options;
    const kind = kindOf(current);
    const request = {
      tenant: this.#tenant,
      userId,
      options,
      userOptions: options,
      history: history?.map(packEvent),
      ...(kind && kind !== 'clip' && { current: packQuery(current) }),
    };
    if (current.clip === undefined) {
      return this.#connection.unary(methods.recommendForUser, request, options, READ);
    }
    const clip = await container(current.clip);
    return this.#connection.answer(options, clip.replayable ? READ : NEVER, async (limits) => {
      const packed = await packClip(clip, current.format, options, limits.signal);
      return this.#connection.ask(methods.recommendForUser, { ...request, current: packed }, limits);
    });
  }

  /** A user's list that follows what the user does. Without live media its first list is there when this resolves. */
  async recommendLiveFor(userId: string, options: Options.UserLiveOptions = {}): Promise<LiveList> {
    const media = options.media && (await packMedia(options.media));
    const { limits, leave } = this.#connection.enter(options);
    const list = new LiveList(this.#connection.exchange(methods.recommendForUserLive, limits), leave);
    const header = { tenant: this.#tenant, userId, options, userOptions: options };
    await list.begin(media ? { ...header, media: mediaHeader(media.form, options) } : header, media);
    return list;
  }

  #ingest(
    itemId: string,
    media: Media,
    options: Options.IngestOptions,
    repeatable: Repeatable = NEVER,
    meter?: Meter,
    hashed?: Source,
  ): Promise<Results.Ingested> {
    const header: IngestHeaderInput = {
      tenant: this.#tenant,
      item: packItem(itemId, options),
      media: mediaHeader(media.form, options),
      forNextEncoder: options.forNextEncoder,
    };
    const first = async (signal: AbortSignal): Promise<IngestRequestInput> => ({
      header: hashed ? { ...header, contentSha256: await digest(hashed, signal) } : header,
    });
    const all = requests(first, media, [{ end: {} }], meter);
    return this.#connection.answer(options, repeatable, (limits) =>
      this.#connection.upload(methods.ingest, all, limits),
    );
  }

  #live(media: Media, options: Options.LiveOptions): AsyncGenerator<Results.Ranking, void, undefined> {
    return this.#connection.stream(methods.recommendLive, this.#liveRequests(media, options), options);
  }

  async #last(media: Media, options: Options.QueryOptions, limits: Limits): Promise<Results.Ranking> {
    const all = this.#liveRequests(media, { ...options, framesPerUpdate: NO_UPDATES });
    let last: Results.Ranking | undefined;
    for await (const ranking of this.#connection.streamOnce(methods.recommendLive, all, limits)) {
      last = ranking;
    }
    if (!last) {
      throw new ServerError('The server ended the call without a reply.', { code: 'INTERNAL' });
    }
    return last;
  }

  #liveRequests(media: Media, options: Options.LiveOptions): Requests<RecommendLiveRequestInput> {
    const { latestOnly, temporal, resume } = options;
    const header = {
      tenant: this.#tenant,
      media: mediaHeader(media.form, options),
      options,
      latestOnly,
      temporal,
      resume,
    };
    return requests(() => ({ header }), media);
  }
}
