"""The contract's files keep to the usual rules of style; each rule is shown to find what breaks it."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
from contract.snapshot import descriptors
from contract.style import SHARED, unlike
from google.protobuf.descriptor_pb2 import FileDescriptorProto

Files = dict[str, FileDescriptorProto]


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> list[FileDescriptorProto]:
    return descriptors(tmp_path_factory.mktemp("style"))


@pytest.fixture
def files(parsed: list[FileDescriptorProto]) -> Files:
    """A copy to do what one likes with, by the file's name."""
    return {file.name.rpartition("/")[2]: copy.deepcopy(file) for file in parsed}


def test_all_keep_to_the_rules(parsed: list[FileDescriptorProto]) -> None:
    assert list(unlike(parsed)) == []


def test_what_is_shared_is_used(parsed: list[FileDescriptorProto]) -> None:
    used = [
        name.rpartition(".")[2]
        for file in parsed
        for service in file.service
        for method in service.method
        for name in (method.input_type, method.output_type)
    ]
    assert all(used.count(name) > 1 for name in SHARED)


def second_package(files: Files) -> None:
    files["events.proto"].package = "matchcut"


def syntax(files: Files) -> None:
    files["events.proto"].syntax = ""


def public_import(files: Files) -> None:
    files["events.proto"].public_dependency.append(0)


def file_name(files: Files) -> None:
    files["events.proto"].name = "matchcut/v1/Events.proto"


def message_name(files: Files) -> None:
    files["events.proto"].message_type.add(name="one_thing")


def field_name(files: Files) -> None:
    files["events.proto"].message_type[0].field[0].name = "eventId"


def oneof_name(files: Files) -> None:
    files["media.proto"].message_type[0].oneof_decl[0].name = "Form"


def value_prefix(files: Files) -> None:
    files["events.proto"].enum_type[0].value[1].name = "IMPRESSION"


def value_name(files: Files) -> None:
    files["events.proto"].enum_type[0].value[1].name = "EVENT_KIND_impression"


def method_name(files: Files) -> None:
    files["events.proto"].service[0].method[0].name = "recordEvents"


def method_request(files: Files) -> None:
    files["events.proto"].service[0].method[2].input_type = ".matchcut.v1.Event"


def method_shares(files: Files) -> None:
    files["catalog.proto"].service[0].method[2].output_type = ".matchcut.v1.RemoveItemResponse"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (second_package, "must be of a package that ends in its version"),
        (second_package, "must lie in the folder of its package matchcut"),
        (syntax, "must say which syntax it has"),
        (public_import, "must import neither publicly"),
        (file_name, "matchcut/v1/Events.proto must be in lower_snake_case"),
        (message_name, "one_thing must be in PascalCase"),
        (field_name, "eventId must be in lower_snake_case"),
        (oneof_name, "Form must be in lower_snake_case"),
        (value_prefix, "IMPRESSION must begin with EVENT_KIND_"),
        (value_name, "EVENT_KIND_impression must be in UPPER_SNAKE_CASE"),
        (method_name, "Events.recordEvents must be in PascalCase"),
        (method_request, "Events.ForgetUser must have a ForgetUserRequest, not Event"),
        (method_shares, "RemoveItemResponse must be of one method only"),
    ],
)
def test_what_breaks_a_rule_is_found(files: Files, change: Callable[[Files], None], found: str) -> None:
    change(files)
    assert [fault for fault in unlike(list(files.values())) if found in fault]
