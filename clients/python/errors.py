"""What a call may raise, by the server's status.

Error
├── InvalidInput        INVALID_ARGUMENT, OUT_OF_RANGE: a field is missing, malformed or out of range
├── NotFound            NOT_FOUND: no such item
├── FailedPrecondition  FAILED_PRECONDITION: e.g. vectors of another encoder
├── Overloaded          RESOURCE_EXHAUSTED: no place free, `retry_after` says when to come back; or the server's GPU has
│                       too little memory for it (reason DEVICE_MEMORY_FULL)
├── DeadlineExceeded    DEADLINE_EXCEEDED: `timeout` is over
├── Cancelled           CANCELLED: the call was cancelled, e.g. by closing the client
├── Unavailable         UNAVAILABLE: the server cannot be reached, is shutting down, or has lost its GPU and has to be
│                       started again (reason DEVICE_LOST)
├── Unauthenticated     UNAUTHENTICATED: the token or certificate is missing or not accepted
├── NotAllowed          PERMISSION_DENIED: the server was started with an option that forbids it, e.g. --users off
└── ServerError         any other: a fault of the server

The gRPC error is the `__cause__`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2 as details
from grpc_status import rpc_status

__all__ = [
    "Cancelled",
    "DeadlineExceeded",
    "Error",
    "FailedPrecondition",
    "InvalidInput",
    "NotAllowed",
    "NotFound",
    "Overloaded",
    "ServerError",
    "Unauthenticated",
    "Unavailable",
    "from_rpc",
]


class Error(Exception):
    """Anything that the server, or the way to it, answers instead of a reply.

    Attributes:
        message: one sentence for people that says what to do.
        code: the gRPC status' name, e.g. "NOT_FOUND".
        reason: stable word in capitals, for programs, e.g. "ITEM_NOT_FOUND"; "" where the server gave none.
        field: path of the request field at fault, e.g. "item.item_id"; "" where none is.
        retry_after: seconds to wait before the next try; None where the server gave none.
    """

    def __init__(
        self, message: str, *, code: str, reason: str = "", field: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.field = field
        self.retry_after = retry_after


class InvalidInput(Error):
    """A field is missing, malformed or out of range; `field` says which where the server knows."""


class NotFound(Error):
    """There is no such item."""


class FailedPrecondition(Error):
    """The request does not fit the server's state, e.g. vectors of another encoder."""


class Overloaded(Error):
    """All places are taken, or a limit is reached; `retry_after` says when to come back.

    With the reason "DEVICE_MEMORY_FULL" it did not fit into the memory of the server's GPU, and there is no
    `retry_after`: ask for less at once.
    """


class DeadlineExceeded(Error):
    """The call took longer than its timeout."""


class Cancelled(Error):
    """The call was cancelled, by closing the client or by the server."""


class Unavailable(Error):
    """The server cannot be reached, or is shutting down.

    With the reason "DEVICE_LOST" its GPU is lost, with "STORE_GONE" its files are gone from the disk; it has to be
    started again before another try helps.
    """


class Unauthenticated(Error):
    """The token or certificate is missing, or not accepted."""


class NotAllowed(Error):
    """The server was started with an option that forbids it, e.g. --users off (reason USERS_OFF)."""


class ServerError(Error):
    """Any other status: a fault of the server."""


_BY_CODE: dict[str, type[Error]] = {
    "INVALID_ARGUMENT": InvalidInput,
    "OUT_OF_RANGE": InvalidInput,
    "NOT_FOUND": NotFound,
    "FAILED_PRECONDITION": FailedPrecondition,
    "RESOURCE_EXHAUSTED": Overloaded,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "CANCELLED": Cancelled,
    "UNAVAILABLE": Unavailable,
    "UNAUTHENTICATED": Unauthenticated,
    "PERMISSION_DENIED": NotAllowed,
}


def from_rpc(rpc: Any) -> Error:
    """The error for a failed call (a grpc.RpcError with its status); raise it `from` that call."""
    code = rpc.code().name
    message = rpc.details() or f"The call failed with status {code} and no message."
    reason = field = ""
    retry_after: float | None = None
    for detail in _details(rpc):
        match detail:
            case details.ErrorInfo():
                reason = detail.reason
            case details.BadRequest() if detail.field_violations:
                field = detail.field_violations[0].field
            case details.RetryInfo():
                delay = detail.retry_delay  # its own conversion fails where it is beyond what a timedelta holds
                retry_after = max(0.0, delay.seconds + delay.nanos / 1e9)
    kind = _BY_CODE.get(code, ServerError)
    return kind(message, code=code, reason=reason, field=field, retry_after=retry_after)


def _details(rpc: Any) -> Iterable[Any]:
    """The google.rpc details in the trailers that this client knows; none where a proxy garbled them."""
    try:
        status = rpc_status.from_call(rpc)
    except (ValueError, DecodeError):
        return
    for packed in status.details if status else ():
        for kind in (details.ErrorInfo, details.BadRequest, details.RetryInfo):
            detail = kind()
            if packed.Is(kind.DESCRIPTOR) and packed.Unpack(detail):
                yield detail
