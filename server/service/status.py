"""MatchcutError to a gRPC status with google.rpc details (https://google.aip.dev/193)."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from matchcut.server.errors import MatchcutError, Overloaded

DOMAIN = "matchcut"
LONGEST = 1024  # characters of a message: it travels twice, in headers that callers take few KiB of
log = logging.getLogger("matchcut.service")
T = TypeVar("T")


def rich_status(error: MatchcutError) -> status_pb2.Status:
    """The error with ErrorInfo, and BadRequest where a field is at fault, and RetryInfo where a retry helps."""
    message = error.message if len(error.message) <= LONGEST else f"{error.message[:LONGEST]} ..."
    status = status_pb2.Status(code=code_pb2.Code.Value(error.code), message=message)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN))
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field[:LONGEST], description=message)
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, Overloaded):
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMicroseconds(error.retry_after_us)
        status.details.add().Pack(retry)
    return status


def fail(context: Any, error: Exception) -> None:
    """Ends the call with the error's status; what is not a MatchcutError is logged and told as INTERNAL.

    context.abort() would do the same, but it leaves the call alive until the garbage collector runs: a stream whose
    sender had more to send would go on counting against the connection's limit (grpcio 1.76 to 1.85).
    """
    if not isinstance(error, MatchcutError):
        log.error("unexpected error in a call", exc_info=error)
        error = MatchcutError("an unexpected error in the server; its log says more", reason="UNEXPECTED")
    status = rpc_status.to_status(rich_status(error))
    trailers = tuple(status.trailing_metadata)
    if isinstance(error, Overloaded):
        trailers += (("grpc-retry-pushback-ms", str(error.retry_after_us // 1000)),)
    context.set_trailing_metadata(trailers)
    context.set_details(status.details)
    context.set_code(status.code)


def unary(handler: Callable[[Any, Any, Any], Awaitable[T]]) -> Callable[[Any, Any, Any], Awaitable[T | None]]:
    """A handler with one reply, its errors told as rich statuses."""

    @functools.wraps(handler)
    async def told(self: Any, request: Any, context: Any) -> T | None:
        try:
            return await handler(self, request, context)
        except Exception as error:
            fail(context, error)
            return None

    return told


def streaming(handler: Callable[[Any, Any, Any], AsyncGenerator[T]]) -> Callable[[Any, Any, Any], Awaitable[None]]:
    """A handler with a stream of replies, its errors told as rich statuses.

    The replies are written here instead of being yielded on: gRPC does not close a generator whose caller was lost, so
    that what it holds would be freed when the garbage collector finds it (grpcio 1.76 to 1.85).
    """

    @functools.wraps(handler)
    async def told(self: Any, request: Any, context: Any) -> None:
        try:
            async with aclosing(handler(self, request, context)) as replies:
                async for reply in replies:
                    await context.write(reply)
        except Exception as error:
            fail(context, error)

    return told
