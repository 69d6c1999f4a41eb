"""What is known of a built engine: manifest.json beside it, and whether the engine may be used here.

An engine runs with the very version of the library that built it, on the GPUs that it was built for, and stands for
one ONNX file; the manifest says all three, so that one that does not fit is never loaded.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from matchcut.server.engines.tensorrt.library import Library
from matchcut.server.errors import EngineFailed, InvalidInput
from matchcut.server.models.measured import sha256

__all__ = ["NAME", "Batch", "Manifest", "fault", "keep", "read", "title"]

NAME = "manifest.json"
LARGEST_BATCH = 1024


class Batch(NamedTuple):
    """The sizes that an engine takes: from `least` to `most`, the fastest at `best`."""

    least: int = 1
    best: int = 8
    most: int = 32

    @classmethod
    def parse(cls, text: str) -> Batch:
        """From "1:8:32".

        Raises:
            InvalidInput: it is not three rising numbers.
        """
        parts = text.split(":")
        if len(parts) == 3 and all(part.isascii() and part.isdigit() for part in parts):
            batch = cls(*(int(part) for part in parts))
            if 1 <= batch.least <= batch.best <= batch.most <= LARGEST_BATCH:
                return batch
        raise InvalidInput(
            f"--batch {text!r}: give the least, the usual and the largest batch, such as 1:8:32, at most "
            f"{LARGEST_BATCH}",
            reason="INVALID_OPTION",
            field="batch",
        )


@dataclass(frozen=True, slots=True)
class Manifest:
    """A built engine.

    engine: the file's name. size: its bytes. targets: compute capabilities, as 10 * major + minor, ascending.
    precision: what the ONNX file is written in. measured: gate and figures of precision.json, {} for float32.
    made: when, in UTC.
    """

    engine: str
    engine_sha256: str
    size: int
    onnx_sha256: str
    library: str
    version: str
    targets: tuple[int, ...]
    batch: Batch
    precision: str
    made: str
    measured: Mapping[str, Any] = field(default_factory=dict)


def title(stem: str, library: Library, precision: str, targets: tuple[int, ...], batch: Batch) -> str:
    """The name of an engine file, the same for the same request."""
    capabilities = "_".join(map(str, targets))
    return f"{stem}-{library.name}-{precision}-sm{capabilities}-b{'_'.join(map(str, batch))}.engine"


def read(folder: Path) -> Manifest | None:
    """The manifest of a folder; None where there is none.

    Raises:
        EngineFailed: it is damaged.
    """
    path = folder / NAME
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        kept = Manifest(**found)
        kept = replace(kept, targets=tuple(map(int, kept.targets)), batch=Batch(*map(int, kept.batch)))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise EngineFailed(f"{path} is damaged ({error}); build the engine again", reason="ENGINE_STALE") from error
    if Path(kept.engine).name != kept.engine:
        raise EngineFailed(f"{path} names a file in another folder; build the engine again", reason="ENGINE_STALE")
    return kept


def keep(folder: Path, manifest: Manifest, engine: bytes) -> None:
    """Writes the engine, then the manifest that makes it valid, each whole or not at all; an older engine goes.

    Raises:
        OSError: the folder cannot be written.
    """
    try:
        older = read(folder)
    except EngineFailed:
        older = None
    put(folder / manifest.engine, engine)
    put(folder / NAME, (json.dumps(asdict(manifest), indent=2) + "\n").encode())
    if older is not None and older.engine != manifest.engine:
        (folder / older.engine).unlink(missing_ok=True)


def put(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def fault(
    folder: Path, manifest: Manifest, onnx: Path, library: Library, targets: tuple[int, ...], batch: Batch | None = None
) -> str:
    """Why a built engine must not be used; "" where it may.

    Args:
        onnx: the ONNX file that is wanted.
        targets: the compute capabilities that are wanted.
        batch: the sizes that are wanted; None: any.
    """
    path = folder / manifest.engine
    if manifest.onnx_sha256 != sha256(onnx):
        return f"it was built from another ONNX file than {onnx}"
    if (manifest.library, manifest.version) != (library.name, library.version):
        return f"it was built by {manifest.library} {manifest.version} and this is {library}"
    if missing := [target for target in targets if target not in manifest.targets]:
        built, wanted = (", ".join(map(capability, each)) for each in (manifest.targets, missing))
        return f"it was built for compute capability {built}, not {wanted}"
    if batch is not None and manifest.batch != batch:
        return f"it was built for batches of {':'.join(map(str, manifest.batch))}, not {':'.join(map(str, batch))}"
    if not path.is_file():
        return "its file is gone"
    if path.stat().st_size != manifest.size or sha256(path) != manifest.engine_sha256:
        return "its file is damaged"
    return ""


def capability(target: int) -> str:
    """As people write it: 86 is 8.6."""
    return f"{target // 10}.{target % 10}"
