/**
 * What a call may reject with, by the server's status.
 *
 *     MatchcutError
 *     ├── InvalidInputError        INVALID_ARGUMENT, OUT_OF_RANGE: a field is missing, malformed or out of range
 *     ├── NotFoundError            NOT_FOUND: no such item
 *     ├── FailedPreconditionError  FAILED_PRECONDITION: e.g. vectors of another encoder
 *     ├── OverloadedError          RESOURCE_EXHAUSTED: no place free, or a limit is reached
 *     ├── DeadlineExceededError    DEADLINE_EXCEEDED: `timeoutMs` is over
 *     ├── CancelledError           CANCELLED: by the server, or by closing the client
 *     ├── UnavailableError         UNAVAILABLE: the server cannot be reached or is shutting down
 *     ├── UnauthenticatedError     UNAUTHENTICATED: the token or certificate is missing or not accepted
 *     ├── NotAllowedError          PERMISSION_DENIED: an option of the server forbids it, e.g. --users off
 *     └── ServerError              any other: a fault of the server
 *
 * A call that is given up with an AbortSignal rejects with the signal's reason. What a caller's own media or callback
 * throws passes through as it is.
 */

import { status as Code, type Metadata, type ServiceError } from '@grpc/grpc-js';

import { details as rpc } from './contract.js';

/** What an error tells beside its message. */
export interface ErrorFields {
  code: string;
  reason?: string;
  field?: string;
  retryAfterMs?: number | undefined;
  cause?: unknown;
}

/** Anything that the server, or the way to it, answers instead of a reply. The gRPC error is the `cause`. */
export class MatchcutError extends Error {
  override readonly name: string;
  /** The gRPC status' name, e.g. "NOT_FOUND". */
  readonly code: string;
  /** Stable word in capitals, for programs, e.g. "ITEM_NOT_FOUND"; "" where the server gave none. */
  readonly reason: string;
  /** Path of the request field at fault, e.g. "item.item_id"; "" where none is. */
  readonly field: string;
  /** Milliseconds to wait before the next try; undefined where the server gave none. */
  readonly retryAfterMs: number | undefined;

  constructor(message: string, { code, reason = '', field = '', retryAfterMs, cause }: ErrorFields) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = new.target.name;
    this.code = code;
    this.reason = reason;
    this.field = field;
    this.retryAfterMs = retryAfterMs;
  }
}

/** A field is missing, malformed or out of range; `field` says which where the server knows. */
export class InvalidInputError extends MatchcutError {}

/** There is no such item. */
export class NotFoundError extends MatchcutError {}

/** The request does not fit the server's state, e.g. vectors of another encoder. */
export class FailedPreconditionError extends MatchcutError {}

/**
 * All places are taken, or a limit is reached; `retryAfterMs` says when to come back. With the reason
 * "DEVICE_MEMORY_FULL" it did not fit into the memory of the server's GPU: ask for less at once.
 */
export class OverloadedError extends MatchcutError {}

/** The call took longer than its timeout. */
export class DeadlineExceededError extends MatchcutError {}

/** The call was cancelled, by closing the client or by the server. */
export class CancelledError extends MatchcutError {}

/**
 * The server cannot be reached, or is shutting down. With the reason "DEVICE_LOST" its GPU is lost, and it has to be
 * started again before another try helps.
 */
export class UnavailableError extends MatchcutError {}

/** The token or certificate is missing, or not accepted. */
export class UnauthenticatedError extends MatchcutError {}

/** The server was started with an option that forbids it, e.g. --users off (reason USERS_OFF). */
export class NotAllowedError extends MatchcutError {}

/** Any other status: a fault of the server. */
export class ServerError extends MatchcutError {}

const BY_CODE: Record<string, typeof MatchcutError> = {
  INVALID_ARGUMENT: InvalidInputError,
  OUT_OF_RANGE: InvalidInputError,
  NOT_FOUND: NotFoundError,
  FAILED_PRECONDITION: FailedPreconditionError,
  RESOURCE_EXHAUSTED: OverloadedError,
  DEADLINE_EXCEEDED: DeadlineExceededError,
  CANCELLED: CancelledError,
  UNAVAILABLE: UnavailableError,
  UNAUTHENTICATED: UnauthenticatedError,
  PERMISSION_DENIED: NotAllowedError,
};

/** The error for a failed call of grpc-js. Anything that is no such failure is returned as it is. */
export function errorFrom(failure: unknown): unknown {
  if (!isServiceError(failure)) {
    return failure;
  }
  const code = Code[failure.code] ?? 'UNKNOWN';
  const message = failure.details || `The call failed with status ${code} and no message.`;
  return new (BY_CODE[code] ?? ServerError)(message, { code, ...detailsIn(failure.metadata), cause: failure });
}

function isServiceError(failure: unknown): failure is ServiceError {
  return failure instanceof Error && 'details' in failure && 'metadata' in failure && 'code' in failure;
}

/** What the trailers say that this client knows; nothing where a proxy garbled them. */
function detailsIn(trailers: Metadata): Partial<ErrorFields> {
  const found: Partial<ErrorFields> = {};
  try {
    for (const trailer of trailers.get('grpc-status-details-bin')) {
      for (const { type_url: url, value } of rpc.Status.deserialize(trailer as Buffer).details) {
        switch (url.slice(url.lastIndexOf('/') + 1)) {
          case 'google.rpc.ErrorInfo':
            found.reason = rpc.ErrorInfo.deserialize(value).reason;
            break;
          case 'google.rpc.BadRequest':
            found.field = rpc.BadRequest.deserialize(value).fieldViolations[0]?.field ?? '';
            break;
          case 'google.rpc.RetryInfo': {
            const delay = rpc.RetryInfo.deserialize(value).retryDelay;
            found.retryAfterMs = delay ? Math.max(0, delay.seconds * 1e3 + delay.nanos / 1e6) : 0;
          }
        }
      }
    }
  } catch {
    return {};
  }
  return found;
}
