"""The contract keeps its promises: all of it is explained, named by its rules, and only ever grows."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator

import pytest
from contract.snapshot import BASELINE, breaks, descriptors, messages, snapshot
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)

INT64 = FieldDescriptorProto.TYPE_INT64

# Counts and sizes are int64, too; whatever else is, is a time and says so by its name.
COUNTS = {
    "bytes",
    "frames",
    "frames_seen",
    "frames_used",
    "frames_blank",
    "frames_dropped",
    "frames_reused",
    "revision",
    "total_size",
    "ready_size",
    "recorded",
    "duplicates",
    "unknown_items",
    "expired",
    "events",
    "exposures",
    "users",
}

# Numbers of the fields in descriptor.proto that lead from a file to what stands in it: message_type, enum_type ...
IN_FILE = {"message_type": 4, "enum_type": 5, "service": 6}
IN_MESSAGE = {"field": 2, "nested_type": 3, "enum_type": 4, "oneof_decl": 8}
IN_ENUM = {"value": 2}
IN_SERVICE = {"method": 2}
BELOW = {"message_type": IN_MESSAGE, "nested_type": IN_MESSAGE, "enum_type": IN_ENUM, "service": IN_SERVICE}

Files = list[FileDescriptorProto]


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The contract's files with their comments."""
    return descriptors(tmp_path_factory.mktemp("contract"))


@pytest.fixture
def files(parsed: Files) -> Files:
    """A copy to do what one likes with."""
    return copy.deepcopy(parsed)


def uncommented(files: Files) -> Iterator[str]:
    """The names of whatever stands without a comment right above it."""
    for file in files:
        commented = {tuple(place.path) for place in file.source_code_info.location if place.leading_comments.strip()}
        for name, path in _places(file, file.package, IN_FILE, ()):
            if path not in commented:
                yield name


def _places(
    parent: FileDescriptorProto | DescriptorProto, prefix: str, kinds: dict[str, int], path: tuple[int, ...]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    for kind, number in kinds.items():
        for index, child in enumerate(getattr(parent, kind)):
            if _made_by_protoc(parent, kind, child):
                continue
            here = (*path, number, index)
            yield f"{prefix}.{child.name}", here
            yield from _places(child, f"{prefix}.{child.name}", BELOW.get(kind, {}), here)


def _made_by_protoc(parent: object, kind: str, child: object) -> bool:
    """Nobody wrote the entry type of a map, nor the oneof of an `optional`, so neither has a comment."""
    if isinstance(child, DescriptorProto):
        return child.options.map_entry
    return kind == "oneof_decl" and any(
        field.proto3_optional and f"_{field.name}" == getattr(child, "name", "")
        for field in getattr(parent, "field", ())
    )


def misnamed(files: Files) -> Iterator[str]:
    """What breaks the rules of time and of enums."""
    for file in files:
        for name, message in messages(file):
            for field in message.field:
                ends = field.name.endswith("_us")
                if ends and field.type != INT64:
                    yield f"{name}.{field.name} is a time, so it must be int64"
                if field.type == INT64 and not ends and field.name not in COUNTS and not message.options.map_entry:
                    yield f"{name}.{field.name} is int64: end it in _us, or add it to COUNTS if it is no time"
            for enum in message.enum_type:
                yield from _enum(enum)
        for enum in file.enum_type:
            yield from _enum(enum)


def _enum(enum: EnumDescriptorProto) -> Iterator[str]:
    first = enum.value[0]
    if first.number or not first.name.endswith("_UNSPECIFIED"):
        yield f"{enum.name} must begin with an _UNSPECIFIED of number 0"
    if len({value.number for value in enum.value}) < len(enum.value):
        yield f"{enum.name} gives two values one number"


def baseline() -> dict[str, dict[str, dict[str, int | str]]]:
    """What clients already rely on."""
    loaded: dict[str, dict[str, dict[str, int | str]]] = json.loads(BASELINE.read_text(encoding="utf-8"))
    return loaded


def test_everything_is_commented(parsed: Files) -> None:
    assert list(uncommented(parsed)) == []


def test_times_and_enums_follow_the_rules(parsed: Files) -> None:
    assert list(misnamed(parsed)) == []


def test_nothing_published_changes(parsed: Files) -> None:
    assert list(breaks(baseline(), snapshot(parsed))) == []


def test_the_baseline_knows_all_that_is_published(parsed: Files) -> None:
    assert baseline() == snapshot(parsed), "run `python tests/contract/snapshot.py` and commit what it writes"


def test_the_baseline_is_not_empty() -> None:
    known = baseline()
    assert known["services"]["matchcut.v1.Recommender"]["RecommendLive"] == (
        "stream matchcut.v1.RecommendLiveRequest -> stream matchcut.v1.RecommendResponse"
    )
    assert known["messages"]["matchcut.v1.Query"]["clip"] == "3 matchcut.v1.ClipQuery in source"
    assert known["messages"]["matchcut.v1.Item"]["tags"] == "4 repeated string"
    assert known["enums"]["matchcut.v1.IngestOutcome"]["INGEST_OUTCOME_UPDATED"] == 4


# --- that these tests can fail -----------------------------------------------------------------------------------


def message(files: Files, name: str) -> DescriptorProto:
    """The message of that name."""
    return next(found for file in files for full, found in messages(file) if full == f"matchcut.v1.{name}")


def remove_field(files: Files) -> None:
    del message(files, "Item").field[1]


def renumber(files: Files) -> None:
    message(files, "Item").field[1].number = 99


def retype(files: Files) -> None:
    message(files, "Item").field[1].type = FieldDescriptorProto.TYPE_BYTES


def repeat(files: Files) -> None:
    message(files, "Item").field[1].label = FieldDescriptorProto.LABEL_REPEATED


def leave_oneof(files: Files) -> None:
    message(files, "Query").field[2].ClearField("oneof_index")


def reuse_number(files: Files) -> None:
    title = message(files, "Item").field[1]
    title.name = "headline"


def rename_value(files: Files) -> None:
    enum = next(enum for file in files for enum in file.enum_type if enum.name == "ShotMode")
    enum.value[1].name = "SHOT_MODE_FULL"


def remove_message(files: Files) -> None:
    for file in files:
        kept = [found for found in file.message_type if found.name != "Stage"]
        del file.message_type[:]
        file.message_type.extend(kept)


def unstream(files: Files) -> None:
    for file in files:
        for service in file.service:
            for method in service.method:
                method.server_streaming = False


@pytest.mark.parametrize(
    ("mutate", "found"),
    [
        (remove_field, "matchcut.v1.Item.title is gone"),
        (renumber, "matchcut.v1.Item.title was `2 string` and is `99 string`"),
        (retype, "matchcut.v1.Item.title was `2 string` and is `2 bytes`"),
        (repeat, "matchcut.v1.Item.title was `2 string` and is `2 repeated string`"),
        (leave_oneof, "matchcut.v1.Query.clip was"),
        (reuse_number, "matchcut.v1.Item.headline reuses number 2 of title"),
        (rename_value, "matchcut.v1.ShotMode.SHOT_MODE_FULL reuses number 1 of SHOT_MODE_EXACT"),
        (remove_message, "matchcut.v1.Stage is gone"),
        (unstream, "matchcut.v1.Recommender.RecommendLive was"),
    ],
)
def test_a_change_that_breaks_clients_is_found(files: Files, mutate: Callable[[Files], None], found: str) -> None:
    before = snapshot(files)
    mutate(files)
    assert [fault for fault in breaks(before, snapshot(files)) if fault.startswith(found)]


def test_growth_breaks_nobody(files: Files) -> None:
    before = snapshot(files)
    message(files, "Item").field.add(name="language", number=7, type=FieldDescriptorProto.TYPE_STRING)
    files[0].message_type.add(name="Novel")
    assert list(breaks(before, snapshot(files))) == []
    assert before != snapshot(files)


@pytest.mark.parametrize(
    "name",
    [
        "matchcut.v1.Catalog",
        "matchcut.v1.Catalog.Ingest",
        "matchcut.v1.Item",
        "matchcut.v1.Item.item_id",
        "matchcut.v1.Query.source",
        "matchcut.v1.ShotMode",
        "matchcut.v1.ShotMode.SHOT_MODE_OFF",
        "matchcut.v1.RankOptions.minimum_score",
    ],
)
def test_a_missing_comment_is_found(files: Files, name: str) -> None:
    for file in files:
        places = dict(_places(file, file.package, IN_FILE, ()))
        for location in file.source_code_info.location:
            if tuple(location.path) == places.get(name):
                location.leading_comments = ""
    assert list(uncommented(files)) == [name]


@pytest.mark.parametrize(
    ("kind", "name", "found"),
    [
        (FieldDescriptorProto.TYPE_INT32, "length_us", "must be int64"),
        (INT64, "length", "end it in _us"),
    ],
)
def test_a_misnamed_time_is_found(
    files: Files, kind: FieldDescriptorProto.Type.ValueType, name: str, found: str
) -> None:
    message(files, "Item").field.add(name=name, number=50, type=kind)
    assert [fault for fault in misnamed(files) if found in fault]


def test_an_enum_without_unspecified_is_found(files: Files) -> None:
    enum = files[0].enum_type.add(name="Colour")
    enum.value.add(name="COLOUR_RED", number=0)
    enum.value.add(name="COLOUR_CRIMSON", number=0)
    assert list(misnamed(files)) == [
        "Colour must begin with an _UNSPECIFIED of number 0",
        "Colour gives two values one number",
    ]
