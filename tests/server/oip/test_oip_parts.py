"""Owners of sequences, models beside a repository, and the definition of the messages."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matchcut.server.errors import InvalidInput, MatchcutError, NotFound, Unavailable
from matchcut.server.oip.owners import Owner
from matchcut.server.oip.parameters import RequestParameters
from matchcut.server.oip.regions import Regions
from matchcut.server.oip.together import Together
from matchcut.server.serving import ModelState
from support.fake_models import FakeRepository, repository


def test_an_owner_s_end_is_told_once_to_each_model() -> None:
    models = repository()
    total, double = models["total"], models["double"]
    owner, other = Owner(), Owner("connection")
    given = RequestParameters(sequence_id=3, start=True, end=False, timeout_us=0, final=False)
    for _ in range(2):
        with owner.step(total, given) as step:
            assert step is not None
            assert (step.sequence_id, step.owner, step.start, step.end) == (3, owner, True, False)
    with owner.step(double, given) as none:
        assert none is None, "it keeps no state"
    with other.step(total, given) as step:
        assert step is not None
        assert step.owner == "connection"
    owner.end()
    owner.end()
    assert (total.left, double.left) == ([owner], [])


def test_fixed_models_stand_before_a_repository_s() -> None:
    fixed, others = repository()["double"], repository()
    together = Together(lambda: [fixed], others)
    assert together.model("double") is fixed
    assert together.model("double", "1") is fixed
    assert together.model("words") is others["words"]
    assert together.versions("double") == ["1"]
    assert together.versions("words") == ["1"]
    assert [entry.name for entry in together.index()].count("double") == 1
    with pytest.raises(NotFound, match="version 1 only"):
        together.model("double", "2")
    for change in (together.load, together.unload):
        with pytest.raises(InvalidInput, match="stays loaded"):
            change("double")
    together.unload("words")
    assert {entry.name: entry.state for entry in together.index()}["words"] is ModelState.UNAVAILABLE
    together.load("words")
    assert {entry.name: entry.state for entry in together.index()}["words"] is ModelState.READY


def test_several_repositories_stand_in_order() -> None:
    words, double = repository()["words"], repository()["double"]
    first, second = FakeRepository(words), FakeRepository(double, repository()["words"])
    together = Together(list, first, second)
    assert together.model("words") is words
    assert together.model("double") is double
    assert [entry.name for entry in together.index()] == ["words", "double"]
    together.unload("words")
    with pytest.raises(Unavailable):
        together.model("words")
    with pytest.raises(NotFound):
        together.model("nobody")


def test_fixed_models_may_be_all_there_is() -> None:
    fixed = repository()["double"]
    alone = Together(lambda: [fixed])
    assert [(entry.name, entry.version) for entry in alone.index()] == [("double", "1")]
    for use in (alone.model, alone.versions, alone.load, alone.unload):
        with pytest.raises(NotFound, match="there is no model 'words'"):
            use("words")


DESCRIBE = """
import importlib, json, sys
told = {}
def message(found):
    told[found.full_name] = {
        f.name: [f.number, f.type, f.is_repeated, getattr(f.message_type or f.enum_type, "full_name", ""),
                 f.containing_oneof.name if f.containing_oneof else ""]
        for f in found.fields
    }
    for nested in found.nested_types: message(nested)
    for enum in found.enum_types: told[enum.full_name] = {v.name: v.number for v in enum.values}
for name in sys.argv[1:]:
    file = importlib.import_module(name).DESCRIPTOR
    for found in file.message_types_by_name.values(): message(found)
    for enum in file.enum_types_by_name.values(): told[enum.full_name] = {v.name: v.number for v in enum.values}
    for service in file.services_by_name.values():
        told[service.full_name] = {
            m.name: [m.input_type.full_name, m.output_type.full_name, m.client_streaming, m.server_streaming]
            for m in service.methods
        }
print(json.dumps(told))
"""


def described(*modules: str) -> dict[str, Any]:
    """What the messages of generated modules are, from a process of its own."""
    done = subprocess.run([sys.executable, "-c", DESCRIBE, *modules], check=True, capture_output=True, text=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_the_messages_are_the_protocol_s() -> None:
    ours = described("matchcut.inference.grpc_service_pb2", "matchcut.inference.model_config_pb2")
    theirs = described("tritonclient.grpc.service_pb2", "tritonclient.grpc.model_config_pb2")
    assert len(ours) > 70
    for name, parts in ours.items():
        assert parts.items() <= theirs[name].items(), name
    of_the_service = [name for name in theirs if not name.startswith("inference.Model") or "Infer" in name]
    whole = {name for name in of_the_service if ours.get(name) == theirs[name]}
    assert {"inference.GRPCInferenceService", "inference.ModelInferRequest", "inference.ModelInferResponse"} <= whole


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_none(data: bytes) -> None:
    """What hostile bytes parse to is refused by the checks, never by a crash in them."""
    from google.protobuf.message import DecodeError

    from matchcut.server.oip.framing import received
    from matchcut.server.oip.requests import inference, served

    try:
        request = received(data)
    except DecodeError:
        return
    request.message.model_name = "double"
    with pytest.raises(MatchcutError):
        inference(request, served(repository(), request.message.model_name, ""), Regions(0), 1 << 20)
