"""Reading a checkpoint: the numbers come out right, and nothing in the file is ever run."""

from __future__ import annotations

import io
import os
import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from matchcut.server.errors import EngineFailed
from matchcut.server.models import checkpoint

Save = Callable[..., Path]


class FloatStorage:
    """Stands in for torch's class, known to pickle by its name alone."""


class Stored:
    """A storage of the file to be written."""

    def __init__(self, numbers: np.ndarray[Any, np.dtype[np.float32]]) -> None:
        self.numbers = numbers


def _rebuild_tensor_v2(*_: object) -> None:
    """Stands in for torch's function."""


class Saved:
    """A tensor of the file to be written."""

    def __init__(self, storage: Stored, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self.arguments: tuple[Any, ...] = (storage, offset, shape, strides, False, OrderedDict())

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_tensor_v2, self.arguments


class Pickler(pickle.Pickler):
    """Writes storages by reference, as torch.save does."""

    def persistent_id(self, obj: object) -> Any:
        return (
            ("storage", FloatStorage, str(id(obj)), "cpu", obj.numbers.size, None) if isinstance(obj, Stored) else None
        )


@pytest.fixture
def save(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Save:
    """Writes a file as torch.save did before 1.6; pickle finds the names under torch while it writes."""
    torch, utils = ModuleType("torch"), ModuleType("torch._utils")
    torch.FloatStorage, utils._rebuild_tensor_v2 = FloatStorage, _rebuild_tensor_v2  # type: ignore[attr-defined]
    monkeypatch.setattr(FloatStorage, "__module__", "torch")
    monkeypatch.setattr(_rebuild_tensor_v2, "__module__", "torch._utils")

    def write(content: object, *storages: Stored, magic: int = checkpoint.MAGIC) -> Path:
        out = io.BytesIO()
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "torch", torch)
            patch.setitem(sys.modules, "torch._utils", utils)
            for part in (magic, checkpoint.PROTOCOL, {"little_endian": True}, content, [str(id(s)) for s in storages]):
                Pickler(out, 2).dump(part)
        for storage in storages:
            out.write(storage.numbers.size.to_bytes(8, "little") + storage.numbers.tobytes())
        path = tmp_path / "weights.pth"
        path.write_bytes(out.getvalue())
        return path

    return write


def test_tensors_come_out_as_they_lie_in_their_storage(save: Save) -> None:
    numbers = np.arange(12, dtype=np.float32)
    storage = Stored(numbers)
    path = save(OrderedDict(transposed=Saved(storage, 0, (3, 4), (1, 3)), row=Saved(storage, 8, (4,), (1,))), storage)
    tensors = checkpoint.read(path)
    np.testing.assert_array_equal(tensors["transposed"], numbers.reshape(4, 3).T)
    np.testing.assert_array_equal(tensors["row"], [8, 9, 10, 11])
    assert tensors["transposed"].flags.c_contiguous


class Bomb:
    """Runs a command when it is unpickled by a pickle that trusts its file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_a_malicious_pickle_runs_nothing(save: Save, tmp_path: Path) -> None:
    mark = tmp_path / "owned"
    path = save({"weight": Bomb(mark)})
    with pytest.raises(EngineFailed, match="no place in a dict of tensors") as caught:
        checkpoint.read(path)
    assert caught.value.reason == "WEIGHTS_INVALID"
    assert not mark.exists()
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.is_dir(), "the bomb would have worked"


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(0, (13,), (1,)), (5, (2, 4), (4, 1)), (-1, (1,), (1,)), (3, (2,), (-1,)), (0, (0,), (1,)), (0, (4, 4), (1,))],
)
def test_a_tensor_beyond_its_storage_is_refused(
    save: Save, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    storage = Stored(np.arange(12, dtype=np.float32))
    with pytest.raises(EngineFailed, match="not a plain checkpoint"):
        checkpoint.read(save({"w": Saved(storage, offset, shape, strides)}, storage))


def test_other_files_are_refused(save: Save, tmp_path: Path) -> None:
    storage = Stored(np.arange(12, dtype=np.float32))
    whole = save({"w": Saved(storage, 0, (12,), (1,))}, storage)
    assert checkpoint.read(whole)["w"].size == 12
    whole.write_bytes(whole.read_bytes()[:-1])
    with pytest.raises(EngineFailed, match="ends too early"):
        checkpoint.read(whole)
    with pytest.raises(EngineFailed, match="another file format"):
        checkpoint.read(save({}, magic=7))
    with pytest.raises(EngineFailed, match="something else than a dict of tensors"):
        checkpoint.read(save({"w": 3}))
    whole.write_bytes(b"PK\x03\x04 not a pickle at all")
    with pytest.raises(EngineFailed, match="not a plain checkpoint"):
        checkpoint.read(whole)
    with pytest.raises(EngineFailed, match="cannot read the weights") as caught:
        checkpoint.read(tmp_path / "nowhere.pth")
    assert caught.value.reason == "WEIGHTS_MISSING"
