"""Puts two clips in and asks what goes with a third."""

import os

from matchcut.client import Client

with Client(os.environ.get("MATCHCUT_SERVER", "127.0.0.1:7411")) as client:
    for name in ("bikes", "carphone"):
        client.ingest(name, f"build/media/{name}.mp4")
    for match in client.recommend(clip="build/media/carphone_distorted.mp4"):
        print(f"{match.item.id} {match.score:.3f}")
