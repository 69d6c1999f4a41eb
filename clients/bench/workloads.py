"""matchcut's own calls, prepared: what the server has is asked for once, then all requests are serialised."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from matchcut.bench.errors import BadInput
from matchcut.bench.pixels import frames
from matchcut.bench.prepared import Followed, Live, Prepared, Unary, Upload
from matchcut.client import Client, Event
from matchcut.client.packing import clip_chunks
from matchcut.v1 import catalog_pb2, events_pb2, media_pb2, recommender_pb2

__all__ = ["LIVE", "OWN", "Own", "Settings", "fresh"]

RECOMMEND = "/matchcut.v1.Recommender/Recommend"
MOST_ITEMS = 1000  # of the catalogue that requests are about
VARIETY = 256  # different requests of each kind; a server's caches should not answer
MOST_CLIP = 48 << 20  # bytes of a clip that goes in one message
DISTINCT = 32  # frames of a camera before they repeat
KINDS = (events_pb2.EVENT_KIND_CLICK, events_pb2.EVENT_KIND_LIKE, events_pb2.EVENT_KIND_WATCH)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the requests are made of.

    clips: files, for clips and uploads. limit: how many items a list has. fps: of cameras. size: of their frames.
    latest_only: frames that a live query cannot keep up with are dropped by the server, as a camera's should be.
    per_call: events in one call. users: how many different ones.
    """

    clips: tuple[Path, ...] = ()
    limit: int = 10
    fps: float = 10.0
    size: tuple[int, int] = (224, 224)
    latest_only: bool = True
    per_call: int = 1
    users: int = 100


class Own:
    """Prepares matchcut's calls, and removes afterwards what they have left.

    Args:
        client: asks the server beforehand, and cleans up.
        settings: what to ask for.
        seed: the same seed makes the same requests.
    """

    def __init__(self, client: Client, settings: Settings, seed: int = 1) -> None:
        self._client = client
        self._settings = settings
        self._random = random.Random(seed)
        self.prefix = f"bench-{uuid.uuid4().hex[:8]}-"  # of all ids that are made up
        self._ids: list[str] = []
        self._users = [f"{self.prefix}{number}" for number in range(settings.users)]
        self._written = False
        self._with_history = False

    @property
    def written(self) -> bool:
        """Events of made-up users may be on the server."""
        return self._written

    def prepare(self, names: Sequence[str]) -> tuple[Prepared, ...]:
        """The requests of these workloads; see OWN.

        Raises:
            BadInput: what they are made of is missing.
            matchcut.client.Error: the server does not answer, or refuses.
            OSError: a clip cannot be read.
        """
        return tuple(OWN[name](self) for name in names)

    def clean(self, created: Sequence[str], *, search: bool = False) -> int:
        """Removes items that uploads have made, and users' events; says how many items are gone.

        Args:
            created: ids of the items.
            search: they may not be all: the catalogue is looked through for others of this object's.

        Raises:
            matchcut.client.Error: the server does not answer, or refuses; what is left has ids with `prefix`.
        """
        ids = set(created)
        if search:
            ids.update(item.id for item in self._client.items() if item.id.startswith(self.prefix))
        removed = 0
        for item_id in sorted(ids):
            removed += self._client.remove(item_id, missing_ok=True)
        for user in self._users if self._written else ():
            self._client.forget(user)
        return removed

    def query(self) -> Unary:
        """Recommend by an item of the catalogue."""
        some = self._some_ids()
        queries = (recommender_pb2.ItemsQuery(item_ids=[item_id]) for item_id in some)
        return self._recommend("query", [recommender_pb2.Query(items=query) for query in queries])

    def vector(self) -> Unary:
        """Recommend by a random vector."""
        dimensions = self._client.recommend(items=[self._some_ids()[0]], limit=1).encoder.dimensions
        made = ([self._random.gauss(0, 1) for _ in range(dimensions)] for _ in range(VARIETY))
        queries = [recommender_pb2.Query(vector=recommender_pb2.VectorQuery(values=values)) for values in made]
        return self._recommend("vector", queries)

    def clip(self) -> Unary:
        """Recommend by the bytes of a clip."""
        queries = []
        for path, data in self._clips("clip"):
            if len(data) > MOST_CLIP:
                raise BadInput(f"{path} has {len(data) >> 20} MiB, too many for one message; give a shorter --clip")
            chunks = list(clip_chunks(data))
            queries.append(recommender_pb2.Query(clip=recommender_pb2.ClipQuery(chunks=chunks)))
        return self._recommend("clip", queries)

    def ingest(self) -> Upload:
        """Ingest of a clip under a new id."""
        clips = tuple(
            tuple(catalog_pb2.IngestRequest(chunk=chunk).SerializeToString() for chunk in clip_chunks(data))
            for _, data in self._clips("ingest")
        )
        return Upload("ingest", self._client.tenant, self.prefix, clips)

    def live(self) -> Live:
        """RecommendLive with frames at a camera's rate, every frame used and answered."""
        width, height = self._settings.size
        header = recommender_pb2.RecommendLiveHeader(
            tenant=self._client.tenant,
            media=media_pb2.MediaHeader(
                frames=media_pb2.FrameForm(width=width, height=height),
                sampling=media_pb2.Sampling(frames_per_second=10 * self._settings.fps),
            ),
            options=recommender_pb2.RankOptions(limit=self._settings.limit, frames_per_update=1),
            latest_only=self._settings.latest_only,
        )
        first = recommender_pb2.RecommendLiveRequest(header=header).SerializeToString()
        return Live("live", first, frames(width, height, DISTINCT))

    def events(self) -> Unary:
        """RecordEvents of new events."""
        items = self._some_ids()
        self._written = True
        requests = []
        for _ in range(VARIETY):
            batch = [
                events_pb2.Event(
                    user_id=self._random.choice(self._users),
                    item_id=self._random.choice(items),
                    kind=self._random.choice(KINDS),
                )
                for _ in range(self._settings.per_call)
            ]
            requests.append(events_pb2.RecordEventsRequest(tenant=self._client.tenant, events=batch))
        serialised = tuple(request.SerializeToString() for request in requests)
        return Unary("events", "/matchcut.v1.Events/RecordEvents", serialised, "RecordEventsResponse")

    def user(self) -> Unary:
        """RecommendForUser for users with a history, which is recorded beforehand."""
        self._record_history()
        options = recommender_pb2.RankOptions(limit=self._settings.limit)
        requests = tuple(
            recommender_pb2.RecommendForUserRequest(
                tenant=self._client.tenant, user_id=user, options=options
            ).SerializeToString()
            for user in self._users
        )
        return Unary("user", "/matchcut.v1.Recommender/RecommendForUser", requests, "RecommendForUserResponse")

    def user_live(self) -> Followed:
        """RecommendForUserLive: events of users with a history, each of whom looks at a live list."""
        self._record_history()
        items = self._some_ids()
        options = recommender_pb2.RankOptions(limit=self._settings.limit)
        headers = (
            recommender_pb2.RecommendForUserLiveHeader(tenant=self._client.tenant, user_id=user, options=options)
            for user in self._users
        )
        first = tuple(recommender_pb2.RecommendForUserLiveRequest(header=one).SerializeToString() for one in headers)
        events = tuple(
            events_pb2.Event(item_id=self._random.choice(items), kind=self._random.choice(KINDS)).SerializeToString()
            for _ in range(VARIETY)
        )
        return Followed("user-live", self.prefix, first, events)

    def _record_history(self) -> None:
        if self._with_history:
            return
        items = self._some_ids()
        self._with_history = self._written = True
        events = [Event(user, item_id, "like") for user in self._users for item_id in self._random.choices(items, k=8)]
        self._client.record(events)

    def _recommend(self, name: str, queries: Sequence[recommender_pb2.Query]) -> Unary:
        options = recommender_pb2.RankOptions(limit=self._settings.limit)
        requests = tuple(
            recommender_pb2.RecommendRequest(
                tenant=self._client.tenant, query=query, options=options
            ).SerializeToString()
            for query in queries
        )
        return Unary(name, RECOMMEND, requests, "RecommendResponse")

    def _some_ids(self) -> list[str]:
        if not self._ids:
            items = islice(self._client.items(), MOST_ITEMS)
            found = [item.id for item in items if not item.id.startswith("bench-")]  # left by a run that was cut off
            if not found:
                whose = f"tenant {self._client.tenant!r}" if self._client.tenant else "the default tenant"
                raise BadInput(f"the catalogue of {whose} is empty; put clips in with `matchcut index`, then measure")
            self._random.shuffle(found)
            self._ids = found[:VARIETY]
        return self._ids

    def _clips(self, name: str) -> list[tuple[Path, bytes]]:
        if not self._settings.clips:
            raise BadInput(f"the workload {name} needs clips; name at least one with --clip FILE")
        return [(path, path.read_bytes()) for path in self._settings.clips]


def fresh(prepared: Sequence[Prepared], run: int) -> tuple[Prepared, ...]:
    """The same for another run, in which uploads and live events have ids of their own."""
    named = (Upload, Followed)
    return tuple(replace(one, prefix=f"{one.prefix}{run}-") if isinstance(one, named) else one for one in prepared)


OWN: dict[str, Callable[[Own], Prepared]] = {
    "query": Own.query,
    "vector": Own.vector,
    "clip": Own.clip,
    "ingest": Own.ingest,
    "live": Own.live,
    "events": Own.events,
    "user": Own.user,
    "user-live": Own.user_live,
}
LIVE = frozenset({"live"})  # those that are streams of frames
