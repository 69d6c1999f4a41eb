/** What callers may say. Whatever is left out means the server's default. */

import type { ItemInput } from './generated/matchcut/v1/Item.js';
import type { EncoderInput } from './generated/matchcut/v1/Encoder.js';
import type { EventInput } from './generated/matchcut/v1/Event.js';
import type { FrameFormInput } from './generated/matchcut/v1/FrameForm.js';
import type { FrameInput } from './generated/matchcut/v1/Frame.js';
import type { MediaHeaderInput } from './generated/matchcut/v1/MediaHeader.js';
import type { PictureInput } from './generated/matchcut/v1/Picture.js';
import type { RankOptionsInput } from './generated/matchcut/v1/RankOptions.js';
import type { TagFilterInput } from './generated/matchcut/v1/TagFilter.js';
import type { TemporalInput } from './generated/matchcut/v1/Temporal.js';
import type { TimeRangeInput } from './generated/matchcut/v1/TimeRange.js';
import type { UserOptionsInput } from './generated/matchcut/v1/UserOptions.js';
import type { Recorded } from './results.js';
import type { Retry } from './retry.js';
import type { ContainerSource, Pieces, Progress } from './sources.js';

export type { EncoderInput, EventInput, FrameFormInput, FrameInput, PictureInput, TagFilterInput, TimeRangeInput };

/** Where the server is and who is calling. */
export interface ConnectOptions {
  /** Whose catalogue; "" is the default tenant. */
  tenant?: string;
  /** Bearer token, sent with each call; in clear text unless `tls` is on. */
  token?: string | undefined;
  /** True: TLS with the well-known authorities; a path: TLS with the authorities in that PEM file. Else plaintext. */
  tls?: boolean | string | undefined;
  /** Paths of this client's own PEM certificate chain and key, where the server asks for one. */
  certificate?: { chain: string; key: string } | undefined;
  /** Milliseconds that a call may take, its retries included. Live calls have none of this. Default: no bound. */
  timeoutMs?: number | undefined;
  /** When to send a failed call again; `{ attempts: 1 }`: never. */
  retry?: Partial<Retry>;
}

/** Of every call. */
export interface CallOptions {
  /** Milliseconds in place of the client's timeout; Infinity: no bound. */
  timeoutMs?: number | undefined;
  /** Gives the call up, which then rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** What is known of an item. */
export type ItemOptions = Pick<ItemInput, 'title' | 'uri' | 'tags' | 'attributes'>;

/** How media is read: which frames, up to where, and segments known beforehand. */
export type MediaOptions = Pick<MediaHeaderInput, 'sampling' | 'limits' | 'segments'>;

/** Of a container. */
export interface ContainerOptions {
  /** The container's short name, e.g. "mpegts", with which a first ranking comes earlier. Not set: detected. */
  format?: string;
}

/** A part of an item in time, with a vector of its own; the range is left out where it is unknown. */
export interface VectorSegment {
  range?: TimeRangeInput | undefined;
  /** Need not be of unit length. */
  vector: ArrayLike<number>;
}

/** Of an ingest from vectors. */
export interface VectorOptions extends ItemOptions, CallOptions {
  /** Which encoder made them. Not set: the one that the server runs. */
  encoder?: EncoderInput;
  /** They are for the server's next encoder, kept aside until it takes over; the item has to be there. */
  forNextEncoder?: boolean;
}

/** Of an ingest from frames or pictures. */
export interface IngestOptions extends ItemOptions, MediaOptions, CallOptions {
  /** It is for the server's next encoder, kept aside until it takes over; the item has to be there. */
  forNextEncoder?: boolean;
}

/** Of an ingest from a container. */
export interface UploadOptions extends IngestOptions, ContainerOptions {
  /** Told as bytes leave. */
  onProgress?: Progress;
}

/** Of a listing. */
export interface ListOptions extends CallOptions {
  /** Most items in one reply, at most 1000. */
  pageSize?: number;
  /** Only items that pass. */
  tags?: TagFilterInput;
  /** Only items that have no vectors of the server's next encoder yet. */
  lackingNextEncoder?: boolean;
}

/** How to rank, and what may be ranked. */
export type RankOptions = Pick<RankOptionsInput, 'limit' | 'excludeItemIds' | 'tags' | 'minimumScore'>;

/** Of one ranking; MediaOptions and `temporal` are for clips. */
export interface QueryOptions extends RankOptions, MediaOptions, CallOptions {
  /** How frames become what is compared: a vector for each segment, or one, the state of a GRU after the last frame. */
  temporal?: TemporalInput;
}

/** Of rankings that go on; `timeoutMs` is for the whole call. */
export interface LiveOptions extends QueryOptions {
  /** Rank again after this many more used frames. */
  framesPerUpdate?: number;
  /** Of pictures and frames that come too fast the oldest are dropped, so that rankings follow what is now. */
  latestOnly?: boolean;
  /** With TEMPORAL_GRU: the `resume` of a ranking of a call that was broken off, to go on from there. */
  resume?: Uint8Array;
}

/** What to compare with: exactly one of items of the catalogue, a vector, and a clip. */
export interface QuerySource extends ContainerOptions {
  /** Ids of items of the catalogue. */
  items?: string[];
  /** Let those items be ranked too. */
  includeThemselves?: boolean;
  /** A vector. */
  vector?: ArrayLike<number>;
  /** Which encoder made the vector. Not set: the one that the server runs. */
  encoder?: EncoderInput;
  /** A clip, as `ingest` takes it. */
  clip?: ContainerSource;
}

/** Of a user's list. */
export interface UserQueryOptions extends QueryOptions, UserOptionsInput {
  /** What is of interest right now: blended in with the history. */
  current?: QuerySource;
  /** Used instead of what is kept of the user; the events need not name one. Nothing of the call is kept. */
  history?: EventInput[];
}

/** Of a user's live list; `timeoutMs` is for the whole call. */
export interface UserLiveOptions extends RankOptions, UserOptionsInput, MediaOptions, CallOptions {
  /** With live media: a new list after this many more used frames. */
  framesPerUpdate?: number;
  /** Live media that is of interest meanwhile; its end is the end of the call. */
  media?: LiveMedia;
}

/** Live media: a container as `live` takes it, frames as `liveFrames`, or pictures as `livePictures`. */
export type LiveMedia =
  | { clip: ContainerSource; format?: string }
  | { frames: Frames; form: FrameFormInput }
  | { pictures: Pictures };

/** Of recording events. */
export interface RecordOptions extends CallOptions {
  /** Told after each call what became of all events so far. */
  onProgress?: (soFar: Recorded) => void;
}

/** Decoded frames, all of one size, rows packed. */
export type Frames = Pieces<FrameInput>;

/** JPEG or PNG files. */
export type Pictures = Pieces<PictureInput>;
