/**
 * What the server answers: the contract's messages as plain objects, with the comments of the .proto files.
 *
 * Names are in camelCase, enums are their names as strings, bytes are Buffers, times are microseconds in numbers
 * (int64 on the wire: exact below 2^53, which is 285 years), fields without a value have their default, and messages
 * that are not set are null. The interfaces here add only which messages the server always sets.
 */

import type { GetItemResponse } from './generated/matchcut/v1/GetItemResponse.js';
import type { Encoder } from './generated/matchcut/v1/Encoder.js';
import type { IngestResponse } from './generated/matchcut/v1/IngestResponse.js';
import type { Item } from './generated/matchcut/v1/Item.js';
import type { ListItemsResponse } from './generated/matchcut/v1/ListItemsResponse.js';
import type { Match as AnyMatch } from './generated/matchcut/v1/Match.js';
import type { Reason } from './generated/matchcut/v1/Reason.js';
import type { RecommendForUserResponse } from './generated/matchcut/v1/RecommendForUserResponse.js';
import type { RecommendResponse } from './generated/matchcut/v1/RecommendResponse.js';
import type { RecordEventsResponse } from './generated/matchcut/v1/RecordEventsResponse.js';
import type { SessionModel } from './generated/matchcut/v1/SessionModel.js';
import type { StageTimes } from './generated/matchcut/v1/StageTimes.js';
import type { UserMatch as AnyUserMatch } from './generated/matchcut/v1/UserMatch.js';

export type { CountEventsResponse as EventCounts } from './generated/matchcut/v1/CountEventsResponse.js';
export type { ForgetUserResponse as Receipt } from './generated/matchcut/v1/ForgetUserResponse.js';
export type { ItemCount } from './generated/matchcut/v1/ItemCount.js';
export type { MediaReport } from './generated/matchcut/v1/MediaReport.js';
export type { Segment } from './generated/matchcut/v1/Segment.js';
export type { SwitchEncoderResponse as Switched } from './generated/matchcut/v1/SwitchEncoderResponse.js';
export type { TimeRange } from './generated/matchcut/v1/TimeRange.js';
export type { Variant } from './generated/matchcut/v1/Variant.js';
export type { Encoder, Item, Reason, SessionModel, StageTimes };


/** What an ingest kept. */
export interface Ingested extends IngestResponse {
  item: Item;
  encoder: Encoder;
  times: StageTimes;
}

/** One item, whole. */
export interface StoredItem extends GetItemResponse {
  item: Item;
  encoder: Encoder;
  times: StageTimes;
}

/** A part of a listing. */
export interface Page extends ListItemsResponse {
  encoder: Encoder;
  times: StageTimes;
}

/** One ranked item. */
export interface Match extends AnyMatch {
  item: Item;
}

/** A ranked list. */
export interface Ranking extends RecommendResponse {
  matches: Match[];
  encoder: Encoder;
  times: StageTimes;
}

/** One item of a user's list. */
export interface UserMatch extends AnyUserMatch {
  item: Item;
  reason: Reason;
}

/** A ranked list for a user. */
export interface UserRanking extends RecommendForUserResponse {
  matches: UserMatch[];
  model: SessionModel;
  encoder: Encoder;
  times: StageTimes;
}

/** What became of events. */
export type Recorded = Pick<RecordEventsResponse, 'recorded' | 'duplicates' | 'unknownItems' | 'expired'>;
