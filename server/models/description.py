"""What is said of a served model beside its ONNX file, all of it optional.

models/NAME/model.toml is for all versions of a model; the TOML file beside a version's ONNX file, with its name and
the ending .toml, is for that version and wins:

default_version = 2               # in model.toml only: what answers where no version is named; else the latest
keep = 1                          # in model.toml only: the latest versions that are served; 0: all of them
max_batch = 8                     # most rows of one run; 0: the first size of the tensors counts no rows
instances = 1                     # runs at once
threads = 0                       # of one run; 0: as the server's --threads says

[labels]                          # class names of an output, one a line, in a file beside this one
probabilities = "labels.txt"

[sequence]                        # a model with a state, which the server keeps for each sequence
states = { state_in = "state_out" }  # which output is which input of the next step; zeros at the start
idle_timeout = 60                 # seconds after which an idle sequence is forgotten

Where max_batch is not given it is 8 if the first size of all inputs and outputs is open, else 0. The TOML file beside
an ONNX file may also be an encoder's (see encoder.py), which is then checked as one.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matchcut.server.errors import EngineFailed
from matchcut.server.models import encoder

__all__ = ["Description", "contained", "of_model", "of_version"]

IDLE_TIMEOUT = 60.0

Check = Callable[[Any], bool]


def whole(least: int) -> Check:
    """Checks for a whole number that is not below `least`."""
    return lambda value: type(value) is int and value >= least


def names(value: Any) -> bool:
    """Whether it is a table of texts that are not empty."""
    return isinstance(value, dict) and all(isinstance(each, str) and each for each in value.values())


def seconds(value: Any) -> bool:
    """Whether it is a time above zero."""
    return type(value) in (int, float) and math.isfinite(value) and value > 0


# Of each key: what its value must be, and how that is said.
VERSION_KEYS: dict[str, tuple[Check, str]] = {
    "max_batch": (whole(0), "a whole number, 0 or more"),
    "instances": (whole(1), "a whole number, 1 or more"),
    "threads": (whole(0), "a whole number, 0 or more"),
    "labels": (names, "a table: the name of a file for each output"),
    "sequence": (lambda value: isinstance(value, dict), "a table"),
}
MODEL_KEYS: dict[str, tuple[Check, str]] = {
    **VERSION_KEYS,
    "default_version": (whole(1), "the number of a version"),
    "keep": (whole(0), "a whole number, 0 or more"),
}
SEQUENCE_KEYS: dict[str, tuple[Check, str]] = {
    "states": (lambda value: names(value) and bool(value), "a table: for each input the output that feeds it"),
    "idle_timeout": (seconds, "a number of seconds above 0"),
}


@dataclass(frozen=True, slots=True)
class Description:
    """What is said of a version of a model.

    default_version, keep: of the whole model; "" and 0 where nothing is said.
    max_batch: None where nothing is said.
    threads: 0: the server's default.
    labels: class names by output; those of an encoder, whose output is not named, are under "".
    states: the output that feeds each state's input; empty: a model without a state.
    idle_timeout: in seconds.
    """

    default_version: str = ""
    keep: int = 0
    max_batch: int | None = None
    instances: int = 1
    threads: int = 0
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)
    idle_timeout: float = IDLE_TIMEOUT


def of_model(folder: Path, root: Path) -> Description:
    """What model.toml says, without labels: those may lie beside each version.

    Raises:
        EngineFailed: it cannot be read, or says something unknown or impossible.
    """
    return described(common(folder, root), {})


def of_version(onnx: Path, folder: Path, root: Path) -> Description:
    """What model.toml and the TOML file beside the ONNX file say together.

    Args:
        onnx: the version's ONNX file.
        folder: the model's folder, where model.toml is.
        root: the repository's folder; no file outside of it is read.

    Raises:
        EngineFailed: a file cannot be read, or says something unknown or impossible, or is an encoder's and does not
            fit to the graph.
    """
    values = common(folder, root)
    own = onnx.with_suffix(".toml")
    labels: dict[str, tuple[str, ...]] = {}
    if present(own, root):
        table = parsed(own)
        if "dimensions" in table or "input" in table:
            try:
                found = encoder.load(onnx)
            except ValueError as error:  # a name of the labels' file that is none
                raise wrong(f"{own.name}: {error}") from error
            labels = {"": found.labels} if found.labels else {}
        else:
            checked(own.name, table, VERSION_KEYS)
            values |= table
    for output, name in values.get("labels", {}).items():
        labels[output] = listed(output, name, (onnx.parent, folder), root)
    return described(values, labels)


def contained(path: Path, root: Path) -> bool:
    """Whether a path, links followed, is inside of the root; also where it does not exist."""
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # a circle of links
        return False


def common(folder: Path, root: Path) -> dict[str, Any]:
    """What model.toml says; nothing where there is none."""
    path = folder / "model.toml"
    if not present(path, root):
        return {}
    return checked(path.name, parsed(path), MODEL_KEYS)


def described(values: Mapping[str, Any], labels: Mapping[str, tuple[str, ...]]) -> Description:
    """Checked values as a Description."""
    sequence = values.get("sequence", {})
    return Description(
        default_version=str(values.get("default_version", "")),
        keep=values.get("keep", 0),
        max_batch=values.get("max_batch"),
        instances=values.get("instances", 1),
        threads=values.get("threads", 0),
        labels=labels,
        states=sequence.get("states", {}),
        idle_timeout=float(sequence.get("idle_timeout", IDLE_TIMEOUT)),
    )


def present(path: Path, root: Path) -> bool:
    """Whether a file is there and may be read.

    Raises:
        EngineFailed: it is a link that leads out of the repository or to nothing.
    """
    if not contained(path, root):
        raise wrong(f"{path.name} is a link that leads out of the repository: put the file itself there")
    if path.is_symlink() and not path.exists():
        raise wrong(f"{path.name} is a link to nothing: remove it or restore the file")
    return path.exists()


def parsed(path: Path) -> dict[str, Any]:
    """A TOML file as a dict."""
    try:
        return tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise wrong(f"{path.name} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise wrong(f"{path.name} is not valid TOML: {error}") from error
    except RecursionError:
        raise wrong(f"{path.name} is not valid TOML: it is nested too deep") from None


def checked(
    name: str, table: dict[str, Any], keys: Mapping[str, tuple[Check, str]], prefix: str = ""
) -> dict[str, Any]:
    """The same table, if all of it is known and possible."""
    for key, value in table.items():
        if key not in keys:
            raise wrong(f"{name}: {prefix}{key} is unknown; known are {', '.join(keys)}")
        fits, expected = keys[key]
        if not fits(value):
            raise wrong(f"{name}: {prefix}{key} must be {expected}, not {value!r}")
        if key == "sequence":
            checked(name, value, SEQUENCE_KEYS, "sequence.")
            if "states" not in value:
                raise wrong(f"{name}: sequence.states is missing; it must be {SEQUENCE_KEYS['states'][1]}")
    return table


def listed(output: str, name: str, folders: tuple[Path, ...], root: Path) -> tuple[str, ...]:
    """Class names from the first of the folders that has the file, one a line."""
    if name in (".", "..") or Path(name).name != name or "\0" in name:
        raise wrong(f"labels.{output} must be the plain name of a file beside the model, not {name!r}")
    path = next((each / name for each in folders if present(each / name, root)), None)
    if path is None:
        raise wrong(f"labels.{output}: there is no file {name!r} beside the model")
    try:
        return tuple(path.read_text(encoding="utf-8", errors="replace").splitlines())
    except OSError as error:
        raise wrong(f"labels.{output}: {name} cannot be read: {error.strerror}") from error


def wrong(what: str) -> EngineFailed:
    return EngineFailed(what, reason="MODEL_INVALID")
