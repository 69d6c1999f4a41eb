/**
 * Client of a matchcut server: video in, ranked items out.
 *
 * Results are the contract's messages as plain objects, see results.ts; times are microseconds.
 */

export { Client } from './client.js';
export {
  CancelledError,
  DeadlineExceededError,
  FailedPreconditionError,
  InvalidInputError,
  MatchcutError,
  NotAllowedError,
  NotFoundError,
  OverloadedError,
  ServerError,
  UnauthenticatedError,
  UnavailableError,
} from './errors.js';
export { EventKind } from './generated/matchcut/v1/EventKind.js';
export { IngestOutcome } from './generated/matchcut/v1/IngestOutcome.js';
export { PixelFormat } from './generated/matchcut/v1/PixelFormat.js';
export { ShotMode } from './generated/matchcut/v1/ShotMode.js';
export { Temporal } from './generated/matchcut/v1/Temporal.js';
export type { LiveList } from './live_list.js';
export type * from './options.js';
export type * from './results.js';
export type { Retry } from './retry.js';
export type { ContainerSource, Pieces, Progress } from './sources.js';
