"""A training that was broken off, as a file that it goes on from as if nothing had been."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from matchcut.server.errors import InvalidInput

__all__ = ["load", "save"]


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes tensors and plain values, whole or not at all."""
    aside = path.with_name(f".{path.name}.tmp")
    with aside.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def load(path: Path, of: str) -> dict[str, Any] | None:
    """What was saved; None where there is nothing.

    Args:
        of: what the training is of, data and settings, as `state["of"]` has it.

    Raises:
        InvalidInput: it is of other data or settings, or no checkpoint.
    """
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)  # no code is run that a file might hold
        same = state["of"] == of
    except Exception as error:  # torch raises many kinds on a damaged file
        raise InvalidInput(f"{path} is no checkpoint, or damaged; remove it to begin anew", field="out") from error
    if not same:
        raise InvalidInput(
            f"{path} is of a training with other data or settings; finish that one, or remove the file", field="out"
        )
    found: dict[str, Any] = state
    return found
