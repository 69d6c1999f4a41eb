"""Every option of the server, declared once: a field here is a flag, an environment variable and a line of the file.

The field `max_pixels` is `--max-pixels`, `MATCHCUT_MAX_PIXELS` and `max_pixels = ...` in the TOML file. A flag beats
the environment, the environment beats the file, the file beats the profile, the profile beats the default. This is the
only module that reads the environment.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from matchcut.server.errors import InvalidInput
from matchcut.server.options import add_options, from_file, option, parse
from matchcut.server.profiles import PROFILES, STANDARD

__all__ = ["PREFIX", "Config", "add_flags", "environment", "load"]

PREFIX = "MATCHCUT_"
NOT_GIVEN = Path()


def user_folder(variable: str, below: str) -> Path:
    """The XDG base folder that the variable names, or its default below the home folder."""
    return Path(os.environ.get(variable) or Path.home() / below) / "matchcut"


@dataclass(frozen=True)
class Config:
    """All options with their values. Times are in seconds here, as people write them."""

    profile: str = option(
        STANDARD,
        "other defaults for the options below; edge: little memory, one core, few callers",
        group="serving",
        choices=tuple(PROFILES),
    )
    listen: str = option("127.0.0.1:7411", "address and port to serve on; port 0 takes a free one", group="serving")
    max_media_requests: int = option(
        8, "requests with media under way at once; more are refused with RESOURCE_EXHAUSTED", group="serving", least=1
    )
    turns: int = option(
        0,
        "clips worked at at once; others wait for their turn; 0: as many as there are cores",
        group="serving",
        least=0,
    )
    turn_seconds: float = option(
        3.0, "seconds of work on one clip, while others wait, after which they go first", group="serving", least=0
    )
    max_requests: int = option(64, "other requests under way at once; more are refused", group="serving", least=1)
    max_message: int = option(64 << 20, "largest gRPC message", group="serving", least=1 << 20, size=True)
    max_metadata: int = option(16 << 10, "largest metadata of a call", group="serving", least=1 << 10, size=True)
    max_connections: int = option(1000, "connections at once; more are closed", group="serving", least=1)
    max_streams: int = option(512, "calls at once on one connection; more may be UNAVAILABLE", group="serving", least=1)
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
    vectors: str = option(
        "memory",
        "where items' vectors are while the server runs; file: in one that it makes anew in the data folder at each "
        "start, which takes no memory between requests",
        group="storage",
        choices=("memory", "file"),
    )
    cache: Path = option(
        NOT_GIVEN,
        "folder for what can be rebuilt: the default encoder, what was measured [default: $XDG_CACHE_HOME/matchcut]",
        group="storage",
    )

    encoder: Path = option(
        NOT_GIVEN,
        "ONNX encoder with its TOML beside it [default: EfficientNet-Lite0, built on first use]",
        group="encoder",
    )
    next_encoder: Path = option(
        NOT_GIVEN,
        "ONNX encoder that is to take over from it while the server runs, once `matchcut reindex` has made its vectors "
        "of all items; off by default",
        group="encoder",
    )
    precision: str = option(
        "float32",
        "of the default encoder; int8 takes less time and memory, and its vectors are another encoder's",
        group="encoder",
        choices=("float32", "int8"),
    )
    engine: str = option(
        "auto",
        "what runs the encoder; auto takes an engine built for this GPU, else measures on this CPU and remembers",
        group="encoder",
        choices=(
            "auto",
            *("onnxruntime", "onnxruntime-fp32"),
            *("openvino", "openvino-fp32", "openvino-mixed50", "openvino-mixed25", "openvino-bf16"),
            *("tensorrt", "tensorrt-rtx"),
        ),
    )
    gru: Path = option(
        NOT_GIVEN,
        "ONNX step of a GRU over the encoder's embeddings, for queries with TEMPORAL_GRU [default: a decaying mean]",
        group="encoder",
    )
    gru_half_life: float = option(
        8.0, "frames after which a frame counts half in that mean", group="encoder", least=0.01
    )
    threads: int = option(0, "threads of the engine; 0 takes all cores", group="encoder", least=0)
    runs: int = option(0, "runs of the engine at once; 0: as many as cores allow", group="encoder", least=0)
    batch: int = option(4, "one request's frames in one run of the engine at most", group="encoder", least=1)
    max_batch: int = option(
        16,
        "frames of all requests together in one run of the engine at most; how many are worth it is measured at start",
        group="encoder",
        least=1,
    )
    max_queue: int = option(
        128,
        "frames that wait for the engine at most; more are refused with RESOURCE_EXHAUSTED",
        group="encoder",
        least=1,
    )
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

    tagger: str = option(
        "",
        "classifier, as `matchcut train image` makes one, whose classes become tags (class:...) of items that are put "
        "in: an ONNX file, or its folder, of which the highest version is taken; PATH, or PATH@P for those with a mean "
        "probability of at least P, 0.5 otherwise; off by default",
        group="encoder",
    )

    models: Path = option(NOT_GIVEN, "folder of models that are served too: NAME/VERSION/model.onnx", group="models")
    models_load: str = option("all", "models loaded at start: all, none, or names with commas between", group="models")
    models_poll: float = option(
        0.0, "seconds between two looks for models that are new or changed; 0 never looks", group="models", least=0
    )
    models_sequences: int = option(
        1024,
        "sequences at once of a model with a state; beyond that, idle ones of who holds the most or has gone end",
        group="models",
        least=1,
    )

    users: str = option(
        "on",
        "whether events of users are kept and lists made of them; off keeps nothing: callers send the history",
        group="users",
        choices=("on", "off"),
    )
    users_ahead: str = option(
        "on", "whether lists are got ready for at the start, not by the first", group="users", choices=("on", "off")
    )
    event_ahead: float = option(
        86400.0, "seconds that an event's time may lie ahead of the server's clock", group="users", least=0
    )
    event_days: int = option(365, "days after which events are deleted; 0 keeps them", group="users", least=0)
    user_events: int = option(1000, "most events kept of a user; the oldest go first", group="users", least=1)
    user_memory: int = option(
        256 << 20,
        "memory for the states of users; others are made anew when they come",
        group="users",
        size=True,
        least=0,
    )
    anonymity: int = option(
        10, "users below which no number of users leaves the server, nor makes an item popular", group="users", least=1
    )
    session: Path = option(
        NOT_GIVEN,
        "folder of session models that `matchcut train session` made; followed while the server runs [default: a "
        "decaying mean of what the user liked]",
        group="users",
    )
    session_half_life: float = option(
        4.0, "events after which an event counts half in that mean", group="users", least=0.01
    )
    candidates: int = option(100, "items that a user's list is made of", group="users", least=1)
    experiments: Path = option(NOT_GIVEN, "TOML file of experiments on users' lists", group="users")

    oip: str = option(
        "on",
        "whether the open inference protocol is served beside matchcut's own services, so that standard clients can "
        "use the models",
        group="inference protocol",
        choices=("on", "off"),
    )
    model_control: str = option(
        "none",
        "whether callers of that protocol may load and unload models: explicit lets them",
        group="inference protocol",
        choices=("none", "explicit"),
    )
    shared_memory: int = option(
        0,
        "regions of POSIX shared memory that callers on this machine may register at once, by which they can read and "
        "write what this user may under /dev/shm; 0 takes none",
        group="inference protocol",
        least=0,
    )
    stream_requests: int = option(
        8,
        "requests of one inference stream under way at once; the next ones are not read until one is answered",
        group="inference protocol",
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
    otel_endpoint: str = option(
        "",
        "where spans of requests are sent for OpenTelemetry, by OTLP over HTTP, such as http://127.0.0.1:4318; needs "
        "the extra otel; by default what OTEL_EXPORTER_OTLP_ENDPOINT names, and off without it",
        group="watching",
    )


def add_flags(parser: argparse.ArgumentParser, *, only: Collection[str] = ()) -> None:
    """Adds --config and a flag for every option (or `only` those), with its default and its other names."""
    parser.add_argument(
        "--config", metavar="FILE", default=None, help=f"TOML file with any of the options below [{PREFIX}CONFIG]"
    )
    add_options(parser, [declared for declared in fields(Config) if not only or declared.name in only], PREFIX)


def environment(name: str, default: str) -> str:
    """The value of MATCHCUT_<name> where it is set and not empty, for commands that are clients of a server."""
    return os.environ.get(PREFIX + name) or default


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
    values = {**PROFILES[values.get("profile", STANDARD)], **values}
    values.setdefault("otel_endpoint", environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", ""))
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
