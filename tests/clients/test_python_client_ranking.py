"""Rankings: what both Python clients send and what they make of the replies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matchcut.client import (
    Encoder,
    MediaWarning,
    ServerError,
    TimeRange,
    recommender,
)
from matchcut.v1 import catalog_pb2, common_pb2, media_pb2, recommender_pb2

FULL_REPORT = media_pb2.MediaReport(
    bytes=1,
    frames_seen=2,
    frames_used=3,
    frames_reused=4,
    frames_blank=8,
    frames_dropped=9,
    duration_us=5_500_000,
    truncated=True,
    container="mp4",
    codec="h264",
    width=6,
    height=7,
    max_time_error_us=20_000,
    warnings=[media_pb2.MediaWarning(reason="TRUNCATED", message="Half is missing.")],
)


STAGE = common_pb2.Stage(name="decode", wall_us=1_500_000, cpu_us=250_000, variant="pyav", counts={"frames": 3})


TIMES = common_pb2.StageTimes(stages=[STAGE], total_us=2_000_000)


def test_every_field_of_a_ranking_is_read(client: Any, server: Any) -> None:
    item = catalog_pb2.Item(item_id="a", title="A", uri="u", tags=["t"], attributes={"k": "v"}, duration_us=9_000_000)
    match = recommender_pb2.Match(
        item=item,
        score=0.5,
        item_range=common_pb2.TimeRange(start_us=0, end_us=1_000_000),
        query_item_id="q",
    )
    encoder = common_pb2.Encoder(name="lite", version="1", digest="abc", dimensions=4)
    reply = recommender_pb2.RecommendResponse(
        matches=[match], revision=1, final=True, encoder=encoder, times=TIMES, report=FULL_REPORT, resume=b"state"
    )
    server.on("Recommend", lambda requests, seen, context: [reply])
    result = client.recommend(items=["q"])
    (found,) = result
    assert len(result) == 1
    assert (found.item.id, found.item.title, found.item.uri, found.item.tags) == ("a", "A", "u", ("t",))
    assert (found.item.attributes, found.item.duration) == ({"k": "v"}, 9.0)
    assert (found.score, found.query_item_id) == (0.5, "q")
    assert found.item_range == TimeRange(0.0, 1.0)
    assert found.query_range is None
    assert (result.revision, result.final, result.encoder) == (1, True, Encoder("lite", "1", "abc", 4))
    (stage,) = result.times.stages
    assert (stage.name, stage.wall, stage.cpu, stage.variant, stage.counts) == (
        "decode",
        1.5,
        0.25,
        "pyav",
        {"frames": 3},
    )
    assert result.times.total == 2.0
    report = result.report
    assert (report.bytes, report.frames_seen, report.frames_used, report.frames_reused) == (1, 2, 3, 4)
    assert (report.frames_blank, report.frames_dropped) == (8, 9)
    assert (report.duration, report.truncated, report.container, report.codec) == (5.5, True, "mp4", "h264")
    assert (report.width, report.height, report.max_time_error) == (6, 7, 0.02)
    assert result.resume == b"state"
    assert report.warnings == (MediaWarning("TRUNCATED", "Half is missing."),)


def test_options_left_out_are_the_servers_defaults(client: Any, server: Any) -> None:
    client.ingest("film", [b"x"])
    client.recommend(items=["a"])
    header = server.call().requests[0].header
    assert header.media.sampling == media_pb2.Sampling()
    assert header.media.limits == media_pb2.MediaLimits()
    assert server.call(1).requests[0].options == recommender_pb2.RankOptions(tags=catalog_pb2.TagFilter())


def test_recommend_by_items_and_vector(client: Any, server: Any) -> None:
    result = client.recommend(
        items=["q"], include_themselves=True, limit=3, exclude=["z"], any_of=["x"], minimum_score=0.0
    )
    assert [match.item.id for match in result] == ["a", "b"]
    assert server.call().requests[0] == recommender_pb2.RecommendRequest(
        tenant="films",
        query=recommender_pb2.Query(items=recommender_pb2.ItemsQuery(item_ids=["q"], include_themselves=True)),
        options=recommender_pb2.RankOptions(
            limit=3, exclude_item_ids=["z"], tags=catalog_pb2.TagFilter(any_of=["x"]), minimum_score=0.0
        ),
    )
    client.recommend(vector=np.array([1.0, 2.0], np.float32))
    query = server.call(1).requests[0].query
    assert query == recommender_pb2.Query(vector=recommender_pb2.VectorQuery(values=[1.0, 2.0]))


def test_a_small_clip_goes_in_one_message(client: Any, server: Any, tmp_path: Path, film: bytes) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(film)
    client.recommend(clip=path, format="mp4", rate=2, limit=4)
    request = server.call().requests[0]
    assert server.call().method == "Recommend"
    assert b"".join(chunk.data for chunk in request.query.clip.chunks) == film
    assert max(len(chunk.data) for chunk in request.query.clip.chunks) <= 2**20
    assert request.query.clip.media.container.format == "mp4"
    assert request.query.clip.media.sampling.frames_per_second == 2
    assert request.options.limit == 4


def test_a_large_or_endless_clip_goes_live_and_only_the_last_ranking_returns(
    client: Any, server: Any, containers: Any, film: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recommender, "ONE_MESSAGE", len(film) - 1)
    for number, (clip, _) in enumerate(containers):
        result = client.recommend(clip=clip, limit=4, tolerance=0.5)
        assert (result.final, [match.item.id for match in result]) == (True, ["a", "b"])
        seen = server.call(number)
        assert (seen.method, seen.data) == ("RecommendLive", film)
        header = seen.requests[0].header
        assert (header.options.limit, header.media.sampling.tolerance_us) == (4, 500_000)
        assert header.options.frames_per_update == 2**31 - 1


def test_live_without_a_reply_is_the_servers_fault(client: Any, server: Any) -> None:
    server.on("RecommendLive", lambda requests, seen, context: iter(list(requests)[:0]))
    with pytest.raises(ServerError, match="without a reply"):
        client.recommend(clip=iter([b"x"]))
