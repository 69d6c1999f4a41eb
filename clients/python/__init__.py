"""Clients of a matchcut server: Client for ordinary programs, AsyncClient for asyncio.

    with Client("localhost:7411") as client:
        client.ingest("film", "film.mp4", tags=["drama"])
        for match in client.recommend(clip="scene.mp4", limit=5):
            print(match.item.id, match.score, match.item_range)

Times are float seconds. Keywords left out mean the server's defaults.
"""

from matchcut.client.aio import AsyncClient
from matchcut.client.errors import (
    Cancelled,
    DeadlineExceeded,
    Error,
    FailedPrecondition,
    InvalidInput,
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

__all__ = [
    "AsyncClient",
    "Cancelled",
    "Client",
    "DeadlineExceeded",
    "Encoder",
    "Error",
    "FailedPrecondition",
    "Ingested",
    "InvalidInput",
    "Item",
    "Match",
    "MediaReport",
    "MediaWarning",
    "NotFound",
    "Outcome",
    "Overloaded",
    "Page",
    "Ranking",
    "Retry",
    "Segment",
    "ServerError",
    "Stage",
    "StageTimes",
    "StoredItem",
    "Switched",
    "TimeRange",
    "Unauthenticated",
    "Unavailable",
]
