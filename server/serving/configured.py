"""What lies beside a model's versions and says how they are served: a TOML of ours, or the config.pbtxt of Triton.

A TOML wins: model.toml over config.pbtxt for the whole model, the TOML beside an ONNX file for that version.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from matchcut.server.errors import EngineFailed
from matchcut.server.models import description
from matchcut.server.models.description import IDLE_TIMEOUT, Description
from matchcut.server.serving.declared import FILE, INITIAL, Declared, Reader
from matchcut.server.serving.folder import Folder, Version
from matchcut.server.serving.policy import Policy

__all__ = ["Setup", "policy", "setup"]

CONFIG_BYTES = 256 << 10  # of a config.pbtxt at most; people write a few thousand
LABEL_BYTES = 8 << 20  # of a file of class names
STATE_BYTES = 64 << 20  # of a file with which sequences begin
NAMES = 20  # of what config.pbtxt says in vain, for the log
TRITONS = "model.onnx"  # what Triton takes where no file is named

log = logging.getLogger("matchcut")


@dataclass(frozen=True, slots=True)
class Setup:
    """How a version is to be served.

    declared: what config.pbtxt says of it; None where a TOML does, or nothing. begins: the raw elements with which its
    sequences begin, by input of a state; zeros where nothing is said.
    """

    onnx: Path
    description: Description
    declared: Declared | None = None
    begins: Mapping[str, bytes] = field(default_factory=dict)


def policy(folder: Folder, root: Path, read: Reader | None) -> Policy:
    """Which versions of a model are served. Tells the log what config.pbtxt says in vain.

    Args:
        root: the repository's folder; no file outside of it is read.
        read: reads a config.pbtxt; None: such files are not looked at.

    Raises:
        EngineFailed: model.toml or config.pbtxt is broken, or asks for what this server cannot do.
    """
    said = declared(folder, root, read)
    if said is None:
        if read is not None and (folder.path / FILE).exists():
            log.info("model %s: model.toml is there, so %s is not read", folder.name, FILE)
        found = description.of_model(folder.path, root)
        return Policy(found.default_version, found.keep)
    if said.ignored:
        names = [*said.ignored[:NAMES], *(["..."] if len(said.ignored) > NAMES else [])]
        log.info("model %s: %s says more than this server needs: %s", folder.name, FILE, ", ".join(names))
    if said.delayed:
        log.debug("model %s: no request is held back for others on purpose, whatever delay is set", folder.name)
    return Policy(keep=said.keep, only=said.only, source=FILE)


def setup(folder: Folder, version: Version, root: Path, read: Reader | None) -> Setup:
    """How a version is to be served.

    Raises:
        EngineFailed: there is no ONNX file, or what is said of it is broken.
    """
    said = declared(folder, root, read)
    if said is None:
        if version.onnx is None:
            raise EngineFailed(version.fault)
        return Setup(version.onnx, description.of_version(version.onnx, folder.path, root))
    onnx = chosen(version, said.file, root)
    own = onnx.with_suffix(".toml")
    if description.present(own, root):
        log.info("model %s: %s beside version %s wins over %s", folder.name, own.name, version.number, FILE)
        return Setup(onnx, description.of_version(onnx, folder.path, root))
    labels = {
        output.name: classes(output.name, output.labels, folder, root) for output in said.outputs if output.labels
    }
    return Setup(
        onnx,
        Description(
            labels=labels,
            states={state.input: state.output for state in said.states},
            idle_timeout=said.idle_timeout or IDLE_TIMEOUT,
        ),
        said,
        {state.input: begin(state.input, state.file, folder, root) for state in said.states if state.file},
    )


def declared(folder: Folder, root: Path, read: Reader | None) -> Declared | None:
    """What config.pbtxt says; None where there is none, or model.toml is there.

    Raises:
        EngineFailed: it is broken, asks for what this server cannot do, or is another model's.
    """
    path = folder.path / FILE
    if read is None or description.present(folder.path / "model.toml", root) or not description.present(path, root):
        return None
    said = read(content(path, FILE, CONFIG_BYTES))
    if said.name not in ("", folder.name):
        raise wrong(
            f"name is {shown(said.name)}, but the folder is {folder.name!r}: make them the same, or leave it out"
        )
    return said


def chosen(version: Version, name: str, root: Path) -> Path:
    """The ONNX file of a version.

    Args:
        name: what config.pbtxt names; "": nothing.

    Raises:
        EngineFailed: it is not there, or lies elsewhere.
    """
    if version.path is None:
        raise EngineFailed(version.fault)
    if not name:
        if version.onnx is None and not (version.path / TRITONS).is_file():
            raise EngineFailed(version.fault)
        path = version.onnx or version.path / TRITONS
    else:
        check_plain("default_model_filename", name)
        path = version.path / name
        if not description.present(path, root):
            raise wrong(f"default_model_filename is {shown(name)}, which is not in version {version.number}")
    if path.is_dir():  # as Triton has models with weights of their own files
        raise wrong(f"{shown(path.name)} of version {version.number} is a folder: save the model as one ONNX file")
    return path


def classes(output: str, name: str, folder: Folder, root: Path) -> tuple[str, ...]:
    """The class names of an output, one a line; only ends of lines of Unix and Windows count as such.

    Raises:
        EngineFailed: there is no such file beside config.pbtxt, or it cannot be read.
    """
    what = f"label_filename of output {shown(output)}"
    check_plain(what, name)
    path = folder.path / name
    if not description.present(path, root):
        raise wrong(f"{what} is {shown(name)}, which is not in the model's folder")
    lines = content(path, name, LABEL_BYTES).decode("utf-8-sig", "replace").removesuffix("\n").split("\n")
    return tuple(line.removesuffix("\r") for line in lines)


def begin(state: str, name: str, folder: Folder, root: Path) -> bytes:
    """The raw elements with which a state begins.

    Raises:
        EngineFailed: there is no such file in the folder of first states, or it cannot be read.
    """
    what = f"data_file of state {shown(state)}"
    check_plain(what, name)
    path = folder.path / INITIAL / name
    if not description.present(path, root):
        raise wrong(f"{what} is {shown(name)}, which is not in the model's folder {INITIAL}")
    return content(path, name, STATE_BYTES)


def check_plain(what: str, name: str) -> None:
    """Raises EngineFailed where a name leads to another folder."""
    if name in (".", "..") or Path(name).name != name or "\0" in name or len(name.encode()) > 255:
        raise wrong(f"{what} must be the plain name of a file, not {shown(name)}")


def content(path: Path, name: str, most: int) -> bytes:
    """A file's bytes. Raises EngineFailed where it is none, has more than `most` of them, or cannot be read."""
    try:
        if not path.is_file():  # to open a pipe would wait for its other end
            raise EngineFailed(f"{name} is not a file: replace it by one", reason="MODEL_INVALID")
        with path.open("rb") as file:
            found = file.read(most + 1)
    except OSError as error:
        raise EngineFailed(f"{name} cannot be read: {error.strerror}", reason="MODEL_INVALID") from error
    if len(found) > most:
        raise EngineFailed(f"{name} has more than {most} bytes: shorten it", reason="MODEL_INVALID")
    return found


def shown(name: str) -> str:
    """A name out of a file, of a length for messages."""
    return repr(name if len(name) <= 80 else name[:80] + "...")


def wrong(what: str) -> EngineFailed:
    return EngineFailed(f"{FILE}: {what}", reason="MODEL_INVALID")
