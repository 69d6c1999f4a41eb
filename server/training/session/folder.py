"""A version's folder, as a server takes it: see server/session/onnx.py for what is in it.

Each graph is run beside torch on histories of several lengths before anything is written, and refused where it is off
by more than 1e-5; seq.onnx also beside step.onnx, event by event.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from matchcut.server.engines.graphs import GraphEngine
from matchcut.server.errors import InvalidInput
from matchcut.server.models.graph import Graph
from matchcut.server.records import Floats
from matchcut.server.session.description import FILE
from matchcut.server.session.onnx import IDS, ITEMS, SEQUENCE, STEP
from matchcut.server.tensors import Tensors
from matchcut.server.training.export import TOLERANCE, difference, export, gate, refused
from matchcut.server.training.session.dataset import Dataset
from matchcut.server.training.session.network import Network
from matchcut.server.training.session.sasrec import SasRec
from matchcut.server.training.session.scan import over_time
from matchcut.server.training.session.tower import unit

__all__ = ["Graphs", "graphs", "next_version", "write"]

BARE = re.compile("[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Graphs:
    """The ONNX files by name, and by how much each is off torch, and seq.onnx off step.onnx ("seq to step")."""

    files: Mapping[str, bytes]
    errors: Mapping[str, float]


class Step(nn.Module):
    """What step.onnx computes: the next state, and what is wanted then, of unit length."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.history = network.history

    def forward(self, x: Tensor, h: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        h, wanted = self.history.step(x, h, w)
        return h, unit(wanted)


class Sequence(nn.Module):
    """What seq.onnx computes, as torch has it in training: all events in one pass."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.history = network.history

    def forward(self, x: Tensor, w: Tensor, lengths: Tensor) -> Tensor:
        if isinstance(self.history, SasRec):
            return unit(self.history.last(x, w, lengths))
        wanted = self.history(x, w.squeeze(2))
        return unit(wanted[torch.arange(len(x)), lengths - 1])


def graphs(network: Network, *, seed: int = 0) -> Graphs:
    """The network's three graphs, each within 1e-5 of torch.

    Raises:
        EngineFailed: one cannot be exported, or is off by more (reason PARITY_FAILED).
        ImportError: onnx or onnxruntime is not installed.
    """
    random = np.random.default_rng(seed)
    d, width, c = network.settings.dimensions, network.history.width, network.content.shape[1]
    own = network.content.numpy()

    def items(n: int) -> Tensors:
        content = own[random.integers(len(own), size=n)]
        content[: n // 3] = directions(random.standard_normal((n // 3, c)))  # of items that were not there
        return {"content": content, "index": random.integers(len(network.learnt) + 1, size=n)}

    def rows(*sizes: int) -> Floats:
        return directions(random.standard_normal(sizes))

    def step(n: int) -> Tensors:
        # States as they come about, which a random one would not be.
        h = torch.zeros(n, width)
        for _ in range(n):
            h, _ = network.history.step(torch.from_numpy(rows(n, d)), h, torch.ones(n, 1))
        return {"x": rows(n, d), "h": h.numpy(), "w": strengths(random, n, 1)}

    def sequence(n: int, t: int) -> Tensors:
        lengths = random.integers(1, t + 1, size=n)
        lengths[0] = t
        return {"x": rows(n, t, d), "w": strengths(random, n, t, 1), "lengths": lengths}

    network.eval()
    with torch.no_grad():
        open_n = {0: "n"}
        made = export(
            network.tower,
            items(6),
            ("vector",),
            axes={"content": open_n, "index": open_n, "vector": open_n},
            probes=[items(1), items(64)],
            name="items",
        )
        stepped = export(
            Step(network),
            step(3),
            ("h_next", "query"),
            axes=dict.fromkeys(("x", "h", "w", "h_next", "query"), open_n),
            probes=[step(1), step(7), step(60)],
            name="step",
        )
        # Beyond what SASRec looks back on, and no multiple of it.
        longest = 2 * (network.settings.window or 50) + 7
        probes = [sequence(n, t) for n, t in ((3, 5), (2, 2), (5, longest), (1, 1))]
        axes = {"x": {0: "n", 1: "t"}, "w": {0: "n", 1: "t"}, "lengths": open_n, "query": open_n}
        content = over_time(stepped.content, width, d)
        off = gate(content, Sequence(network), probes, ("query",), axes=axes, name="seq")
    between = max(apart(content, stepped.content, probe, width) for probe in probes)
    if not between <= TOLERANCE:
        raise refused("seq", f"is {between:.3g} off step.onnx, above {TOLERANCE:g}")
    return Graphs(
        {ITEMS: made.content, STEP: stepped.content, SEQUENCE: content},
        {ITEMS: made.error, STEP: stepped.error, SEQUENCE: off, "seq to step": between},
    )


def apart(sequence: bytes, step: bytes, probe: Tensors, width: int) -> float:
    """By how much the sequence's graph is off the step's, run event by event, on a probe."""
    whole, single = (
        GraphEngine(Graph(Path(name), data), threads=1) for name, data in (("seq", sequence), ("step", step))
    )
    x, w, lengths = (np.asarray(probe[name]) for name in ("x", "w", "lengths"))
    h, query = np.zeros((len(x), width), np.float32), np.zeros((len(x), x.shape[2]), np.float32)
    for at in range(x.shape[1]):
        there = lengths > at
        found = single.run({"x": x[:, at], "h": h, "w": w[:, at]})
        h, query = (np.where(there[:, None], found[name], old) for name, old in (("h_next", h), ("query", query)))
    try:
        return difference(whole.run(probe)["query"], query)
    finally:
        whole.close()
        single.close()


def strengths(random: np.random.Generator, *sizes: int) -> Floats:
    """In (0, 1], half of them 1."""
    found = 1 - random.random(sizes)
    return np.where(random.random(sizes) < 0.5, 1, found).astype(np.float32)


def directions(rows: Any) -> Floats:
    """Rows of unit length."""
    found: Floats = (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)
    return found


def next_version(folder: Path) -> int:
    """The number after the last version in the folder; 1 where there is none."""
    if not folder.is_dir():
        return 1
    return max((int(each.name) for each in folder.iterdir() if each.name.isdecimal()), default=0) + 1


def write(
    folder: Path,
    network: Network,
    data: Dataset,
    *,
    name: str,
    version: str,
    tenant: str = "",
    tables: Mapping[str, Mapping[str, Any]],
    beside: Mapping[str, bytes] | None = None,
) -> Graphs:
    """Writes a version's folder, whole or not at all.

    Args:
        folder: of the version; must not be there yet.
        tenant: whose events it was trained on.
        tables: of session.toml, for people: "metrics", "training", ....
        beside: further files by name.

    Raises:
        InvalidInput: the folder is there, or cannot be written.
        EngineFailed: see graphs().
    """
    if folder.exists():
        raise InvalidInput(f"{folder} is there already; versions are never changed", field="out")
    found = graphs(network)
    learnt = [data.events.item_ids[at] for at in network.learnt.tolist()] if network.settings.ids else []
    ids = "".join(f"{json.dumps(item)}\n" for item in learnt)
    files = {**found.files, IDS: ids.encode(), **(beside or {})}
    said: dict[str, Any] = {
        "name": name,
        "version": version,
        "tenant": tenant,
        "kind": network.settings.kind,
        "dimensions": network.settings.dimensions,
        "width": network.history.width,
        "encoder": {key: getattr(data.encoder, key) for key in ("name", "version", "digest", "dimensions")},
        **tables,
        "files": {each: hashlib.sha256(content).hexdigest() for each, content in files.items()},
    }
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder.parent))
        try:
            aside.chmod(0o755)
            for each, content in {**files, FILE: toml(said).encode()}.items():
                with (aside / each).open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            aside.rename(folder)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    except OSError as error:
        raise InvalidInput(f"{folder} cannot be written: {error.strerror}", field="out") from error
    return found


def toml(table: Mapping[str, Any]) -> str:
    """A table of plain values and tables of such."""
    plain = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    lines = [f"{named(key)} = {written(value)}" for key, value in plain.items()]
    for key, below in table.items():
        if isinstance(below, Mapping):
            lines += [
                "",
                f"[{json.dumps(key)}]",
                *(f"{json.dumps(each)} = {written(value)}" for each, value in below.items()),
            ]
    return "\n".join(lines) + "\n"


def named(key: str) -> str:
    """A key as TOML has it."""
    return key if BARE.fullmatch(key) else written(key)


def written(value: Any) -> str:
    """A value as TOML has it; JSON's texts are TOML's but for one character."""
    if isinstance(value, float):
        return repr(value) if np.isfinite(value) else str(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
