"""A training that was broken off, as a file that it goes on from as if nothing had been."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from matchcut.server.errors import InvalidInput

__all__ = ["UNTIL", "load", "save", "until"]

UNTIL = "until"  # of what a training is of: microseconds of the last event that was read
FLAGS = {"kind": "model", "content": "items", "ids": "items"}  # where a setting is called otherwise than its flag


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes tensors and plain values, whole or not at all."""
    aside = path.with_name(f".{path.name}.tmp")
    with aside.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def load(path: Path, of: Mapping[str, Any]) -> dict[str, Any] | None:
    """What was saved; None where there is nothing.

    Args:
        of: what the training is of, options by name and "data", a digest; as `state["of"]` has it.

    Raises:
        InvalidInput: it is of other data or options, which it names, or no checkpoint.
    """
    state = opened(path)
    if state is None:
        return None
    before = state["of"]
    other = [name for name in of if before.get(name) != of[name] and name not in ("data", UNTIL)]
    told = dict.fromkeys(
        f"--{FLAGS.get(name, name).replace('_', '-')}"
        + ("" if name in FLAGS else f" was {before.get(name)!r} and is {of[name]!r} now")
        for name in other
    )
    if told:
        raise InvalidInput(
            f"{path} is of a training with other options: {'; '.join(told)}. Give the same, or begin anew without "
            "--resume",
            field="resume",
        )
    if dict(before) != dict(of):
        raise InvalidInput(
            f"{path} is of other data: items or events of the time that it is of have come, changed or gone since. "
            "Begin anew without --resume",
            field="resume",
        )
    return state


def until(path: Path) -> int | None:
    """Up to when the events were read that the checkpoint is of, in microseconds; None where it says nothing of it.

    Raises:
        InvalidInput: it is no checkpoint.
    """
    state = opened(path)
    found = state["of"].get(UNTIL) if state else None
    return found if isinstance(found, int) else None


def opened(path: Path) -> dict[str, Any] | None:
    """The file's content; None where there is no file.

    Raises:
        InvalidInput: it is no checkpoint.
    """
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)  # no code is run that a file might hold
        whole = isinstance(state["of"], dict)
    except Exception as error:  # torch raises many kinds on a damaged file
        raise InvalidInput(f"{path} is no checkpoint, or damaged; remove it to begin anew", field="out") from error
    if not whole:
        raise InvalidInput(f"{path} is of an older matchcut; remove it to begin anew", field="out")
    found: dict[str, Any] = state
    return found
