"""What an option is: its default, its help, what its values must satisfy, and how it is shown and read from text."""

from __future__ import annotations

import argparse
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import Field, field
from pathlib import Path
from typing import Any

from matchcut.server.errors import InvalidInput

__all__ = ["add_options", "from_file", "option", "parse", "suggestion"]

SIZES = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def option(
    default: Any,
    text: str,
    *,
    group: str,
    least: float | None = None,
    choices: tuple[str, ...] = (),
    size: bool = False,
    pattern: str = "",
) -> Any:
    """A field of Config: its default, its help, and what its values must satisfy.

    `size` takes "64MiB" too; `pattern` is a regular expression, in which the last of the choices is only shown.
    """
    metadata = {"text": text, "group": group, "least": least, "choices": choices, "size": size, "pattern": pattern}
    return field(default=default, metadata=metadata)


def add_options(parser: argparse.ArgumentParser, all_declared: Iterable[Field[Any]], prefix: str) -> None:
    """A flag for each option, in its group, with its default and, after `prefix`, its name in the environment."""
    groups: dict[str, Any] = {}
    for declared in all_declared:
        meta = declared.metadata
        if meta["group"] not in groups:
            groups[meta["group"]] = parser.add_argument_group(meta["group"])
        shown = "" if declared.default in (Path(), "") else f" [default: {declared.default}]"
        groups[meta["group"]].add_argument(
            "--" + declared.name.replace("_", "-"),
            dest=declared.name,
            default=None,
            metavar="|".join(meta["choices"]) or type(declared.default).__name__.replace("PosixPath", "path").upper(),
            help=f"{meta['text']}{shown} [{prefix}{declared.name.upper()}]".replace("%", "%%"),
        )


def parse(declared: Field[Any], value: object, source: str) -> Any:
    """A value in the declared type.

    Args:
        value: text from a flag or the environment, or what the TOML file holds.
        source: where it stands, for the message.

    Raises:
        InvalidInput: it is of another type, too small, or none of the choices.
    """
    kind = type(declared.default)
    meta = declared.metadata

    def wrong(expected: str) -> InvalidInput:
        return InvalidInput(f"{source}: {value!r} is not {expected}", reason="INVALID_OPTION", field=declared.name)

    result: Any
    if kind is int and meta["size"] and isinstance(value, str):
        written = re.fullmatch(r"\s*(\d+)\s*([A-Za-z]*)\s*", value)
        if written is None or written[2].upper() not in SIZES:
            raise wrong("a size such as 67108864 or 64MiB")
        result = int(written[1]) * SIZES[written[2].upper()]
    elif kind in (int, float) and not isinstance(value, bool):
        try:
            result = kind(value)
        except (TypeError, ValueError):
            raise wrong("a whole number" if kind is int else "a number") from None
        if (isinstance(value, float) and result != value) or not math.isfinite(result):
            raise wrong("a whole number" if kind is int else "a number")
    elif isinstance(value, str) and kind is not int and kind is not float:
        result = Path(value).expanduser() if issubclass(kind, Path) else value
    else:
        raise wrong(f"of type {kind.__name__}")
    if meta["least"] is not None and result < meta["least"]:
        raise wrong(f"at least {meta['least']}")
    fits = re.fullmatch(meta["pattern"], str(result)) if meta["pattern"] else result in meta["choices"]
    if meta["choices"] and not fits:
        raise wrong(f"one of {', '.join(meta['choices'])}")
    return result


def suggestion(name: str, known: Iterable[str]) -> str:
    """', did you mean ...?' where an option has a similar name."""
    import difflib

    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def from_file(path: Path, known: Mapping[str, Field[Any]]) -> dict[str, Any]:
    """The options that a TOML file sets."""
    try:
        written = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"cannot read the config file {path}: {error.strerror}", reason="INVALID_OPTION") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is not TOML: {error}", reason="INVALID_OPTION") from error
    for name in written:
        if name not in known:
            raise InvalidInput(f"{path}: there is no option {name!r}{suggestion(name, known)}", reason="INVALID_OPTION")
    return {name: parse(known[name], value, f"{path}: {name}") for name, value in written.items()}
