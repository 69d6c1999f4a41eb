"""Clients of a matchcut server: Client for ordinary programs, AsyncClient for asyncio.

    with Client("localhost:7411") as client:
        client.ingest("film", "film.mp4", tags=["drama"])
        for match in client.recommend(clip="scene.mp4", limit=5):
            print(match.item.id, match.score, match.item_range)
        client.record([Event("ann", "film", "like")])
        for match in client.recommend_for("ann", limit=5):
            print(match.item.id, match.score, match.reason.nearest)

Times are float seconds. Keywords left out mean the server's defaults.
"""

from matchcut.client.aio import AsyncClient
from matchcut.client.dialogue import LiveList
from matchcut.client.dialogue_aio import AsyncLiveList
from matchcut.client.errors import (
    Cancelled,
    DeadlineExceeded,
    Error,
    FailedPrecondition,
    InvalidInput,
    NotAllowed,
    NotFound,
    Overloaded,
    ServerError,
    Unauthenticated,
    Unavailable,
)
from matchcut.client.results import (
    Encoder,
    Ingested,
    Item,
    Match,
    MediaReport,
    MediaWarning,
    Outcome,
    Page,
    Ranking,
    Segment,
    Stage,
    StageTimes,
    StoredItem,
    Switched,
    TimeRange,
)
from matchcut.client.retry import Retry
from matchcut.client.sync import Client
from matchcut.client.user_results import (
    Event,
    EventCounts,
    EventKind,
    ItemCount,
    Reason,
    Receipt,
    Recorded,
    SessionModel,
    UserMatch,
    UserRanking,
    Variant,
)

__all__ = [
    "AsyncClient",
    "AsyncLiveList",
    "Cancelled",
    "Client",
    "DeadlineExceeded",
    "Encoder",
    "Error",
    "Event",
    "EventCounts",
    "EventKind",
    "FailedPrecondition",
    "Ingested",
    "InvalidInput",
    "Item",
    "ItemCount",
    "LiveList",
    "Match",
    "MediaReport",
    "MediaWarning",
    "NotAllowed",
    "NotFound",
    "Outcome",
    "Overloaded",
    "Page",
    "Ranking",
    "Reason",
    "Receipt",
    "Recorded",
    "Retry",
    "Segment",
    "ServerError",
    "SessionModel",
    "Stage",
    "StageTimes",
    "StoredItem",
    "Switched",
    "TimeRange",
    "Unauthenticated",
    "Unavailable",
    "UserMatch",
    "UserRanking",
    "Variant",
]
