"""A live list under way for an ordinary program: what happens goes out, lists come back."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from types import TracebackType
from typing import Any, Self, Unpack

from google.protobuf.message import Message

from matchcut.client.calls import Live
from matchcut.client.errors import ServerError
from matchcut.client.options import EventOptions
from matchcut.client.packing import Outgoing
from matchcut.client.user_results import Event, EventKind, UserRanking
from matchcut.client.users import Dialogue

__all__ = ["AsIs", "LiveList", "ended"]

ROOM = 16  # messages that wait to be sent: media that comes faster than it leaves is waited for


class AsIs:
    """Packs what is a message already."""

    def start(self) -> tuple[()]:
        return ()

    def pack(self, piece: Message) -> tuple[Message]:
        return (piece,)

    def finish(self) -> None:
        """Nothing is missing."""


def ended() -> ServerError:
    """What to raise where a list was expected and the call is over."""
    return ServerError("The call has ended; no more lists come.", code="INTERNAL")


class Outbox:
    """Messages on their way from the threads that make them to the one that sends them."""

    def __init__(self) -> None:
        self._waiting: deque[Message] = deque()
        self._changed = threading.Condition()
        self._over = False
        self._failure: BaseException | None = None

    def put(self, message: Message, *, at_once: bool = False) -> bool:
        """Adds a message once there is room, or at once; False where none is wanted any more."""
        with self._changed:
            self._changed.wait_for(lambda: at_once or self._over or len(self._waiting) < ROOM)
            if not self._over:
                self._waiting.append(message)
                self._changed.notify_all()
            return not self._over

    def end(self, failure: BaseException | None = None) -> None:
        """No more will come; the failure is raised where the messages are taken, after those that wait."""
        with self._changed:
            self._over = True
            self._failure = self._failure or failure
            self._changed.notify_all()

    def __iter__(self) -> Generator[Message, None, None]:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._over or self._waiting)
                    if not self._waiting:
                        break
                    message = self._waiting.popleft()
                    self._changed.notify_all()
                yield message
        finally:
            self.end()
        if self._failure is not None:
            raise self._failure


class LiveList(Iterator[UserRanking]):
    """A user's list that follows what the user does; of Client.recommend_live_for. For one thread.

    ranking: the newest list; None before the first, for which live media has to come.
    """

    def __init__(
        self, dialogue: Dialogue, replies: Callable[[Live[UserRanking]], Generator[UserRanking, None, None]]
    ) -> None:
        self._dialogue = dialogue
        self._replies = replies
        self._outbox = Outbox()
        self._begun = threading.Event()  # the header is out, and events may follow
        self._lists: Generator[UserRanking, None, None] | None = None
        self._kept: deque[UserRanking] = deque(maxlen=ROOM)  # lists that came while an event's was awaited
        self.ranking: UserRanking | None = None

    def __enter__(self) -> Self:
        """Begins the call; without live media it waits for the first list."""
        if self._lists is not None:
            raise RuntimeError("a live list is one call; ask for another one")
        dialogue = self._dialogue
        outgoing: Outgoing[Message] = Outgoing(AsIs(), lambda: self._outbox)
        live = Live(method=dialogue.method, read=UserRanking.of, timeout=dialogue.timeout, outgoing=outgoing)
        self._lists = self._replies(live)
        if dialogue.media:
            threading.Thread(target=self._send, name="matchcut-live", daemon=True).start()
        else:
            for message in dialogue.outgoing.packer.start():
                self._outbox.put(message)
            self._begun.set()
            self._following()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def event(self, item: str, kind: EventKind = "click", **more: Unpack[EventOptions]) -> UserRanking:
        """Tells what the user did and returns the list that answers it, by when the event is durable.

        Lists that live media makes meanwhile are kept for whoever iterates; the oldest of many are left out.
        """
        self._entered()
        message, event_id = self._dialogue.event(Event(user="", item=item, kind=kind, **more))
        self._begun.wait()
        self._outbox.put(message, at_once=True)  # nobody reads lists meanwhile, without which no media may leave
        while (ranking := self._following()).event_id != event_id:
            self._kept.append(ranking)
        return ranking

    def end(self) -> UserRanking:
        """Ends the call and returns the last list; those before it that were not taken are left out."""
        self._entered()
        self._outbox.end()
        for _ in self:
            pass
        if self.ranking is None:
            raise ended()
        return self.ranking

    def close(self) -> None:
        """Cancels the call, unless it has ended."""
        self._outbox.end()
        self._begun.set()
        if self._lists is not None:
            self._lists.close()

    def __iter__(self) -> Iterator[UserRanking]:
        """The lists that answer no event(), until the call ends: with live media, when that does."""
        return self

    def __next__(self) -> UserRanking:
        ranking = self._kept.popleft() if self._kept else self._read()
        if ranking is None:
            raise StopIteration
        return ranking

    def _entered(self) -> Generator[UserRanking, None, None]:
        """What the lists come from."""
        if self._lists is None:
            raise RuntimeError("use a live list in a `with` statement")
        return self._lists

    def _following(self) -> UserRanking:
        """The next list to come; ServerError at the end."""
        ranking = self._read()
        if ranking is None:
            raise ended()
        return ranking

    def _read(self) -> UserRanking | None:
        """The next list to come; None at the end."""
        lists = self._entered()
        ranking: UserRanking | None = None
        try:
            ranking = next(lists, None)
        finally:
            if ranking is None:
                self._outbox.end()  # whoever has more to send waits no longer
        if ranking is not None:
            self.ranking = ranking
        return ranking

    def _send(self) -> None:
        """Puts out the live media, in a thread of its own."""
        outgoing = self._dialogue.outgoing
        pieces: Any = outgoing.pieces()
        try:
            if not isinstance(pieces, Iterable):
                raise TypeError("Client takes media from ordinary iterables; AsyncClient from asynchronous ones, too")
            for message in outgoing.messages(pieces):
                if not self._outbox.put(message):
                    return
                self._begun.set()
            self._outbox.end()
        except BaseException as error:
            self._outbox.end(error)
        finally:
            self._begun.set()
