"""A user's list that follows what the user does, and what is seen meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from copy import copy
from dataclasses import replace
from typing import Protocol

from matchcut.server.job import Job
from matchcut.server.personal.excluding import Excluding
from matchcut.server.personal.interest import Interest, Interests
from matchcut.server.records import Event, Media, PersonalRanking, Query, RankOptions, Recorded, UserQuery


class Answers(Protocol):
    """What of Personal a live list needs."""

    def record(self, tenant: str, events: Sequence[Event], job: Job) -> Recorded: ...

    def interests(self, tenant: str, query: Query | None, options: RankOptions, job: Job) -> Interests: ...

    def answer(
        self,
        tenant: str,
        asked: UserQuery,
        options: RankOptions,
        interest: Interest,
        job: Job,
        excluding: Excluding | None = None,
    ) -> PersonalRanking: ...


class LiveList:
    """One user's list, made anew whenever something happens.

    Two threads may use it at once, one with the user's events and one with live media: each replaces the interest
    whole, and holds no lock while it ranks.
    """

    def __init__(self, answers: Answers, tenant: str, asked: UserQuery, options: RankOptions) -> None:
        self._answers = answers
        self._tenant = tenant
        self._asked = asked
        self._options = options
        self._interest = Interest()
        self._excluding = Excluding()

    def now(self, job: Job) -> PersonalRanking:
        """A list of what is known by now: the user's events, and the interest as it was seen last.

        Raises:
            MatchcutError: the caller is gone, the device or the disk failed.
        """
        return self._answers.answer(self._tenant, self._asked, self._options, self._interest, job, self._excluding)

    def after(self, event: Event, job: Job) -> PersonalRanking:
        """The same with one event more, which is durable by then."""
        self._answers.record(self._tenant, [event], job)
        return self.now(job)

    def watch(self, media: Media, job: Job) -> Iterator[PersonalRanking]:
        """A list for each look at the media, which becomes the current interest and stays it when the media is over.

        Raises:
            MatchcutError: the media is unreadable or exceeds a limit; and as now().
        """
        with closing(self._answers.interests(self._tenant, media, self._options, job)) as found:
            for interest in found:
                self._interest = replace(interest, report=copy(interest.report))  # which decoding goes on filling
                yield self.now(job)
