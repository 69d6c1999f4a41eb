"""A live list under way for asyncio: what happens goes out, lists come back."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, Unpack

from google.protobuf.message import Message

from matchcut.client.calls import Live
from matchcut.client.dialogue import ROOM, AsIs, ended
from matchcut.client.options import EventOptions
from matchcut.client.packing import Outgoing
from matchcut.client.user_results import Event, EventKind, UserRanking
from matchcut.client.users import Dialogue

__all__ = ["AsyncLiveList"]


class Outbox:
    """Messages on their way from the tasks that make them to the one that sends them."""

    def __init__(self) -> None:
        self._waiting: deque[Message] = deque()
        self._changed = asyncio.Condition()
        self._over = False
        self._failure: BaseException | None = None

    async def put(self, message: Message, *, at_once: bool = False) -> None:
        """Adds a message once there is room, or at once; drops it where none is wanted any more."""
        async with self._changed:
            await self._changed.wait_for(lambda: at_once or self._over or len(self._waiting) < ROOM)
            if not self._over:
                self._waiting.append(message)
                self._changed.notify_all()

    async def end(self, failure: BaseException | None = None) -> None:
        """No more will come; the failure is raised where the messages are taken, after those that wait."""
        async with self._changed:
            self._over = True
            self._failure = self._failure or failure
            self._changed.notify_all()

    async def taken(self) -> AsyncGenerator[Message, None]:
        """The messages, until the end."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._over or self._waiting)
                if not self._waiting:
                    break
                message = self._waiting.popleft()
                self._changed.notify_all()
            yield message
        if self._failure is not None:
            raise self._failure


Messages = Callable[[Outgoing[Any]], AsyncGenerator[Message, None]]


class AsyncLiveList(AsyncIterator[UserRanking]):
    """A user's list that follows what the user does; of AsyncClient.recommend_live_for. For one task.

    ranking: the newest list; None before the first, for which live media has to come.
    """

    def __init__(
        self,
        dialogue: Dialogue,
        replies: Callable[[Live[UserRanking]], AsyncGenerator[UserRanking, None]],
        messages: Messages,
    ) -> None:
        self._dialogue = dialogue
        self._replies = replies
        self._messages = messages
        self._outbox = Outbox()
        self._begun = asyncio.Event()  # the header is out, and events may follow
        self._lists: AsyncGenerator[UserRanking, None] | None = None
        self._sender: asyncio.Task[None] | None = None
        self._kept: deque[UserRanking] = deque(maxlen=ROOM)  # lists that came while an event's was awaited
        self.ranking: UserRanking | None = None

    async def __aenter__(self) -> Self:
        """Begins the call; without live media it waits for the first list."""
        if self._lists is not None:
            raise RuntimeError("a live list is one call; ask for another one")
        dialogue = self._dialogue
        outgoing: Outgoing[Message] = Outgoing(AsIs(), self._outbox.taken)
        live = Live(method=dialogue.method, read=UserRanking.of, timeout=dialogue.timeout, outgoing=outgoing)
        self._lists = self._replies(live)
        if dialogue.media:
            self._sender = asyncio.create_task(self._send())
            return self
        for message in dialogue.outgoing.packer.start():
            await self._outbox.put(message)
        self._begun.set()
        await self._following()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def event(self, item: str, kind: EventKind = "click", **more: Unpack[EventOptions]) -> UserRanking:
        """Tells what the user did and returns the list that answers it, by when the event is durable.

        Lists that live media makes meanwhile are kept for whoever iterates; the oldest of many are left out.
        """
        self._entered()
        message, event_id = self._dialogue.event(Event(user="", item=item, kind=kind, **more))
        await self._begun.wait()
        await self._outbox.put(message, at_once=True)  # nobody reads lists meanwhile, without which no media may leave
        while (ranking := await self._following()).event_id != event_id:
            self._kept.append(ranking)
        return ranking

    async def end(self) -> UserRanking:
        """Ends the call and returns the last list; those before it that were not taken are left out."""
        self._entered()
        await self._stop_media()
        await self._outbox.end()
        async for _ in self:
            pass
        if self.ranking is None:
            raise ended()
        return self.ranking

    async def close(self) -> None:
        """Cancels the call, unless it has ended."""
        await self._stop_media()
        await self._outbox.end()
        if self._lists is not None:
            await self._lists.aclose()

    def __aiter__(self) -> AsyncIterator[UserRanking]:
        """The lists that answer no event(), until the call ends: with live media, when that does."""
        return self

    async def __anext__(self) -> UserRanking:
        ranking = self._kept.popleft() if self._kept else await self._read()
        if ranking is None:
            raise StopAsyncIteration
        return ranking

    def _entered(self) -> AsyncGenerator[UserRanking, None]:
        """What the lists come from."""
        if self._lists is None:
            raise RuntimeError("use a live list in an `async with` statement")
        return self._lists

    async def _following(self) -> UserRanking:
        """The next list to come; ServerError at the end."""
        ranking = await self._read()
        if ranking is None:
            raise ended()
        return ranking

    async def _read(self) -> UserRanking | None:
        """The next list to come; None at the end."""
        lists = self._entered()
        ranking: UserRanking | None = None
        try:
            ranking = await anext(lists, None)
        finally:
            if ranking is None:
                await self._outbox.end()  # whoever has more to send waits no longer
        if ranking is not None:
            self.ranking = ranking
        return ranking

    async def _send(self) -> None:
        """Puts out the live media, in a task of its own."""
        failure: Exception | None = None
        try:
            async with aclosing(self._messages(self._dialogue.outgoing)) as messages:
                async for message in messages:
                    await self._outbox.put(message)
                    self._begun.set()
        except Exception as error:
            failure = error
        finally:
            self._begun.set()
        await self._outbox.end(failure)

    async def _stop_media(self) -> None:
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.wait([self._sender])
