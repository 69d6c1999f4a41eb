"""A tour of matchcut in Python. Every client has this program, and each prints the same lines; see clients/README.md.

    python clients/python/example/tour.py build/media             the tour
    python clients/python/example/tour.py build/media restart     waits for a line, then asks a server that may be away

It finds the server as the command line does, but for the tenant, which is "tour" unless MATCHCUT_TENANT names another:
MATCHCUT_SERVER, MATCHCUT_TLS_CA, MATCHCUT_CLIENT_TOKEN_FILE.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path

from matchcut.client import Client, Error, Event, Ingested, NotFound, Ranking, Retry, UserRanking

CLIPS = {"a": ["people"], "bikes": ["traffic", "outdoors"], "carphone": ["people", "traffic"]}
HOUR_AGO = time.time() - 3600  # when things happened, in seconds since the Unix epoch
OURS = (*CLIPS, "twin")  # all items that are put in here
SIDE = 64  # of the frames that are made here


def main() -> None:
    """Connects, and takes the tour that the command line names."""
    media, what = Path(sys.argv[1]), sys.argv[2:]
    with connect() as client:
        restart(client, media) if what == ["restart"] else tour(client, media)


def connect() -> Client:
    """A client that tries again for a good while, so that a server may be restarted."""
    token = os.environ.get("MATCHCUT_CLIENT_TOKEN_FILE")
    return Client(
        os.environ.get("MATCHCUT_SERVER", "127.0.0.1:7411"),
        tenant=os.environ.get("MATCHCUT_TENANT", "tour"),
        tls=os.environ.get("MATCHCUT_TLS_CA"),
        token=Path(token).read_text().strip() if token else None,
        timeout=60,
        retry=Retry(attempts=30, initial=0.2, maximum=1.0),
    )


def tour(client: Client, media: Path) -> None:
    """Everything once."""
    print("health:", client.health())
    tidy(client)
    fill(client, media)
    look(client)
    ask(client, media)
    watch(client, media)
    follow(client)
    fail(client, media)
    stop(client, media)
    tidy(client)
    print("left:", len(list(client.items())), "items")


def tidy(client: Client) -> None:
    """Takes out what a tour puts in."""
    for name in OURS:
        client.remove(name, missing_ok=True)


def fill(client: Client, media: Path) -> None:
    """Items go in, with progress."""
    for name, tags in CLIPS.items():
        sent: list[tuple[int, int | None]] = []
        told = client.ingest(
            name,
            media / f"{name}.mp4",
            title=f"The clip {name}",
            tags=tags,
            attributes={"file": f"{name}.mp4"},
            progress=lambda done, total, sent=sent: sent.append((done, total)),  # type: ignore[misc]
        )
        grew = all(before < after for (before, _), (after, _) in pairwise(sent))
        print(f"{name}: sent {sent[-1][0]} of {sent[-1][1]} bytes,", "growing" if grew else "not growing")
        print(f"{name}: {outcome(told)}")
    again = client.ingest("bikes", media / "bikes.mp4", title="Bikes", tags=CLIPS["bikes"])
    print(f"bikes again: {outcome(again)}, titled {again.item.title}")


def outcome(told: Ingested) -> str:
    """What an ingest did, in words."""
    words = f"{told.outcome.name}, {told.segment_count} segments, {told.item.duration:.2f} s"
    report = told.report
    return words if report is None else f"{words}, {report.codec} {report.width} x {report.height}"


def look(client: Client) -> None:
    """What is in the catalogue, and an item from a vector of another's."""
    stored = client.get("carphone", vectors=True)
    print(f"carphone: {stored.item.title}, tags {' '.join(stored.item.tags)}, file {stored.item.attributes['file']}")
    first = stored.segments[0]
    assert first.range
    print(f"carphone: first segment {first.range.start:.2f} to {first.range.end:.2f} s, {len(first.vector)} numbers")
    print("twin:", outcome(client.ingest_vectors("twin", [((0, 1), first.vector)], title="A vector")))
    print("items:", " ".join(item.id for item in client.items(page_size=2)))
    print("traffic, not people:", " ".join(item.id for item in client.items(all_of=["traffic"], none_of=["people"])))


def ask(client: Client, media: Path) -> None:
    """The catalogue is ranked against items, a vector and a clip."""
    show("like bikes", client.recommend(items=["bikes"]))
    vector = client.get("carphone", vectors=True).segments[0].vector
    show("like a vector", client.recommend(vector=vector, limit=2))
    show("like a clip", client.recommend(clip=media / "carphone_distorted.mp4", exclude=["twin"]))
    show("like a clip, people only", client.recommend(clip=media / "carphone_distorted.mp4", any_of=["people"]))


def watch(client: Client, media: Path) -> None:
    """Live media, and rankings that improve."""
    revisions = [ranking.revision for ranking in client.live(media / "bikes.mp4", frames_per_update=4, limit=2)]
    print("live container:", " ".join(map(str, revisions)))
    for ranking in client.live_frames(frames(9), frames_per_update=4, limit=2):
        show(f"live frames {ranking.revision}{', the last' if ranking.final else ''}", ranking)
    pictures = ((second, (media / f"{name}.jpg").read_bytes()) for second, name in enumerate(("lion", "tower")))
    *_, last = client.live_pictures(pictures)
    show("live pictures", last)


def frames(count: int) -> Iterator[tuple[float, memoryview]]:
    """Frames of 64 x 64 pixels, RGB: two colours that move, two frames a second."""
    for at in range(count):
        pixels = bytearray()
        for y in range(SIDE):
            for x in range(SIDE):
                pixels += bytes(((x * 4 + at * 16) % 256, (y * 4) % 256, (x * y + at * 8) % 256))
        yield at / 2, memoryview(pixels).cast("B", (SIDE, SIDE, 3))


def follow(client: Client) -> None:
    """What a user did, and what that user should see."""
    show_user("nobody knows ann", client.recommend_for("ann"))
    events = [
        Event("ann", "bikes", "like", time=HOUR_AGO, id="1"),
        Event("ann", "a", "watch", time=HOUR_AGO + 60, fraction=0.25, id="2"),
        Event("ann", "not-there-yet", "click", time=HOUR_AGO + 120, id="3"),
    ]
    for turn in ("first", "second"):
        told = client.record(events)
        print(f"{turn} time: {told.recorded} new, {told.duplicates} known, {told.unknown_items} of unknown items")
    show_user("for ann", client.recommend_for("ann", include_seen=True))
    show_user("for ann, unseen", client.recommend_for("ann"))
    show_user("for a history", client.recommend_for(history=[Event("", "carphone", "like", time=HOUR_AGO + 180)]))
    with client.recommend_live_for("ann", include_seen=True) as live:
        assert live.ranking
        show_user("live for ann", live.ranking)
        show_user("ann saves carphone", live.event("carphone", "save", time=HOUR_AGO + 180, id="4"))
        show_user("the end", live.end())
    receipt = client.forget("ann")
    print(f"ann forgotten: {receipt.events} events; again: {client.forget('ann').events}")


def fail(client: Client, media: Path) -> None:
    """What goes wrong comes as the language's own errors, with the server's words."""
    missed("an item that is not there", lambda: client.get("nobody"))
    missed("a vector too short", lambda: client.ingest_vectors("short", [(None, [1.0, 2.0])]))
    missed("no video", lambda: client.ingest("text", b"This is no video at all. " * 100))
    missed("too many", lambda: client.recommend(items=["bikes"], limit=1001))
    missed("no time", lambda: client.recommend(clip=media / "bikes.mp4", timeout=0.001), words=False)


def missed(what: str, call: Callable[[], object], *, words: bool = True) -> None:
    """Prints the error of a call."""
    try:
        call()
        print(f"{what}: no error")
    except Error as error:
        print(f"{what}: {error.code}", *([error.reason, error.field or "-", error.message] if words else []))


def stop(client: Client, media: Path) -> None:
    """Calls that are given up leave nothing behind."""
    rankings = client.live_frames(endless(), frames_per_update=1)
    print("stopped after ranking", next(rankings).revision)
    rankings.close()

    class Enough(Exception):
        pass

    def half() -> Iterator[bytes]:
        yield (media / "bikes.mp4").read_bytes()[:200_000]
        raise Enough

    try:
        client.ingest("half", half())
    except Enough:
        print("an upload given up")
    try:
        client.get("half")
    except NotFound:
        print("half: not there")


def endless() -> Iterator[tuple[float, memoryview]]:
    """The made frames, again and again."""
    at = 0.0
    while True:
        for _, frame in frames(4):
            yield at, frame
            at += 0.5


def restart(client: Client, media: Path) -> None:
    """Puts an item in, waits for a line on standard input, and asks for it: of a server that is being restarted."""
    client.ingest("bikes", media / "bikes.mp4")
    print("ready", flush=True)
    sys.stdin.readline()
    show("after a restart", client.recommend(items=["bikes"], include_themselves=True))
    client.remove("bikes")


def show(what: str, ranking: Ranking) -> None:
    """One line for a ranking."""
    print(f"{what}: {listed(f'{match.item.id} {match.score:.3f}' for match in ranking)}")


def show_user(what: str, ranking: UserRanking) -> None:
    """One line for a user's list."""
    known = "cold" if ranking.cold else f"{ranking.events} events"
    why = (match.item.id + (f" ({match.reason.nearest})" if match.reason.nearest else "") for match in ranking)
    print(f"{what}: {known}; {listed(why)}")


def listed(words: Iterable[str]) -> str:
    """Words with commas."""
    return ", ".join(words) or "nothing"


if __name__ == "__main__":
    main()
