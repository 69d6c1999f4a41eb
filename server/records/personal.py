"""Rankings for a user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from matchcut.server.records.base import EncoderIdentity
from matchcut.server.records.catalog import Item
from matchcut.server.records.events import Event, ItemCounts, Receipt
from matchcut.server.records.media import MediaReport
from matchcut.server.records.ranking import Query, StageTimes

WEEK_US = 7 * 24 * 3600 * 1_000_000


@dataclass(frozen=True, slots=True)
class SessionIdentity:
    """Which session model ranked. `digest` alone decides whether two states are of one model."""

    name: str
    version: str
    digest: str
    dimensions: int


@dataclass(frozen=True, slots=True)
class PersonalOptions:
    """How a user's list is made of what is relevant; None of it changes which items may be ranked but include_seen.

    include_seen: items that the user did anything with may come back. mmr_lambda: 0 to 1; 1 ranks by relevance alone,
    less makes the list more diverse (J. Carbonell, J. Goldstein, SIGIR 1998). current_weight: 0 to 1, of the current
    interest against the history. freshness, popularity: weights, at least 0, of how new an item is (halving with every
    freshness_half_life_us) and how many users took to it, against relevance, which weighs 1. cap: most items with the
    same value of the attribute cap_attribute; 0: any number. exploration: 0 to 1, the chance that a position is filled
    at random from the candidates.
    """

    include_seen: bool = False
    mmr_lambda: float = 0.8
    current_weight: float = 0.5
    freshness: float = 0.1
    freshness_half_life_us: int = WEEK_US
    popularity: float = 0.05
    cap_attribute: str = "creator"
    cap: int = 0
    exploration: float = 0.0


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an item is there.

    nearest_item_id: the item of the user's history that is most like it, "" where there is none; similarity: their
    cosine. shares: of each signal ("history", "current", "freshness", "popularity") in the score, at least 0, 1 in all
    (or none, where every signal is silent).
    """

    nearest_item_id: str
    similarity: float
    shares: dict[str, float]


@dataclass(frozen=True, slots=True)
class PersonalMatch:
    """One ranked item; see Shown for propensity."""

    item: Item
    score: float
    reason: Reason
    propensity: float


@dataclass(frozen=True, slots=True)
class Assignment:
    """The variant of an experiment that a user is in; both "" where no experiment runs."""

    experiment: str = ""
    variant: str = ""


@dataclass(frozen=True, slots=True)
class PersonalRanking:
    """A ranked list for a user, best first.

    cold: nothing was known of the user, neither history nor current interest. events: that the user's state is made of.
    """

    matches: tuple[PersonalMatch, ...]
    recommendation_id: str
    assignment: Assignment
    model: SessionIdentity
    encoder: EncoderIdentity
    cold: bool
    events: int
    revision: int
    final: bool
    times: StageTimes
    report: MediaReport | None = None


@dataclass(frozen=True, slots=True)
class UserQuery:
    """For whom a list is, and of what.

    user_id: "" where a history is given. asked: the fields of PersonalOptions that the caller has set. current: what is
    of interest right now. history: used instead of what is kept of the user; nothing is then kept.
    """

    user_id: str
    asked: Mapping[str, object] = field(default_factory=dict)
    current: Query | None = None
    history: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of events: how many are new, were there already, are of items that are not there yet, and are older
    than what is kept."""

    recorded: int
    duplicates: int
    unknown_items: int
    times: StageTimes
    expired: int = 0


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was deleted."""

    receipt: Receipt
    times: StageTimes


@dataclass(frozen=True, slots=True)
class Counted:
    """How many users did what; numbers below the threshold are 0."""

    items: tuple[ItemCounts, ...]
    threshold: int
    times: StageTimes


@dataclass(frozen=True, slots=True)
class UserNumbers:
    """How much there is, all tenants together; counters since the start.

    users: as far as their number may be told. states, state_bytes: of users, in memory. ready: whether all of the
    catalogue can be recommended. fault: whether the session model that is deployed cannot be served.
    """

    events: int
    users: int
    exposures: int
    log_bytes: int
    states: int
    state_bytes: int
    evicted: int
    replayed: int
    lists: int
    cold: int
    model: str
    version: str
    ready: bool
    fault: bool
