"""The rules of style that buf's STANDARD category has (https://buf.build/docs/lint/rules), for the contract's files.

Left out is SERVICE_SUFFIX: our services are called by what they are, Catalog, Recommender and Events, and clients rely
on the names. What is allowed to break another rule is listed with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from contract.snapshot import messages
from google.protobuf.descriptor_pb2 import EnumDescriptorProto, FileDescriptorProto, ServiceDescriptorProto

PASCAL = re.compile(r"([A-Z][a-z0-9]*)+")
SNAKE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
CAPITALS = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")

SHARED = {
    "RecommendResponse": "a ranking is the same whether asked once or live",
    "RecommendForUserResponse": "likewise for users",
    "IngestResponse": "what was kept is the same from media and from vectors",
    "RecordEventsRequest": "the stream takes the same messages one by one",
    "RecordEventsResponse": "likewise",
}


def unlike(files: list[FileDescriptorProto]) -> Iterator[str]:
    """What breaks a rule, one sentence each."""
    for file in files:
        yield from _file(file)
        for name, message in messages(file):
            if not PASCAL.fullmatch(message.name):
                yield f"{name} must be in PascalCase"
            for part in [*(field.name for field in message.field), *(oneof.name for oneof in message.oneof_decl)]:
                if not SNAKE.fullmatch(part.removeprefix("_")):
                    yield f"{name}.{part} must be in lower_snake_case"
            for enum in message.enum_type:
                yield from _enum(enum)
        for enum in file.enum_type:
            yield from _enum(enum)
    yield from _methods([service for file in files for service in file.service])


def _file(file: FileDescriptorProto) -> Iterator[str]:
    folder, _, base = file.name.rpartition("/")
    if file.syntax != "proto3":
        yield f"{file.name} must say which syntax it has: proto3"
    if file.package.replace(".", "/") != folder:
        yield f"{file.name} must lie in the folder of its package {file.package}"
    if not re.search(r"\.v[1-9][0-9]*$", file.package):
        yield f"{file.name} must be of a package that ends in its version"
    if not SNAKE.fullmatch(base.removesuffix(".proto")):
        yield f"{file.name} must be in lower_snake_case"
    if file.public_dependency or file.weak_dependency:
        yield f"{file.name} must import neither publicly nor weakly"


def _enum(enum: EnumDescriptorProto) -> Iterator[str]:
    prefix = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", enum.name).upper()
    if not PASCAL.fullmatch(enum.name):
        yield f"{enum.name} must be in PascalCase"
    for value in enum.value:
        if not CAPITALS.fullmatch(value.name):
            yield f"{value.name} must be in UPPER_SNAKE_CASE"
        if not value.name.startswith(f"{prefix}_"):
            yield f"{value.name} must begin with {prefix}_"


def _methods(services: list[ServiceDescriptorProto]) -> Iterator[str]:
    used: set[str] = set()
    for service in services:
        if not PASCAL.fullmatch(service.name):
            yield f"{service.name} must be in PascalCase"
        for method in service.method:
            if not PASCAL.fullmatch(method.name):
                yield f"{service.name}.{method.name} must be in PascalCase"
            for kind, full in (("Request", method.input_type), ("Response", method.output_type)):
                name = full.rpartition(".")[2]
                if name in SHARED:
                    continue
                if name not in (f"{method.name}{kind}", f"{service.name}{method.name}{kind}"):
                    yield f"{service.name}.{method.name} must have a {method.name}{kind}, not {name}"
                if name in used:
                    yield f"{name} must be of one method only"
                used.add(name)
