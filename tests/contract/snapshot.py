"""What clients rely on in the contract, as plain data; `python tests/contract/snapshot.py` writes v1.json anew.

The baseline may grow and nothing else: a field, value or method, once published, keeps its number, type and meaning.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from grpc_tools import protoc

PROTO = Path(__file__).parents[2] / "proto"
BASELINE = Path(__file__).with_name("v1.json")

Snapshot = dict[str, dict[str, dict[str, int | str]]]  # kind, full name, part: what it must stay


def descriptors(folder: Path) -> list[FileDescriptorProto]:
    """The files of proto/matchcut/v1 with their comments, by protoc; `folder` takes its output."""
    out = folder / "contract.binpb"
    protos = [str(path) for path in sorted((PROTO / "matchcut" / "v1").rglob("*.proto"))]
    well_known = str(files("grpc_tools") / "_proto")
    options = [f"-I{PROTO}", f"-I{well_known}", "--include_source_info", f"--descriptor_set_out={out}"]
    if protoc.main(["protoc", *options, *protos]):
        raise SystemExit("protoc failed: see the message above")
    return list(FileDescriptorSet.FromString(out.read_bytes()).file)


def messages(file: FileDescriptorProto) -> Iterator[tuple[str, DescriptorProto]]:
    """Each message with its full name, nested ones after the one they are in."""

    def below(prefix: str, found: DescriptorProto) -> Iterator[tuple[str, DescriptorProto]]:
        name = f"{prefix}.{found.name}"
        yield name, found
        for nested in found.nested_type:
            yield from below(name, nested)

    for message in file.message_type:
        yield from below(file.package, message)


def snapshot(protos: list[FileDescriptorProto]) -> Snapshot:
    """Messages, enums and services by full name."""
    taken: Snapshot = {"messages": {}, "enums": {}, "services": {}}
    for file in protos:
        for name, message in messages(file):
            taken["messages"][name] = {field.name: _field(message, field) for field in message.field}
            for enum in message.enum_type:
                taken["enums"][f"{name}.{enum.name}"] = {value.name: value.number for value in enum.value}
        for enum in file.enum_type:
            taken["enums"][f"{file.package}.{enum.name}"] = {value.name: value.number for value in enum.value}
        for service in file.service:
            taken["services"][f"{file.package}.{service.name}"] = _methods(service)
    return taken


def _field(message: DescriptorProto, field: FieldDescriptorProto) -> str:
    """Number, label, type and the oneof it is in; an `optional` of proto3 is a oneof of its own."""
    kind = field.type_name.removeprefix(".") or FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    label = "repeated " if field.label == FieldDescriptorProto.LABEL_REPEATED else ""
    oneof = f" in {message.oneof_decl[field.oneof_index].name}" if field.HasField("oneof_index") else ""
    return f"{field.number} {label}{kind}{oneof}"


def _methods(service: ServiceDescriptorProto) -> dict[str, int | str]:
    def side(name: str, streams: bool) -> str:
        return f"{'stream ' if streams else ''}{name.removeprefix('.')}"

    return {
        method.name: side(method.input_type, method.client_streaming)
        + " -> "
        + side(method.output_type, method.server_streaming)
        for method in service.method
    }


def breaks(old: Snapshot, new: Snapshot) -> Iterator[str]:
    """What a client of `old` would stumble over in `new`, one sentence each."""
    for kind, things in old.items():
        for name, parts in things.items():
            if name not in new[kind]:
                yield f"{name} is gone"
                continue
            now = new[kind][name]
            for part, was in parts.items():
                if part not in now:
                    yield f"{name}.{part} is gone"
                elif now[part] != was:
                    yield f"{name}.{part} was `{was}` and is `{now[part]}`"
            if kind != "services":
                yield from _reused(name, parts, now)


def _reused(name: str, old: dict[str, int | str], new: dict[str, int | str]) -> Iterator[str]:
    taken = {_number(part): label for label, part in old.items()}
    for label, part in new.items():
        owner = taken.get(_number(part), label)
        if owner != label:
            yield f"{name}.{label} reuses number {_number(part)} of {owner}"


def _number(part: int | str) -> int:
    return int(str(part).split()[0])


def main() -> None:
    """Writes the baseline; refuses where that would break clients."""
    with tempfile.TemporaryDirectory() as folder:
        new = snapshot(descriptors(Path(folder)))
    if BASELINE.exists():
        found = list(breaks(json.loads(BASELINE.read_text(encoding="utf-8")), new))
        if found:
            raise SystemExit("Not written, since clients rely on what is there:\n" + "\n".join(found))
    BASELINE.write_text(json.dumps(new, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
