"""The second sentence that matchcut exists for: record, recall, ask, rank, arrange, explain."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from threading import Lock

import numpy as np

from matchcut.kernels.device import Device
from matchcut.server.blend import Experiments, arrange
from matchcut.server.catalog import View
from matchcut.server.errors import InvalidInput, NotAllowed
from matchcut.server.events import EventLog, LogSizes
from matchcut.server.events.anonymity import published
from matchcut.server.ingest import Pipelines
from matchcut.server.job import Job
from matchcut.server.personal.excluding import NOTHING, Excluding
from matchcut.server.personal.interest import Interest, Interests, interests, themselves
from matchcut.server.personal.listing import candidates, explained
from matchcut.server.personal.live import LiveList
from matchcut.server.personal.shortlist import Flags, Popular, Shortlist, shortlist
from matchcut.server.personal.wants import Wants, wanted
from matchcut.server.records import (
    Assignment,
    Counted,
    Event,
    Exposure,
    Forgotten,
    PersonalRanking,
    Query,
    RankOptions,
    Recorded,
    Shown,
    UserKey,
    UserNumbers,
    UserQuery,
)
from matchcut.server.users import Galleries, Taste, Users

NO_CHANCE = np.random.default_rng(0)  # for lists that leave nothing to chance: to make one takes longer than its use


class Personal:
    """Lists for users, of what they did and of what is of interest right now. Safe to be used by several threads.

    Args:
        log: None: this server keeps nothing of users; lists are then made of histories that callers send.
        candidates: items that a list is made of, those that are popular or new not counted.
        threshold: see EventLog.counts.
        fault: whether the session model that is deployed cannot be served.
        keeps_us: how old an event may be, in microseconds; 0: any age.
        now_us: the time in microseconds since the Unix epoch.
    """

    def __init__(
        self,
        pipelines: Pipelines,
        users: Users,
        log: EventLog | None,
        device: Device,
        experiments: Experiments,
        *,
        candidates: int,
        threshold: int,
        fault: Callable[[], bool] = lambda: False,
        keeps_us: int = 0,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._pipelines = pipelines
        self._users = users
        self._log = log
        self._device = device
        self._experiments = experiments
        self._candidates = candidates
        self._threshold = threshold
        self._fault = fault
        self._keeps_us = keeps_us
        self._now_us = now_us
        self._popular = Popular(candidates)
        self._lock = Lock()  # over what follows
        self._forgetting: Counter[UserKey] = Counter()  # calls of forget() under way
        self._forgets = 0  # those that have ended
        self._lists = self._cold = 0

    def record(self, tenant: str, events: Sequence[Event], job: Job) -> Recorded:
        """Keeps events, all or none; durable when it returns.

        Raises:
            NotAllowed: this server keeps nothing of users.
            StoreFailed: the disk failed; nothing was kept.
        """
        self._kept()
        with job.clock("store"):
            oldest = self._now_us() - self._keeps_us if self._keeps_us else 0
            kept = [event for event in events if event.time_us >= oldest]
            appended, unknown = self._users.record(tenant, kept)
            job.clock.note("store", events=len(events))
        expired = len(events) - len(kept)
        return Recorded(len(appended.logged), appended.duplicates, unknown, job.clock.times(), expired)

    def forget(self, tenant: str, user_id: str, job: Job) -> Forgotten:
        """Deletes all that is kept of a user; when it returns no byte of it is there.

        Raises:
            StoreFailed: the disk failed, or readers keep what was deleted from being wiped; ask again.
        """
        user = self._kept().key(tenant, user_id)
        with self._lock:
            self._forgetting[user] += 1
        try:
            with job.clock("store"):
                receipt = self._users.forget(tenant, user_id)
        finally:
            with self._lock:
                self._forgetting -= Counter([user])
                self._forgets += 1
        return Forgotten(receipt, job.clock.times())

    def count(self, tenant: str, item_ids: Sequence[str], limit: int, job: Job) -> Counted:
        """How many users did what with these items, or with those that have the most users."""
        with job.clock("store"):
            items = tuple(self._kept().counts(tenant, item_ids, limit))
        return Counted(items, self._threshold, job.clock.times())

    def recommend(self, tenant: str, asked: UserQuery, options: RankOptions, job: Job) -> PersonalRanking:
        """What this user should see now.

        Raises:
            MatchcutError: the current interest is malformed, its media unreadable, an item missing, the caller gone.
        """
        self._allowed(asked)
        with closing(self.interests(tenant, asked.current, options, job)) as found:
            *_, interest = found
        return self.answer(tenant, asked, options, interest, job)

    def numbers(self) -> UserNumbers:
        """How much there is, for whoever watches the server; 0 of what is of users too few to be told of."""
        kept = LogSizes() if self._log is None else self._log.sizes()
        held = self._users.sizes()
        users, states = published(kept.users, self._threshold), published(held.users, self._threshold)
        with self._users.using() as galleries, self._lock:
            model = galleries.model.identity
            return UserNumbers(
                events=published(kept.events, self._threshold) if users else 0,
                users=users,
                exposures=published(kept.exposures, self._threshold) if users else 0,
                log_bytes=kept.bytes,
                states=states,
                state_bytes=held.bytes * states // max(1, held.users),  # else they would tell how many there are
                evicted=held.evicted,
                replayed=held.replayed,
                lists=self._lists,
                cold=self._cold,
                model=model.name,
                version=model.version,
                ready=galleries.ready,
                fault=self._fault(),
            )

    def live(self, tenant: str, asked: UserQuery, options: RankOptions) -> LiveList:
        """Lists that follow what the user does and sees.

        Raises:
            InvalidInput: there is no user.
            NotAllowed: as record().
        """
        self._allowed(asked)
        return LiveList(self, tenant, asked, options)

    def interests(self, tenant: str, query: Query | None, options: RankOptions, job: Job) -> Interests:
        """See interest.interests."""
        return interests(self._pipelines.now, tenant, query, options, job)

    def answer(
        self,
        tenant: str,
        asked: UserQuery,
        options: RankOptions,
        interest: Interest,
        job: Job,
        excluding: Excluding | None = None,
    ) -> PersonalRanking:
        """A list of what is known by now: recall, rank, arrange, explain.

        Args:
            excluding: of the lists before, where this one follows others of the same user; None: it follows none.
        """
        now_us, forgets, clock = self._now_us(), self._forgets, job.clock
        assignment = self._experiments.assign(tenant, asked.user_id) if asked.user_id else Assignment()
        how = self._experiments.options(assignment, asked.asked)
        with self._users.using() as galleries:
            with clock("recall"):
                taste = self._recall(tenant, asked, galleries)
                gallery = galleries.gallery(tenant)
                wants = wanted(taste, interest, gallery, galleries, current_weight=how.current_weight)
                clock.note("recall", events=taste.events)
            with clock("rank"):
                named, seen = options.exclude | themselves(asked.current), NOTHING if how.include_seen else taste.seen
                eligible = (excluding or Excluding()).eligible(
                    gallery.view, named | seen if named else seen, options.tags
                )
                users = {} if self._log is None else self._log.popularity(tenant)
                popular = self._popular.of(tenant, users)
                found = self._shortlist(gallery.view, wants, eligible, popular, options.limit, job)
            with clock("arrange"):
                name = uuid.uuid4()
                chance = np.random.default_rng(name.int) if how.exploration > 0 else NO_CHANCE
                chosen_from = candidates(found, gallery, wants, how, users=users, now_us=now_us)
                arranged = arrange(chosen_from, how, options.limit, chance, minimum_score=options.minimum_score)
                matches = explained(arranged, found, chosen_from, gallery, taste)
                clock.note("arrange", candidates=len(found.rows))
        ranking = PersonalRanking(
            matches=matches,
            recommendation_id=name.hex,
            assignment=assignment,
            model=taste.model,
            encoder=galleries.model.encoder,
            cold=wants.together is None,
            events=taste.events,
            revision=1,
            final=interest.final,
            times=clock.times(),
            report=interest.report,
        )
        self._told(tenant, asked, ranking, now_us, forgets)
        return ranking

    def _recall(self, tenant: str, asked: UserQuery, galleries: Galleries) -> Taste:
        """What is known of the user, by the session model that the items are seen with."""
        if asked.history:
            return self._users.replay(tenant, asked.history, galleries)
        return self._users.recall(tenant, asked.user_id, galleries)

    def _shortlist(
        self, view: View, wants: Wants, eligible: Flags | None, popular: Sequence[str], limit: int, job: Job
    ) -> Shortlist:
        """The best by what the user wants, and some that are popular or new."""
        found = shortlist(
            self._device,
            view,
            wants.together,
            eligible,
            popular,
            size=max(self._candidates, limit),
            check=job.caller.check,
        )
        if found.ranked is not None:
            ranked = found.ranked
            job.clock.note("rank", variant=ranked.variant, rows=ranked.scanned, rescored=ranked.rescored)
        return found

    def _told(self, tenant: str, asked: UserQuery, ranking: PersonalRanking, now_us: int, forgets: int) -> None:
        """Counts the list, and keeps what was shown, so that it can be judged later.

        It is not kept if the user is being forgotten, nor if anybody was since `forgets` was read, as that may have
        been this very user.
        """
        with self._lock:
            self._lists += 1
            self._cold += ranking.cold
        if self._log is None or not asked.user_id or asked.history or not ranking.matches:
            return  # an empty list shows nothing, and its tenant may not even be there
        shown = tuple(
            Shown(match.item.item_id, position, match.score, match.propensity)
            for position, match in enumerate(ranking.matches)
        )
        experiment, variant = ranking.assignment.experiment, ranking.assignment.variant
        exposure = Exposure(ranking.recommendation_id, now_us, experiment, variant, ranking.model.digest, shown)
        user = self._log.key(tenant, asked.user_id)
        with self._lock:
            if forgets == self._forgets and user not in self._forgetting:
                self._log.expose(user, exposure)

    def _allowed(self, asked: UserQuery) -> None:
        if not asked.history:
            if not asked.user_id:
                raise InvalidInput("say for whom: a user_id, or a history of events", field="user_id")
            self._kept()

    def _kept(self) -> EventLog:
        if self._log is None:
            raise NotAllowed(
                "this server keeps nothing of users (--users off): send the user's history with the request",
                reason="USERS_OFF",
            )
        return self._log
