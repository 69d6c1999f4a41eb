"""Calls described, not made: each client carries the same descriptions out in its own way."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, Protocol, Self, TypeVar

from google.protobuf.message import Message

from matchcut.client.errors import ServerError
from matchcut.client.packing import Outgoing
from matchcut.client.retry import READ, Repeatable

__all__ = ["Batches", "Call", "Last", "Live", "Page", "Pages", "Sum", "Unary", "Upload", "only", "shown", "unary"]

P = ParamSpec("P")
Reply = TypeVar("Reply")
Reply_co = TypeVar("Reply_co", covariant=True)
Entry = TypeVar("Entry")
Entry_co = TypeVar("Entry_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[Reply_co]):
    """A call that answers once.

    method: stub and method, e.g. "catalog.GetItem".
    read: makes the result from the reply.
    timeout: seconds for all tries together; None: no bound.
    repeatable: errors after which it may be sent again.
    """

    method: str
    read: Callable[[Any], Reply_co]
    timeout: float | None
    repeatable: Repeatable = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Unary(Call[Reply_co]):
    """One message out, one back.

    blocking: making the request reads a file. cheap: it may be asked twice at once, see Retry.hedge.
    """

    request: Callable[[], Message]
    blocking: bool = False
    cheap: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload(Call[Reply_co]):
    """Many messages out, one back, which may come before all are out."""

    outgoing: Outgoing[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Last(Call[Reply_co]):
    """Many messages out; of the many back, the last."""

    outgoing: Outgoing[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Live(Generic[Reply_co]):
    """Many messages out, many back. `timeout` is for the whole call, in seconds; None: no bound."""

    method: str
    read: Callable[[Any], Reply_co]
    timeout: float | None
    outgoing: Outgoing[Any]


class Page(Protocol[Entry_co]):
    """A part of a listing; `next` is the token of the part after it, "" on the last."""

    @property
    def items(self) -> tuple[Entry_co, ...]: ...

    @property
    def next(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Pages(Generic[Entry]):
    """A listing: `page` describes the call for the page that a token names, "" for the first."""

    page: Callable[[str], Call[Page[Entry]]]


class Sum(Protocol):
    """What results of batches are: they add up."""

    def __add__(self, other: Self, /) -> Self: ...


Total = TypeVar("Total", bound=Sum)


@dataclass(frozen=True, slots=True)
class Batches(Generic[Total]):
    """What is too much for one call: one after the other, made as they are needed.

    none: the result where there is nothing to call for. told: is given what the result is so far, after each call.
    """

    calls: Iterator[Call[Total]]
    none: Total
    told: Callable[[Total], object] | None = None

    def add(self, so_far: Total, done: Total) -> Total:
        """The result with that of one more call."""
        total = so_far + done
        if self.told is not None:
            self.told(total)
        return total


def unary(
    method: str,
    request: Message,
    read: Callable[[Any], Reply],
    *,
    timeout: float | None,
    repeatable: Repeatable = READ,
    cheap: bool = False,
) -> Call[Reply]:
    """A Unary whose message is there already."""
    return Unary(method=method, request=lambda: request, read=read, timeout=timeout, repeatable=repeatable, cheap=cheap)


def only(replies: Collection[Reply]) -> Reply:
    """The one reply there is; ServerError if the server ended the call without any."""
    for reply in replies:
        return reply
    raise ServerError("The server ended the call without a reply.", code="INTERNAL")


def shown(method: Callable[P, Reply], returns: str) -> Callable[P, Reply]:
    """`method` with the return type that help() and editors are to show; it wraps a function that returns a call.

    `returns` has a place for the result's type, which is the call's argument: Ranking in Call[Ranking].
    """
    signature = inspect.signature(method)
    _, _, result = signature.return_annotation.removesuffix("]").partition("[")
    method.__signature__ = signature.replace(return_annotation=returns.format(result))  # type: ignore[attr-defined]
    return method
