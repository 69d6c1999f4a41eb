"""Looks at models on disk: ROOT/NAME/VERSION/ with one ONNX file each, and what is wrong with those that are not so."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from matchcut.server.models.description import contained
from matchcut.server.serving.declared import FILE, INITIAL

__all__ = ["Folder", "Version", "look", "order", "scan"]

NUMBER = re.compile("[1-9][0-9]{0,17}")  # fits into int64, in which clients write it
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}")

# Name, size, time of the last change and inode of each file: another one where any of them was written or replaced.
Stamp = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Version:
    """A version's folder.

    number: the folder's name. onnx: its ONNX file; None where there is a fault. stamp: changes with its files, those
    right in the model's folder, and Triton's first states. fault: why it cannot be loaded; "" where that is not known
    yet.
    path: the folder, where files in it may be used: what is said of the model may name the ONNX file.
    """

    number: str
    onnx: Path | None
    stamp: Stamp = ()
    fault: str = ""
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class Folder:
    """A model's folder; versions in the order of their numbers. fault: why none of them can be loaded."""

    name: str
    path: Path
    versions: tuple[Version, ...] = ()
    fault: str = ""


def scan(root: Path) -> dict[str, Folder]:
    """All models by name. What begins with a point is left out: it is hidden, or about to be renamed.

    Raises:
        OSError: the root cannot be read.
    """
    found = (folder_of(path, root) for path in sorted(root.iterdir()) if not path.name.startswith("."))
    return {folder.name: folder for folder in found if folder is not None}


def look(root: Path, name: str) -> Folder | None:
    """One model; None where there is no such folder. The name is compared with those on disk, never opened.

    Raises:
        OSError: the root cannot be read.
    """
    path = next((path for path in root.iterdir() if not name.startswith(".") and readable(path.name) == name), None)
    return None if path is None else folder_of(path, root)


def order(number: str) -> tuple[bool, int, str]:
    """What versions are sorted by: numbers first, by size."""
    return (False, int(number), "") if NUMBER.fullmatch(number) else (True, 0, number)


def folder_of(path: Path, root: Path) -> Folder | None:
    """A model's folder; None where it is a file, which is none of ours."""
    name = readable(path.name)

    def broken(why: str) -> Folder:
        return Folder(name, path, fault=why)

    if not contained(path, root):
        return broken("it is a link that leads out of the repository: put the folder itself there")
    try:
        if path.is_symlink() and not path.exists():
            return broken("it is a link to nothing: remove it or restore the folder")
        if not path.is_dir():
            return None
        if not NAME.fullmatch(path.name):
            return broken(
                "its name may have letters, digits, '.', '_', '+' and '-' only, 128 at most: rename the folder"
            )
        shared = stamp(path)
        folders = [each for each in path.iterdir() if not each.name.startswith(".") and not each.is_file()]
        if (path / FILE).exists():  # Triton has folders beside the versions, such as warmup/, and leaves them alone
            folders = [each for each in folders if NUMBER.fullmatch(each.name)]
            first = path / INITIAL
            shared += stamp(first) if contained(first, root) and first.is_dir() else ()
    except (OSError, RuntimeError) as error:
        return broken(f"its folder cannot be read: {reason(error)}")
    versions = sorted((version_of(each, root, shared) for each in folders), key=lambda one: order(one.number))
    if not versions:
        return broken(f"it has no versions: put the model into {name}/1/")
    return Folder(name, path, tuple(versions))


def version_of(path: Path, root: Path, shared: Stamp) -> Version:
    """A version's folder."""
    number = readable(path.name)

    def broken(why: str) -> Version:
        return Version(number, None, (*shared, ("fault: " + why, 0, 0, 0)), why)

    if not NUMBER.fullmatch(path.name):
        return broken("a version is a whole number from 1, without zeros before it: rename the folder")
    if not contained(path, root):
        return broken("it is a link that leads out of the repository: put the folder itself there")
    try:
        if not path.is_dir():
            return broken("it is no folder: a version is a folder with an ONNX file")
        models = [each for each in sorted(path.iterdir()) if each.suffix == ".onnx" and not each.name.startswith(".")]
        own = stamp(path)
    except (OSError, RuntimeError) as error:
        return broken(f"its folder cannot be read: {reason(error)}")
    if not models:
        return Version(
            number, None, shared + own, "there is no ONNX file in it: put one there, with the ending .onnx", path
        )
    if outside := next((each for each in models if not contained(each, root)), None):
        return broken(f"{outside.name} is a link that leads out of the repository: put the file itself there")
    if len(models) > 1:
        why = f"there are {len(models)} ONNX files in it, {models[0].name} and others: leave one"
        return Version(number, None, shared + own, why, path)
    return Version(number, models[0], shared + own, path=path)


def stamp(path: Path) -> Stamp:
    """Of the files right in a folder; a file that has gone meanwhile is left out."""
    found = []
    for each in sorted(path.iterdir()):
        try:
            if each.is_file():
                status = each.stat()
                found.append((os.fsdecode(each.name), status.st_size, status.st_mtime_ns, status.st_ino))
        except FileNotFoundError:
            continue
    return tuple(found)


def readable(name: str) -> str:
    """A file's name as text that can be shown and sent, whatever its bytes are."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def reason(error: OSError | RuntimeError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
