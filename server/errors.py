"""Every error that a caller can be told of, and the gRPC status that tells it.

MatchcutError
├── InvalidInput            INVALID_ARGUMENT     a field is missing, malformed or out of range
│   ├── UnreadableMedia     INVALID_ARGUMENT     not media, or of a kind that is not accepted
│   └── MediaLimitExceeded  INVALID_ARGUMENT     more pixels, bytes, frames or seconds than the server takes
├── NotFound                NOT_FOUND            no such item, no such model
├── Unavailable             UNAVAILABLE          a model is there but not loaded, or is being replaced; or a file of
│                                                the store is gone from the disk (STORE_GONE)
├── Unauthenticated         UNAUTHENTICATED      no valid token
├── EncoderMismatch         FAILED_PRECONDITION  vectors of another encoder
├── Overloaded              RESOURCE_EXHAUSTED   no place free now: retry after a while
├── DeadlineExceeded        DEADLINE_EXCEEDED    the caller's time is over
├── Cancelled               CANCELLED            the caller went away
├── NotAllowed              PERMISSION_DENIED    the server was started with an option that forbids it
├── Unsupported             UNIMPLEMENTED        a protocol knows it, this server does not
├── AlreadyThere            ALREADY_EXISTS       the name is taken
├── StoreFailed             INTERNAL             the disk failed or is full (STORE_FULL); nothing was changed. Or
│                                                readers keep what was deleted from being wiped (STORE_BUSY)
├── EngineFailed            INTERNAL             the encoder could not be loaded or run
└── DeviceFailed            INTERNAL             the GPU refused something
    ├── DeviceFull          RESOURCE_EXHAUSTED   this did not fit into the GPU's memory; other work goes on
    └── DeviceLost          UNAVAILABLE          the GPU answers no more; the server has to be started again

`reason` is stable, for programs (google.rpc.ErrorInfo); the message is for people and says what to do.
Nothing here knows gRPC: `code` is the status' name.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AlreadyThere",
    "Cancelled",
    "DeadlineExceeded",
    "DeviceFailed",
    "DeviceFull",
    "DeviceLost",
    "EncoderMismatch",
    "EngineFailed",
    "InvalidInput",
    "MatchcutError",
    "MediaLimitExceeded",
    "NotAllowed",
    "NotFound",
    "Overloaded",
    "StoreFailed",
    "Unauthenticated",
    "Unavailable",
    "UnreadableMedia",
    "Unsupported",
]


class MatchcutError(Exception):
    """Anything that matchcut tells a caller.

    Args:
        message: one sentence that says what is wrong and what to do.
        reason: stable word in capitals; the class's own where not given.
        field: path of the request field at fault, e.g. "item.item_id"; "" where none is.
    """

    code: ClassVar[str] = "INTERNAL"
    reason: str = "INTERNAL"

    def __init__(self, message: str, *, reason: str = "", field: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or type(self).reason
        self.field = field


class InvalidInput(MatchcutError):
    """A field is missing, malformed or out of range."""

    code = "INVALID_ARGUMENT"
    reason = "INVALID_INPUT"


class UnreadableMedia(InvalidInput):
    """The bytes are not media, hold no video, or are of a kind that is not accepted."""

    reason = "UNREADABLE_MEDIA"


class MediaLimitExceeded(InvalidInput):
    """The media has more pixels, bytes, frames or seconds than this server takes."""

    reason = "MEDIA_LIMIT_EXCEEDED"


class NotFound(MatchcutError):
    """There is no such item."""

    code = "NOT_FOUND"
    reason = "ITEM_NOT_FOUND"


class Unavailable(MatchcutError):
    """What is asked for is known, but cannot be used at present, or nothing can be kept any more."""

    code = "UNAVAILABLE"
    reason = "MODEL_UNAVAILABLE"


class Unauthenticated(MatchcutError):
    """The call carries no token, or none that is accepted."""

    code = "UNAUTHENTICATED"
    reason = "TOKEN_INVALID"


class EncoderMismatch(MatchcutError):
    """The vectors were made by another encoder than those they should be compared with."""

    code = "FAILED_PRECONDITION"
    reason = "ENCODER_MISMATCH"


class Overloaded(MatchcutError):
    """All places are taken.

    Args:
        retry_after_us: how long to wait before the next try, in microseconds.
    """

    code = "RESOURCE_EXHAUSTED"
    reason = "OVERLOADED"

    def __init__(self, message: str, *, retry_after_us: int = 1_000_000, reason: str = "", field: str = "") -> None:
        super().__init__(message, reason=reason, field=field)
        self.retry_after_us = retry_after_us


class DeadlineExceeded(MatchcutError):
    """The caller's deadline passed, or the media did not arrive in time."""

    code = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_EXCEEDED"


class Cancelled(MatchcutError):
    """The caller cancelled or lost the connection; all work for it stops."""

    code = "CANCELLED"
    reason = "CANCELLED"


class NotAllowed(MatchcutError):
    """The server was started with an option that forbids it."""

    code = "PERMISSION_DENIED"
    reason = "NOT_ALLOWED"


class Unsupported(MatchcutError):
    """A protocol that the server speaks knows it, the server does not."""

    code = "UNIMPLEMENTED"
    reason = "UNSUPPORTED"


class AlreadyThere(MatchcutError):
    """The name is taken."""

    code = "ALREADY_EXISTS"
    reason = "ALREADY_EXISTS"


class StoreFailed(MatchcutError):
    """The catalogue or the log of events could not be read or written; what it held before is unchanged."""

    reason = "STORE_FAILED"


class EngineFailed(MatchcutError):
    """The encoder could not be loaded or run."""

    reason = "ENGINE_FAILED"


class DeviceFailed(MatchcutError):
    """The GPU refused something; nothing is computed elsewhere in its stead."""

    reason = "DEVICE_FAILED"


class DeviceFull(DeviceFailed):
    """What was asked for did not fit into the GPU's memory."""

    code = "RESOURCE_EXHAUSTED"
    reason = "DEVICE_MEMORY_FULL"


class DeviceLost(DeviceFailed):
    """The GPU was lost: every call that needs it fails until the server is started again."""

    code = "UNAVAILABLE"
    reason = "DEVICE_LOST"
