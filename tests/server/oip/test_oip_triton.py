"""The standard client, tritonclient, uses every rpc: sync, asyncio and streams."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matchcut.inference import grpc_service_pb2 as pb
from matchcut.inference import grpc_service_pb2_grpc
from support.apart import Apart
from support.fake_models import FakeModel

ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)
DOUBLE = [("x", "FP32", ROWS)]


def step(value: float, sequence: int | str, *, start: bool = False, end: bool = False) -> tuple[str, Any, Any]:
    """A step of a sequence of the model that sums."""
    options = {"sequence_id": sequence, "sequence_start": start, "sequence_end": end, "request_id": f"{sequence}"}
    return "total", [("value", "FP32", np.full((1, 1), value, np.float32))], options


async def test_it_describes_server_and_models(served: Any, triton: Apart) -> None:
    await triton.run("infer", served.address, "double", DOUBLE)
    told = await triton.run("descriptions", served.address, "double")
    assert told["live"]
    assert told["ready"]
    assert told["model_ready"]
    assert not told["nothing_ready"]
    assert told["server"]["name"] == "matchcut"
    assert told["server"]["extensions"] == ["classification", "sequence", "model_configuration", "statistics"]
    assert told["model"] == {
        "name": "double",
        "versions": ["1"],
        "platform": "numpy_function",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": ["-1", "4"]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": ["-1", "4"]}],
    }
    config = told["config"]
    assert (config["name"], config["backend"], config["max_batch_size"]) == ("double", "numpy", 8)
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": ["4"]}]
    assert config["output"] == [{"name": "y", "data_type": "TYPE_FP32", "dims": ["4"]}]
    assert config["instance_group"] == [{"name": "double", "count": 1, "kind": "KIND_CPU"}]
    assert config["version_policy"] == {"specific": {"versions": ["1"]}}
    assert "dynamic_batching" in config
    (entry,) = [entry for entry in told["index"] if entry["name"] == "broken"]
    assert entry == {"name": "broken", "version": "1", "state": "UNAVAILABLE", "reason": "it is broken"}
    assert len(told["all_statistics"]) == len(told["index"]) - 1


async def test_statistics_have_equal_counts(served: Any, triton: Apart) -> None:
    for _ in range(3):
        await triton.run("infer", served.address, "double", DOUBLE)
    bad = [("x", "FP32", np.zeros((1, 5), np.float32))]
    assert (await triton.run("infer", served.address, "double", bad))["status"] == "INVALID_ARGUMENT"
    told = await triton.run("descriptions", served.address, "double")
    (counted,) = told["statistics"]
    assert (counted["inference_count"], counted["execution_count"]) == ("6", "3")
    assert int(counted["last_inference"]) > 1_600_000_000_000
    parts = ("success", "queue", "compute_input", "compute_infer", "compute_output")
    assert {counted["inference_stats"][part]["count"] for part in parts} == {"3"}
    assert int(counted["inference_stats"]["success"]["ns"]) > 0
    (batch,) = counted["batch_stats"]
    assert batch["batch_size"] == "2"
    assert {batch[part]["count"] for part in parts[2:]} == {"3"}


@pytest.mark.parametrize("way", ["infer_at_once", "infer_aio"])
async def test_requests_at_once_get_their_own_answers(way: str, served: Any, triton: Apart) -> None:
    requests = [[("x", "FP32", np.full((1, 4), number, np.float32))] for number in range(24)]
    answers = await triton.run(way, served.address, "double", requests)
    assert [answer["outputs"]["y"][0, 0] for answer in answers] == [2.0 * number for number in range(24)]
    assert served.models["double"].runs == 24


async def test_an_answer_has_id_model_and_the_outputs_asked_for(served: Any, triton: Apart) -> None:
    inputs = [("a", "INT32", np.full((1, 3), 5, np.int32)), ("b", "INT32", np.full((1, 3), 2, np.int32))]
    both = await triton.run("infer", served.address, "add_sub", inputs, request_id="seven\0")
    assert both["id"] == "seven\0"
    assert both["model"] == ("add_sub", "1")
    assert both["outputs"]["sum"].tolist() == [[7, 7, 7]]
    assert both["outputs"]["difference"].tolist() == [[3, 3, 3]]
    one = await triton.run("infer", served.address, "add_sub", inputs, [("difference", 0)], model_version="1")
    assert one["outputs"].keys() == {"difference"}
    twice = await triton.run("infer", served.address, "add_sub", inputs, [("difference", 0)] * 2)
    assert twice["outputs"]["difference"].tolist() == [[3, 3, 3]], "Triton answers once, too"


async def test_bytes_come_back_as_they_went(served: Any, triton: Apart) -> None:
    words = np.array([[b"caf\xc3\xa9"], [b""], [b"nul\0\0"]], np.object_)
    answer = await triton.run("infer", served.address, "words", [("text", "BYTES", words)])
    assert answer["outputs"]["capitals"][:, 0].tolist() == [b"CAF\xc3\xa9", b"", b"NUL\0\0"]


async def test_half_precision_comes_back_as_it_went(served: Any, triton: Apart) -> None:
    values = np.array([[1.5, -2.0, float("nan"), float("inf")]], np.float32)
    brain = await triton.run("infer", served.address, "echo_BF16", [("in", "BF16", values)])
    assert np.array_equal(brain["outputs"]["out"], values, equal_nan=True)
    half = await triton.run("infer", served.address, "echo_FP16", [("in", "FP16", values.astype(np.float16))])
    assert np.array_equal(half["outputs"]["out"], values.astype(np.float16), equal_nan=True)


async def test_classes_are_told_with_their_labels(served: Any, triton: Apart) -> None:
    scores = np.array([[0.25, 0.5, 0.125], [0.5, 0.5, 1.0]], np.float32)
    answer = await triton.run("infer", served.address, "scores", [("in", "FP32", scores)], [("out", 2)])
    assert answer["outputs"]["out"].tolist() == [
        [b"0.500000:1:dog", b"0.250000:0:cat"],
        [b"1.000000:2", b"0.500000:0:cat"],
    ]
    all_of_them = await triton.run("infer", served.address, "scores", [("in", "FP32", scores)], [("out", 9)])
    assert all_of_them["outputs"]["out"].shape == (2, 3)


async def test_sequences_go_from_call_to_call_of_a_connection(served: Any, triton: Apart) -> None:
    steps = [step(1, 7, start=True), step(2, 7), step(9, "seven", start=True), step(4, 7, end=True), step(1, 7)]
    *told, gone = await triton.run("infer_each", served.address, steps)
    assert [one["outputs"]["total"][0, 0] for one in told] == [1, 3, 9, 7]
    assert gone["status"] == "INVALID_ARGUMENT"
    assert "START" in gone["message"]
    (other,) = await triton.run("infer_each", served.address, [step(1, "seven")])
    assert other["status"] == "INVALID_ARGUMENT", "another connection has other sequences"


@pytest.mark.parametrize("way", ["stream", "stream_aio"])
async def test_a_stream_answers_each_sequence_in_order(way: str, served: Any, triton: Apart) -> None:
    steps = [step(number, name, start=not number, end=number == 5) for number in range(6) for name in (3, "b", 4)]
    told = await triton.run(way, served.address, steps)
    for name in ("3", "b", "4"):
        sums = [float(one["outputs"]["total"][0, 0]) for one in told if one["id"] == name]
        assert sums == [0, 1, 3, 6, 10, 15]
    assert not served.models["total"].states


async def test_an_error_on_a_stream_is_told_in_its_answer(served: Any, triton: Apart) -> None:
    requests = [("nothing", DOUBLE, {}), ("double", DOUBLE, {"request_id": "after"})]
    answers = await triton.run("stream_aio", served.address, requests)
    (error,) = [one for one in answers if "message" in one]
    assert error["message"].startswith("Request for unknown model: 'nothing' is not found")
    assert not error["status"]
    (after,) = [one for one in answers if "outputs" in one]
    assert after["id"] == "after"


async def test_an_error_ends_a_stream_that_wants_the_status(served: Any, triton: Apart) -> None:
    headers = {"triton_grpc_error": "true"}
    answers = await triton.run("stream", served.address, [("nothing", DOUBLE, {})], headers=headers)
    assert [one["status"] for one in answers] == ["NOT_FOUND"]
    answers = await triton.run("stream", served.address, [("double", DOUBLE, {})], headers=headers)
    assert np.array_equal(answers[0]["outputs"]["y"], ROWS * 2)


async def test_the_only_answer_says_so_where_that_is_asked_for(served: Any, triton: Apart) -> None:
    (told,) = await triton.run("stream", served.address, [("double", DOUBLE, {})], final=True)
    assert told["final"] is True
    (untold,) = await triton.run("stream", served.address, [("double", DOUBLE, {})])
    assert untold["final"] is None


async def test_a_timeout_is_the_deadline(served: Any, triton: Apart) -> None:
    model: FakeModel = served.models["double"]
    model.blocked.clear()
    late = await triton.run("infer", served.address, "double", DOUBLE, timeout=20_000)
    assert late["status"] == "DEADLINE_EXCEEDED"
    assert model.runs == 0
    model.blocked.set()
    assert "outputs" in await triton.run("infer", served.address, "double", DOUBLE, timeout=30_000_000, priority=3)


async def test_models_are_loaded_and_unloaded_where_that_is_allowed(serving: Any, triton: Apart) -> None:
    served = await serving(model_control="explicit")
    server = await triton.run("call", served.address, "get_server_metadata", as_json=True)
    assert "model_repository" in server["extensions"]
    assert await triton.run("call", served.address, "unload_model", "double") is None
    gone = await triton.run("infer", served.address, "double", DOUBLE)
    assert gone["status"] == "UNAVAILABLE"
    assert await triton.run("call", served.address, "is_model_ready", "double") is False
    assert await triton.run("call", served.address, "load_model", "double") is None
    assert "outputs" in await triton.run("infer", served.address, "double", DOUBLE)
    broken = await triton.run("call", served.address, "load_model", "broken")
    assert (broken["status"], "it is broken" in broken["message"]) == ("INTERNAL", True)
    nothing = await triton.run("call", served.address, "load_model", "nothing")
    assert nothing["status"] == "NOT_FOUND"
    written = await triton.run("call", served.address, "load_model", "double", config="{}")
    assert written["status"] == "INVALID_ARGUMENT"


async def test_models_are_not_loaded_or_unloaded_by_default(served: Any, triton: Apart) -> None:
    for method in ("load_model", "unload_model"):
        refused = await triton.run("call", served.address, method, "double")
        assert refused["status"] == "PERMISSION_DENIED"
        assert "--model-control explicit" in refused["message"]
    assert "outputs" in await triton.run("infer", served.address, "double", DOUBLE)


async def test_tensors_lie_in_shared_memory(serving: Any, triton: Apart) -> None:
    served = await serving(shared_memory=2)
    server = await triton.run("call", served.address, "get_server_metadata", as_json=True)
    assert "system_shared_memory" in server["extensions"]
    told = await triton.run("in_shared_memory", served.address, "double", "x", ROWS, "y")
    region = {"name": "frames", "key": "/matchcut-test-frames", "byte_size": str(2 * ROWS.nbytes)}
    assert told["status"] == {"regions": {"frames": region}}
    assert np.array_equal(told["computed"], ROWS * 2)
    assert told["place"] == ("frames", ROWS.nbytes)
    assert told["after"] == {}
    assert not Path("/dev/shm/matchcut-test-frames").exists()


@pytest.mark.parametrize(
    ("method", "arguments", "status"),
    [
        ("register_cuda_shared_memory", ("r", b"aGFuZGxl", 0, 8), "UNIMPLEMENTED"),
        ("get_cuda_shared_memory_status", ("r",), "NOT_FOUND"),
        ("update_trace_settings", ("double", {"trace_level": "OFF"}), "UNIMPLEMENTED"),
        ("get_trace_settings", (), "UNIMPLEMENTED"),
        ("update_log_settings", ({"log_info": True},), "UNIMPLEMENTED"),
        ("get_log_settings", (), "UNIMPLEMENTED"),
        ("register_system_shared_memory", ("r", "/r", 8), "PERMISSION_DENIED"),
    ],
)
async def test_what_it_has_not_is_refused(method: str, arguments: Any, status: str, served: Any, triton: Apart) -> None:
    told = await triton.run("call", served.address, method, *arguments)
    assert told["status"] == status
    assert told["message"]


async def test_there_is_no_cuda_memory_to_forget(served: Any, triton: Apart) -> None:
    assert await triton.run("call", served.address, "get_cuda_shared_memory_status", as_json=True) == {}
    assert await triton.run("call", served.address, "unregister_cuda_shared_memory") is None


async def test_a_server_that_cannot_work_is_not_ready(serving: Any, triton: Apart) -> None:
    served = await serving(ready=False)
    assert await triton.run("call", served.address, "is_server_live") is True
    assert await triton.run("call", served.address, "is_server_ready") is False
    assert await triton.run("call", served.address, "is_model_ready", "double") is False


async def test_every_rpc_of_the_protocol_is_there() -> None:
    service: Any = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    from matchcut.server.oip.service import InferenceService

    base = grpc_service_pb2_grpc.GRPCInferenceServiceServicer
    for method in service.methods:
        assert getattr(InferenceService, method.name) is not getattr(base, method.name), method.name
