"""A trained GRU, and the CNN before it, as models that the server serves; only if they compute what torch computes.

Four models, each a folder of versions as in server/serving/folder.py:

NAME-frames    pictures -> vectors: an encoder, with its description
NAME-sequence  vectors of whole clips, (n, t, d), and lengths -> logits and last states
NAME-step      a vector -> the state after it: one step, whose state the server keeps for each sequence
NAME-live      the same, and gives the logits after each step

Where the state is as long as the vectors NAME-step is also what `matchcut serve --encoder ... --gru ...` takes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from matchcut.server.engines.graphs import GraphEngine
from matchcut.server.errors import EngineFailed, InvalidInput
from matchcut.server.models import description, encoder, graph, gru
from matchcut.server.records import Floats
from matchcut.server.serving.folder import NAME, NUMBER
from matchcut.server.tensors import Tensors
from matchcut.server.training.clip.model import FrameNet, Recurrent
from matchcut.server.training.export import TOLERANCE, difference, export, refused, run_torch

__all__ = ["ENCODER", "KINDS", "Made", "check_name", "compose", "live", "next_version", "place", "stepwise"]

KINDS = ("frames", "sequence", "step", "live")
ENCODER = "encoder.onnx"
LOGITS, FEATURES, LENGTHS, STATE = "logits", "features", "lengths", "state"
STEPPING = """\
max_batch = 64

[sequence]
states = { h = "h_next" }
"""
LABELLED = """
[labels]
logits = "labels.txt"
"""


@dataclass(frozen=True, slots=True)
class Made:
    """Files by model and name, and the largest differences: of what, to what."""

    files: Mapping[str, Mapping[str, bytes]]
    parity: Mapping[str, float]


def compose(
    frames: FrameNet | None,
    recurrent: Recurrent,
    pictures: Floats | None,
    features: Floats,
    *,
    name: str,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    classes: Sequence[str],
) -> Made:
    """All files of a version.

    Args:
        frames: None where the default encoder makes the vectors.
        pictures: some real ones as the CNN takes them, (n, 3, size, size), at least three; None without a CNN.
        features: real vectors, (n, t, dimensions) with n and t at least 3, on which the parity is measured.

    Raises:
        EngineFailed: a model does not compute what torch computes (reason PARITY_FAILED).
        ImportError: onnx is not installed.
    """
    made: dict[str, Mapping[str, bytes]] = {}
    parity: dict[str, float] = {}
    labels = "".join(f"{each}\n" for each in classes).encode()
    if frames is not None and pictures is not None:
        exported = export(
            frames,
            {"image": pictures[:2]},
            ["embedding"],
            axes={"image": {0: "n"}, "embedding": {0: "n"}},
            probes=[{"image": pictures[:1]}, {"image": pictures}],
            name=f"{name}-frames",
        )
        parity["frames, ONNX to torch"] = exported.error
        toml = described(f"{name}-frames", exported.content, features.shape[2], size, mean, std)
        made["frames"] = {ENCODER: exported.content, "encoder.toml": toml.encode()}
    n, t, _ = features.shape
    whole = export(
        recurrent,
        {FEATURES: features[:2, : t - 1], LENGTHS: np.array([t - 1, 1], np.int64)},
        [LOGITS, STATE],
        axes={FEATURES: {0: "n", 1: "t"}, LENGTHS: {0: "n"}, LOGITS: {0: "n"}, STATE: {0: "n"}},
        probes=[
            {FEATURES: features, LENGTHS: np.full(n, t, np.int64)},
            {FEATURES: features[:1, :1], LENGTHS: np.ones(1, np.int64)},
            {FEATURES: features, LENGTHS: np.arange(n, dtype=np.int64) % (t + 1)},  # 0 as well
        ],
        name=f"{name}-sequence",
    )
    parity["sequence, ONNX to torch"] = whole.error
    made["sequence"] = {"model.onnx": whole.content, "model.toml": LABELLED.encode(), "labels.txt": labels}
    step = gru.write(weights(recurrent))
    made["step"] = {"model.onnx": step, "model.toml": STEPPING.encode()}
    judged = live(step, recurrent)
    made["live"] = {"model.onnx": judged, "model.toml": (STEPPING + LABELLED).encode(), "labels.txt": labels}
    parity |= stepwise(step, judged, whole.content, recurrent, features, name=name)
    return Made(made, parity)


def weights(recurrent: Recurrent) -> gru.Weights:
    """The GRU's, as they are."""
    one = recurrent.gru
    found = (one.weight_ih_l0, one.weight_hh_l0, one.bias_ih_l0, one.bias_hh_l0)
    return gru.Weights(*(each.detach().numpy().astype(np.float32) for each in found))


def live(step: bytes, recurrent: Recurrent) -> bytes:
    """The step with the classes' logits, (n, classes), as a second output; the same bytes for the same weights."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load_from_string(step)
    head = recurrent.head
    for name, value in (("W_head", head.weight), ("b_head", head.bias)):
        model.graph.initializer.append(numpy_helper.from_array(value.detach().numpy(), name))
    model.graph.node.append(helper.make_node("Gemm", [gru.NEXT, "W_head", "b_head"], [LOGITS], name=LOGITS, transB=1))
    model.graph.output.append(helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["n", int(head.out_features)]))
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def stepwise(
    step: bytes, judged: bytes, whole: bytes, recurrent: Recurrent, features: Floats, *, name: str
) -> dict[str, float]:
    """The largest differences after any number of steps, stepping in ONNX Runtime, to the sequence and to torch.

    Raises:
        EngineFailed: one is above TOLERANCE (reason PARITY_FAILED).
    """
    engines = [
        GraphEngine(graph.Graph(Path(f"{name}-{kind}.onnx"), content), threads=1)
        for kind, content in (("step", step), ("live", judged), ("sequence", whole))
    ]
    found = dict.fromkeys(("step to sequence", "step to torch", "live to torch"), 0.0)
    n, t, _ = features.shape
    state = seen = np.zeros((n, recurrent.gru.hidden_size), np.float32)
    try:
        for at in range(t):
            x = np.ascontiguousarray(features[:, at])
            state = engines[0].run({gru.INPUT: x, gru.STATE: state})[gru.NEXT]
            after = engines[1].run({gru.INPUT: x, gru.STATE: seen})
            seen = after[gru.NEXT]
            so_far: Tensors = {FEATURES: features, LENGTHS: np.full(n, at + 1, np.int64)}
            logits, wanted = run_torch(recurrent, so_far)
            pairs = (
                (state, engines[2].run(so_far)[STATE]),
                (state, wanted),
                (after[LOGITS], logits),
            )
            for key, (one, other) in zip(found, pairs, strict=True):
                apart = difference(one, other)
                if not apart <= TOLERANCE:
                    raise refused(name, f"is {apart:.3g} off from {key} after {at + 1} steps, above {TOLERANCE:g}")
                found[key] = max(found[key], apart)
    finally:
        for engine in engines:
            engine.close()
    return found


def described(
    name: str, content: bytes, dimensions: int, size: int, mean: Sequence[float], std: Sequence[float]
) -> str:
    """The description of the CNN as an encoder (server/models/encoder.py)."""
    return (
        f"name = {json.dumps(name)}\nversion = {json.dumps(hashlib.sha256(content).hexdigest()[:8])}\n"
        f"dimensions = {dimensions}\n\n[input]\nwidth = {size}\nheight = {size}\nfit = \"stretch\"\n"
        f"layout = \"NCHW\"\nmean = {[float(each) for each in mean]}\nstd = {[float(each) for each in std]}\n"
    )  # fmt: skip


def check_name(name: str) -> None:
    """Raises InvalidInput where a model cannot be called so."""
    if any(not NAME.fullmatch(f"{name}-{kind}") for kind in KINDS):
        raise InvalidInput(
            f"--name {name!r} may have letters, digits, '.', '_', '+' and '-' only, and at most 100", field="name"
        )


def next_version(out: Path, name: str) -> int:
    """One more than the highest version that any of the models has."""
    folders = [out / f"{name}-{kind}" for kind in KINDS]
    there = [each.name for folder in folders if folder.is_dir() for each in folder.iterdir()]
    return max((int(each) for each in there if NUMBER.fullmatch(each)), default=0) + 1


def place(made: Made, extra: Mapping[str, bytes], out: Path, name: str, version: int) -> dict[str, Path]:
    """Writes the models aside, reads them as the server would, and moves each into place as a whole.

    Args:
        extra: more files for the sequence's folder.

    Returns the folder of each version, by kind.

    Raises:
        EngineFailed: the server would not take one of them; nothing was put into place.
        OSError: the disk is full or cannot be written.
    """
    aside = out / f".{name}-{version}"
    shutil.rmtree(aside, ignore_errors=True)  # of a run that was killed here
    try:
        for kind, files in made.files.items():
            folder = aside / f"{name}-{kind}" / str(version)
            folder.mkdir(parents=True)
            for file, content in {**files, **(extra if kind == "sequence" else {})}.items():
                (folder / file).write_bytes(content)
            path = next(folder.glob("*.onnx"))
            if path.name == ENCODER:
                encoder.load(path)
            else:
                graph.read(path)
                description.of_version(path, folder.parent, aside)
        placed = {}
        for kind in made.files:
            there = out / f"{name}-{kind}"
            there.mkdir(exist_ok=True)
            placed[kind] = (aside / there.name / str(version)).rename(there / str(version))
    except EngineFailed as error:
        raise EngineFailed(f"the server would not take the model: {error.message}", reason=error.reason) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return placed
