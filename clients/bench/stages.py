"""Where the server says that its time went, read out of some of its answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from matchcut.v1 import catalog_pb2, common_pb2, events_pb2, recommender_pb2

__all__ = ["Stages", "in_seconds"]

REPLIES: dict[str, Callable[[bytes], Any]] = {
    "RecommendResponse": recommender_pb2.RecommendResponse.FromString,
    "RecommendForUserResponse": recommender_pb2.RecommendForUserResponse.FromString,
    "RecordEventsResponse": events_pb2.RecordEventsResponse.FromString,
    "IngestResponse": catalog_pb2.IngestResponse.FromString,
}
LOOKS = 200  # answers a second, of each kind and process, whose stage times are read; reading costs the generator time


class Stages:
    """Reads stage times out of some of the answers: the first ones of each second.

    Args:
        reply: the message of matchcut.v1 that the answers are; "" where none of them holds stage times.
    """

    def __init__(self, reply: str) -> None:
        self._parse = REPLIES.get(reply)
        self._second = -1
        self._left = LOOKS

    def of(self, answer: bytes, sent: float, arrived: float) -> dict[str, float]:
        """Seconds by stage, with what passed elsewhere; empty where there are none, or enough were read."""
        if self._parse is None or not self._wanted(arrived):
            return {}
        return self._with_rest(in_seconds(self._parse(answer).times), arrived - sent)

    def told(self, times: common_pb2.StageTimes, sent: float, arrived: float) -> dict[str, float]:
        """The same of an answer that was read anyhow."""
        return self._with_rest(in_seconds(times), arrived - sent) if self._wanted(arrived) else {}

    def _wanted(self, now: float) -> bool:
        if int(now) != self._second:
            self._second, self._left = int(now), LOOKS
        self._left -= 1
        return self._left >= 0

    @staticmethod
    def _with_rest(found: dict[str, float], took: float) -> dict[str, float]:
        if found:
            found["elsewhere"] = max(0.0, took - found["total"])
        return found


def in_seconds(times: common_pb2.StageTimes) -> dict[str, float]:
    """Seconds by stage, with "total"; empty where the server tells none."""
    if not times.total_us and not times.stages:
        return {}
    return {**{stage.name: stage.wall_us / 1e6 for stage in times.stages}, "total": times.total_us / 1e6}
