"""Every option of the server, declared once: a field here is a flag, an environment variable and a line of the file.

The field `max_pixels` is `--max-pixels`, `MATCHCUT_MAX_PIXELS` and `max_pixels = ...` in the TOML file. A flag beats
the environment, the environment beats the file, the file beats the default. This is the only module that reads the
environment.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from matchcut.server.errors import InvalidInput

__all__ = ["PREFIX", "Config", "add_flags", "environment", "load"]

PREFIX = "MATCHCUT_"
NOT_GIVEN = Path()
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


def user_folder(variable: str, below: str) -> Path:
    """The XDG base folder that the variable names, or its default below the home folder."""
    return Path(os.environ.get(variable) or Path.home() / below) / "matchcut"


@dataclass(frozen=True)
class Config:
    """All options with their values. Times are in seconds here, as people write them."""

    listen: str = option("127.0.0.1:7411", "address and port to serve on; port 0 takes a free one", group="serving")
    max_media_requests: int = option(
        8, "requests with media under way at once; more are refused with RESOURCE_EXHAUSTED", group="serving", least=1
    )
    max_requests: int = option(64, "other requests under way at once; more are refused", group="serving", least=1)
    max_message: int = option(64 << 20, "largest gRPC message", group="serving", least=1 << 20, size=True)
    max_metadata: int = option(16 << 10, "largest metadata of a call", group="serving", least=1 << 10, size=True)
    max_streams: int = option(100, "calls at once on one connection", group="serving", least=1)
    min_ping_interval: float = option(
        10.0, "seconds between a client's keepalive pings; faster ones lose the connection", group="serving", least=0
    )
    receive_timeout: float = option(
        60.0, "seconds that an upload may pause before it is given up", group="serving", least=0.001
    )
    grace: float = option(10.0, "seconds that calls under way get to finish at shutdown", group="serving", least=0)

    tls_cert: Path = option(NOT_GIVEN, "PEM certificate chain; with --tls-key the port speaks TLS", group="access")
    tls_key: Path = option(NOT_GIVEN, "PEM private key of --tls-cert", group="access")
    tls_client_ca: Path = option(
        NOT_GIVEN, "PEM authorities of client certificates, which are then required", group="access"
    )
    token_file: Path = option(
        NOT_GIVEN, "file with bearer tokens, one a line; calls without one of them are refused", group="access"
    )

    data: Path = option(
        NOT_GIVEN,
        "folder of the catalogue [default: $XDG_DATA_HOME/matchcut]; ':memory:' keeps nothing",
        group="storage",
    )
    cache: Path = option(
        NOT_GIVEN,
        "folder for what can be rebuilt: the default encoder, the engine choice [default: $XDG_CACHE_HOME/matchcut]",
        group="storage",
    )

    encoder: Path = option(
        NOT_GIVEN,
        "ONNX encoder with its TOML beside it [default: EfficientNet-Lite0, built on first use]",
        group="encoder",
    )
    engine: str = option(
        "auto",
        "what runs the encoder; auto measures on this CPU and remembers",
        group="encoder",
        choices=(
            "auto",
            *("onnxruntime", "onnxruntime-fp32"),
            *("openvino", "openvino-fp32", "openvino-mixed50", "openvino-mixed25", "openvino-bf16"),
        ),
    )
    threads: int = option(0, "threads of the engine; 0 takes all cores", group="encoder", least=0)
    batch: int = option(4, "frames in one run of the engine at most", group="encoder", least=1)
    still: float = option(
        0.6,
        "a frame whose difference from the last encoded one (fourth-power mean, in grey levels) is below this reuses "
        "its embedding; 0 never reuses",
        group="encoder",
        least=0,
    )

    device: str = option(
        "auto",
        "what preprocesses, pools and ranks: auto takes the first GPU if it can be used, else the CPU; cuda:N is the "
        "GPU that its driver counts as N, from 0",
        group="ranking",
        choices=("auto", "cpu", "cuda", "cuda:N"),
        pattern=r"auto|cpu|cuda(:[0-9]+)?",
    )
    scan: str = option(
        "auto",
        "how it ranks: auto takes the best native scan that the CPU runs, or the fastest that the GPU can (int8, bf16 "
        "and fp32 are a GPU's); the answers are the same whichever it is",
        group="ranking",
        choices=(
            *("auto", "numpy", "amx", "avx512vnni", "avx2", "i8mm", "dotprod", "scalar"),
            *("int8", "bf16", "fp32"),
        ),
    )
    scan_threads: int = option(
        0, "threads of one ranking on the CPU at most; 0 takes all cores", group="ranking", least=0
    )
    scan_from: int = option(
        1024,
        "segments of a tenant and encoder from which on they are coded for the scan, in the background",
        group="ranking",
        least=1,
    )

    rate: float = option(1.0, "frames per second used at ingest", group="media", least=0.001)
    query_rate: float = option(2.0, "frames per second used in queries", group="media", least=0.001)
    max_pixels: int = option(4096 * 4096, "most pixels in a picture", group="media", least=1)
    max_bytes: int = option(2 << 30, "most bytes in a piece of media", group="media", least=1, size=True)
    max_buffered: int = option(
        256 << 20,
        "most bytes of an upload held in memory: of a container that cannot be decoded as it arrives, or of one that "
        "may be there already",
        group="media",
        least=1 << 16,
        size=True,
    )
    max_frames: int = option(100_000, "most frames used of a piece of media", group="media", least=1)
    max_seconds: float = option(4 * 3600.0, "longest piece of media", group="media", least=0.001)

    min_segment: float = option(0.5, "shorter segments join a neighbour, in seconds", group="segments", least=0)
    max_segment: float = option(10.0, "longer shots are divided, in seconds", group="segments", least=0.1)
    max_segments: int = option(512, "most segments of an item", group="segments", least=1)
    max_query_segments: int = option(64, "most segments of a clip that is asked with", group="segments", least=1)
    max_item_segments: int = option(
        4096, "most segments, together, of the items that are asked with", group="segments", least=1
    )

    log_level: str = option(
        "info", "how much is logged", group="watching", choices=("debug", "info", "warning", "error")
    )
    metrics: str = option(
        "",
        "address and port, such as 127.0.0.1:9464, that serves metrics for Prometheus; off by default",
        group="watching",
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


def add_flags(parser: argparse.ArgumentParser, *, only: Collection[str] = ()) -> None:
    """Adds --config and a flag for every option (or `only` those), with its default and its other names."""
    parser.add_argument(
        "--config", metavar="FILE", default=None, help=f"TOML file with any of the options below [{PREFIX}CONFIG]"
    )
    groups: dict[str, Any] = {}
    for declared in fields(Config):
        if only and declared.name not in only:
            continue
        meta = declared.metadata
        if meta["group"] not in groups:
            groups[meta["group"]] = parser.add_argument_group(meta["group"])
        shown = "" if declared.default in (NOT_GIVEN, "") else f" [default: {declared.default}]"
        groups[meta["group"]].add_argument(
            "--" + declared.name.replace("_", "-"),
            dest=declared.name,
            default=None,
            metavar="|".join(meta["choices"]) or type(declared.default).__name__.replace("PosixPath", "path").upper(),
            help=f"{meta['text']}{shown} [{PREFIX}{declared.name.upper()}]".replace("%", "%%"),
        )


def environment(name: str, default: str) -> str:
    """The value of MATCHCUT_<name> where it is set and not empty, for commands that are clients of a server."""
    return os.environ.get(PREFIX + name) or default


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


def suggestion(name: str, known: Iterable[str]) -> str:
    """', did you mean ...?' where an option has a similar name."""
    import difflib

    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def load(flags: Mapping[str, object], environ: Mapping[str, str] | None = None) -> Config:
    """The configuration from flags, environment and file.

    Args:
        flags: what the command line set; None means not set; names that are no option are ignored.
        environ: os.environ where not given.

    Raises:
        InvalidInput: an option has a value that it cannot have; the message names where it stands.
    """
    environ = os.environ if environ is None else environ
    known = {declared.name: declared for declared in fields(Config)}
    values: dict[str, Any] = {}
    path = flags.get("config") or environ.get(f"{PREFIX}CONFIG")
    if path:
        values |= from_file(Path(str(path)).expanduser(), known)
    for name, declared in known.items():
        variable = PREFIX + name.upper()
        if environ.get(variable):
            values[name] = parse(declared, environ[variable], variable)
        if flags.get(name) is not None:
            values[name] = parse(declared, flags[name], "--" + name.replace("_", "-"))
    values.setdefault("data", user_folder("XDG_DATA_HOME", ".local/share"))
    values.setdefault("cache", user_folder("XDG_CACHE_HOME", ".cache"))
    loaded = Config(**values)
    if loaded.min_segment > loaded.max_segment:
        raise InvalidInput(
            f"min_segment {loaded.min_segment:g} is above max_segment {loaded.max_segment:g}; choose a smaller one",
            reason="INVALID_OPTION",
            field="min_segment",
        )
    return loaded
