/** Media and queries as the contract's messages. Nothing here sends anything. */

import { randomUUID } from 'node:crypto';

import type { EventInput } from './generated/matchcut/v1/Event.js';
import type { FrameFormInput } from './generated/matchcut/v1/FrameForm.js';
import type { ItemInput } from './generated/matchcut/v1/Item.js';
import type { MediaChunkInput } from './generated/matchcut/v1/MediaChunk.js';
import type { MediaHeaderInput } from './generated/matchcut/v1/MediaHeader.js';
import type { QueryInput } from './generated/matchcut/v1/Query.js';
import type { Frames, ItemOptions, LiveMedia, MediaOptions, Pictures, QueryOptions, QuerySource } from './options.js';
import type { Requests } from './outlet.js';
import { collect, container, type Meter, type Source, until } from './sources.js';

/** Media on its way: what its header says of its form, and its chunks. */
export interface Media {
  form: Pick<MediaHeaderInput, 'container' | 'pictures' | 'frames'>;
  chunks(signal: AbortSignal): AsyncIterable<MediaChunkInput>;
}

/** A container's bytes. */
export function ofContainer(source: Source, format = ''): Media {
  return {
    form: { container: { format } },
    async *chunks(signal) {
      for await (const data of source.pieces(signal)) {
        yield { data };
      }
    },
  };
}

/** Decoded frames. */
export function ofFrames(frames: Frames, form: FrameFormInput): Media {
  return {
    form: { frames: form },
    async *chunks(signal) {
      for await (const frame of until(signal, frames)) {
        yield { frame };
      }
    },
  };
}

/** JPEG or PNG files. */
export function ofPictures(pictures: Pictures): Media {
  return {
    form: { pictures: {} },
    async *chunks(signal) {
      for await (const picture of until(signal, pictures)) {
        yield { picture };
      }
    },
  };
}

/** Whichever of them is given for a user's live list. */
export async function packMedia(media: LiveMedia): Promise<Media> {
  if ('clip' in media) {
    return ofContainer(await container(media.clip), media.format);
  }
  return 'frames' in media ? ofFrames(media.frames, media.form) : ofPictures(media.pictures);
}

/** The requests of one call: `first` makes the one that comes before the chunks; `meter` is told of what has left. */
export function requests<Request>(
  first: (signal: AbortSignal) => Request | Promise<Request>,
  media: Media,
  last: readonly Request[] = [],
  meter?: Meter,
): Requests<Request | { chunk: MediaChunkInput }> {
  return async function* (signal) {
    meter?.restart();
    yield await first(signal);
    for await (const chunk of media.chunks(signal)) {
      yield { chunk };
      meter?.add(chunk.data?.length ?? 0); // the next one is asked for when this one has left
    }
    yield* last;
  };
}

/** An item as the caller knows it. */
export function packItem(itemId: string, { title, uri, tags, attributes }: ItemOptions): ItemInput {
  return { itemId, title, uri, tags, attributes };
}

/** What comes before the chunks. */
export function mediaHeader(form: Media['form'], { sampling, limits, segments }: MediaOptions): MediaHeaderInput {
  return { ...form, sampling, limits, segments };
}

/** Which of items, vector and clip is given. TypeError for more than one. */
export function kindOf(query: QuerySource): 'items' | 'vector' | 'clip' | undefined {
  const kinds = (['items', 'vector', 'clip'] as const).filter((kind) => query[kind] !== undefined);
  if (kinds.length > 1) {
    throw new TypeError(`a query is one of items, vector and clip, not ${kinds.join(' and ')}`);
  }
  return kinds[0];
}

/** A query without a clip. */
export function packQuery(query: QuerySource): QueryInput {
  return query.items
    ? { items: { itemIds: query.items, includeThemselves: query.includeThemselves } }
    : { vector: { values: Array.from(query.vector ?? []), encoder: query.encoder } };
}

/** A query with a clip, which is read. */
export async function packClip(
  clip: Source,
  format: string | undefined,
  options: QueryOptions,
  signal: AbortSignal,
): Promise<QueryInput> {
  const media = mediaHeader(ofContainer(clip, format).form, options);
  const chunks = (await collect(clip, signal)).map((data) => ({ data }));
  return { clip: { media, chunks, temporal: options.temporal } };
}

/** An event that can be sent again: it has an id of its own unless the server would make the same one each time. */
export function packEvent(event: EventInput): EventInput {
  // Without a time the server's id would be of the time at which a try reaches it.
  return event.eventId || Number(event.timeUs ?? 0) !== 0 ? event : { ...event, eventId: newEventId() };
}

/** A random id. */
export function newEventId(): string {
  return randomUUID().replaceAll('-', '');
}

/** The events in parts of at most `size`. */
export async function* batches<T>(all: Iterable<T> | AsyncIterable<T>, size: number): AsyncGenerator<T[]> {
  let batch: T[] = [];
  for await (const one of all) {
    batch.push(one);
    if (batch.length === size) {
      yield batch;
      batch = [];
    }
  }
  if (batch.length > 0) {
    yield batch;
  }
}
