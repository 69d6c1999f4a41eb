"""Sequences that begin with what a file says, as Triton's initial_state has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from matchcut.inference.model_config_pb2 import ModelConfig
from matchcut.server.errors import EngineFailed
from matchcut.server.models.description import IDLE_TIMEOUT
from matchcut.server.oip import declarations, pbtxt
from matchcut.server.serving.contract import SequenceStep
from matchcut.server.serving.repository import FolderRepository
from matchcut.server.serving.states import first, zeros
from matchcut.server.tensors import DTYPES, TensorSpec
from support import onnx_models
from support.serving import add, say

Open = Callable[..., FolderRepository]
BEGIN = np.array([10, 10], np.float32).tobytes()
CONFIG = """
max_batch_size: 4
sequence_batching { state {
  input_name: "total_in" output_name: "total_out" data_type: TYPE_FP32 dims: [ 2 ]
  initial_state { name: "ten" data_type: TYPE_FP32 dims: [ 2 ] data_file: "ten.bin" }
} }
"""


@pytest.fixture
def beside(root: Path) -> Path:
    """The folder of first states of a model that sums."""
    onnx_models.write(root / "m" / "1", onnx_models.running_sum())
    say(root, CONFIG)
    folder = root / "m" / "initial_state"
    folder.mkdir()
    return folder


def step(number: int, *, start: bool = False) -> SequenceStep:
    return SequenceStep(number, "a", start, False)


def test_a_sequence_begins_with_the_file(beside: Path, triton: Open) -> None:
    """Compared with Triton 2.51: the first step of the same model gives the same."""
    (beside / "ten.bin").write_bytes(BEGIN)
    repository = triton()
    model = repository.model("m")
    assert [add(model, step(7, start=True)), add(model, step(7)), add(model, step(8, start=True), 5)] == [11, 12, 15]
    assert add(model, step(7, start=True)) == 11, "the file's numbers are as they were"
    (beside / "ten.bin").write_bytes(np.array([20, 20], np.float32).tobytes())
    repository.load("m")
    assert add(repository.model("m"), step(9, start=True)) == 21, "a file that is new is read"


@pytest.mark.parametrize(
    ("content", "name", "reason"),
    [
        (
            None,
            "ten.bin",
            "data_file of state 'total_in' is 'ten.bin', which is not in the model's folder initial_state",
        ),
        (BEGIN[:4], "ten.bin", "state 'total_in' has 8 bytes, but begins with a file of 4: correct the file"),
        (BEGIN * 2, "ten.bin", "state 'total_in' has 8 bytes, but begins with a file of 16"),
        (BEGIN, "../config.pbtxt", "data_file of state 'total_in' must be the plain name of a file"),
        (BEGIN, "link", "link is a link that leads out of the repository"),
    ],
)
def test_a_file_that_does_not_fit_is_told(
    root: Path, tmp_path: Path, beside: Path, triton: Open, content: bytes | None, name: str, reason: str
) -> None:
    (tmp_path / "secret").write_bytes(BEGIN)
    (beside / "link").symlink_to(tmp_path / "secret")
    if content is not None:
        (beside / "ten.bin").write_bytes(content)
    say(root, CONFIG.replace("ten.bin", name))
    with pytest.raises(EngineFailed) as caught:
        triton().load("m")
    assert reason in caught.value.message


@pytest.mark.parametrize("dtype", sorted(set(DTYPES) - {"BYTES"}))
@pytest.mark.parametrize("rows", [True, False])
def test_raw_elements_of_every_type(dtype: str, rows: bool) -> None:
    spec = TensorSpec("h", dtype, (-1, 3) if rows else (3,))
    kind = DTYPES[dtype]
    made = first(spec, rows, np.array([0, 1, 2]).astype(kind).tobytes())
    assert (made.dtype, made.shape) == (kind, zeros(spec, rows).shape)
    assert made.reshape(-1).tolist() == np.array([0, 1, 2]).astype(kind).tolist()
    assert not made.flags.writeable


def test_a_bool_is_0_or_1_and_a_text_begins_empty() -> None:
    made = first(TensorSpec("h", "BOOL", (2,)), False, b"\x00\x07")
    assert made.view(np.uint8).tolist() == [0, 1]
    assert not made.flags.writeable
    with pytest.raises(EngineFailed, match="state 'h' is a text, which begins empty: say zero_data"):
        first(TensorSpec("h", "BYTES", (1,)), False, b"")


def test_it_is_told_to_callers_with_the_time_that_holds() -> None:
    made = ModelConfig()
    declarations.complete(made, pbtxt.read(CONFIG.encode()))
    assert made.sequence_batching.max_sequence_idle_microseconds == IDLE_TIMEOUT * 1e6
    (state,) = made.sequence_batching.state
    (begin,) = state.initial_state
    assert (begin.data_file, begin.data_type, list(begin.dims)) == ("ten.bin", state.data_type, [2])
