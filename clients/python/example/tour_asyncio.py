"""The tour of tour.py with asyncio: `python clients/python/example/tour_asyncio.py build/media [restart]`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable
from itertools import pairwise
from pathlib import Path

from tour import CLIPS, HOUR_AGO, OURS, frames, outcome, show, show_user

from matchcut.client import AsyncClient, Error, Event, NotFound, Retry


async def main() -> None:
    """Connects, and takes the tour that the command line names."""
    media, what = Path(sys.argv[1]), sys.argv[2:]
    async with connect() as client:
        await (restart(client, media) if what == ["restart"] else tour(client, media))


def connect() -> AsyncClient:
    """A client that tries again for a good while, so that a server may be restarted."""
    token = os.environ.get("MATCHCUT_CLIENT_TOKEN_FILE")
    return AsyncClient(
        os.environ.get("MATCHCUT_SERVER", "127.0.0.1:7411"),
        tenant=os.environ.get("MATCHCUT_TENANT", "tour"),
        tls=os.environ.get("MATCHCUT_TLS_CA"),
        token=Path(token).read_text().strip() if token else None,
        timeout=60,
        retry=Retry(attempts=30, initial=0.2, maximum=1.0),
    )


async def tour(client: AsyncClient, media: Path) -> None:
    """Everything once."""
    print("health:", await client.health())
    await tidy(client)
    await fill(client, media)
    await look(client)
    await ask(client, media)
    await watch(client, media)
    await follow(client)
    await fail(client, media)
    await stop(client, media)
    await tidy(client)
    print("left:", len([item async for item in client.items()]), "items")


async def tidy(client: AsyncClient) -> None:
    """Takes out what a tour puts in."""
    for name in OURS:
        await client.remove(name, missing_ok=True)


async def fill(client: AsyncClient, media: Path) -> None:
    """Items go in, with progress."""
    for name, tags in CLIPS.items():
        sent: list[tuple[int, int | None]] = []
        told = await client.ingest(
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
    again = await client.ingest("bikes", media / "bikes.mp4", title="Bikes", tags=CLIPS["bikes"])
    print(f"bikes again: {outcome(again)}, titled {again.item.title}")


async def look(client: AsyncClient) -> None:
    """What is in the catalogue, and an item from a vector of another's."""
    stored = await client.get("carphone", vectors=True)
    print(f"carphone: {stored.item.title}, tags {' '.join(stored.item.tags)}, file {stored.item.attributes['file']}")
    first = stored.segments[0]
    assert first.range
    print(f"carphone: first segment {first.range.start:.2f} to {first.range.end:.2f} s, {len(first.vector)} numbers")
    print("twin:", outcome(await client.ingest_vectors("twin", [((0, 1), first.vector)], title="A vector")))
    print("items:", " ".join([item.id async for item in client.items(page_size=2)]))
    traffic = [item.id async for item in client.items(all_of=["traffic"], none_of=["people"])]
    print("traffic, not people:", " ".join(traffic))


async def ask(client: AsyncClient, media: Path) -> None:
    """The catalogue is ranked against items, a vector and a clip."""
    clip = media / "carphone_distorted.mp4"
    show("like bikes", await client.recommend(items=["bikes"]))
    vector = (await client.get("carphone", vectors=True)).segments[0].vector
    show("like a vector", await client.recommend(vector=vector, limit=2))
    show("like a clip", await client.recommend(clip=clip, exclude=["twin"]))
    show("like a clip, people only", await client.recommend(clip=clip, any_of=["people"]))


async def watch(client: AsyncClient, media: Path) -> None:
    """Live media, and rankings that improve."""
    live = client.live(media / "bikes.mp4", frames_per_update=4, limit=2)
    print("live container:", " ".join([str(ranking.revision) async for ranking in live]))
    async for ranking in client.live_frames(frames(9), frames_per_update=4, limit=2):
        show(f"live frames {ranking.revision}{', the last' if ranking.final else ''}", ranking)
    pictures = ((second, (media / f"{name}.jpg").read_bytes()) for second, name in enumerate(("lion", "tower")))
    last = [ranking async for ranking in client.live_pictures(pictures)][-1]
    show("live pictures", last)


async def follow(client: AsyncClient) -> None:
    """What a user did, and what that user should see."""
    show_user("nobody knows ann", await client.recommend_for("ann"))
    events = [
        Event("ann", "bikes", "like", time=HOUR_AGO, id="1"),
        Event("ann", "a", "watch", time=HOUR_AGO + 60, fraction=0.25, id="2"),
        Event("ann", "not-there-yet", "click", time=HOUR_AGO + 120, id="3"),
    ]
    for turn in ("first", "second"):
        told = await client.record(events)
        print(f"{turn} time: {told.recorded} new, {told.duplicates} known, {told.unknown_items} of unknown items")
    show_user("for ann", await client.recommend_for("ann", include_seen=True))
    show_user("for ann, unseen", await client.recommend_for("ann"))
    history = [Event("", "carphone", "like", time=HOUR_AGO + 180)]
    show_user("for a history", await client.recommend_for(history=history))
    async with client.recommend_live_for("ann", include_seen=True) as live:
        assert live.ranking
        show_user("live for ann", live.ranking)
        show_user("ann saves carphone", await live.event("carphone", "save", time=HOUR_AGO + 180, id="4"))
        show_user("the end", await live.end())
    receipt = await client.forget("ann")
    print(f"ann forgotten: {receipt.events} events; again: {(await client.forget('ann')).events}")


async def fail(client: AsyncClient, media: Path) -> None:
    """What goes wrong comes as the language's own errors, with the server's words."""
    await missed("an item that is not there", client.get("nobody"))
    await missed("a vector too short", client.ingest_vectors("short", [(None, [1.0, 2.0])]))
    await missed("no video", client.ingest("text", b"This is no video at all. " * 100))
    await missed("too many", client.recommend(items=["bikes"], limit=1001))
    await missed("no time", client.recommend(clip=media / "bikes.mp4", timeout=0.001), words=False)


async def missed(what: str, call: Awaitable[object], *, words: bool = True) -> None:
    """Prints the error of a call."""
    try:
        await call
        print(f"{what}: no error")
    except Error as error:
        print(f"{what}: {error.code}", *([error.reason, error.field or "-", error.message] if words else []))


async def stop(client: AsyncClient, media: Path) -> None:
    """Calls that are given up leave nothing behind."""
    rankings = client.live_frames(endless(), frames_per_update=1)
    print("stopped after ranking", (await anext(rankings)).revision)
    await rankings.aclose()
    half = asyncio.create_task(client.ingest("half", stuck((media / "bikes.mp4").read_bytes()[:200_000])))
    await asyncio.sleep(0.1)
    half.cancel()
    try:
        await half
    except asyncio.CancelledError:
        print("an upload given up")
    try:
        await client.get("half")
    except NotFound:
        print("half: not there")


async def stuck(data: bytes) -> AsyncIterator[bytes]:
    """Some bytes, and no more of them for a long time."""
    yield data
    await asyncio.sleep(3600)


async def endless() -> AsyncIterator[tuple[float, memoryview]]:
    """The made frames, again and again."""
    at = 0.0
    while True:
        for _, frame in frames(4):
            yield at, frame
            at += 0.5


async def restart(client: AsyncClient, media: Path) -> None:
    """Puts an item in, waits for a line on standard input, and asks for it: of a server that is being restarted."""
    await client.ingest("bikes", media / "bikes.mp4")
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    show("after a restart", await client.recommend(items=["bikes"], include_themselves=True))
    await client.remove("bikes")


if __name__ == "__main__":
    asyncio.run(main())
