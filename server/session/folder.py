"""Where session models lie: FOLDER/1, FOLDER/2, ..., of which FOLDER/CURRENT names the one that is served.

A version never changes once it is there. CURRENT is replaced as a whole, so that whoever reads it finds one number or
the other; HISTORY lists, oldest first, those that were served before, which a rollback goes back through.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from matchcut.server.errors import EngineFailed, MatchcutError, NotFound
from matchcut.server.records import EncoderIdentity
from matchcut.server.session.description import wrong
from matchcut.server.session.onnx import OnnxSession

__all__ = ["CURRENT", "SessionFolder", "current", "deploy", "rollback", "versions"]

CURRENT, HISTORY = "CURRENT", "HISTORY"
NUMBER = re.compile("[1-9][0-9]{0,8}")
LONGEST = 32  # bytes that are looked at of CURRENT
KEPT = 100  # numbers in HISTORY
TRIES = 100  # of numbers for a new version, where others deploy, too

Stamp = tuple[tuple[str, int, int, int], ...]  # name, size, time of the last change and inode of each file

_log = logging.getLogger("matchcut.session")


def versions(root: Path) -> list[int]:
    """The numbers of the versions that are there, in order; whether they are whole is not looked at.

    Raises:
        EngineFailed: the folder cannot be read.
    """
    try:
        return sorted(int(path.name) for path in root.iterdir() if NUMBER.fullmatch(path.name) and path.is_dir())
    except OSError as error:
        raise wrong(f"the folder of session models {str(root)!r} cannot be read: {error.strerror}") from error


def current(root: Path) -> int | None:
    """The version that is to be served; None where none was deployed.

    Raises:
        EngineFailed: CURRENT cannot be read, or is no number.
    """
    try:
        with (root / CURRENT).open("rb") as file:
            said = file.read(LONGEST).decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise wrong(f"{root / CURRENT} cannot be read: {error.strerror}") from error
    if not NUMBER.fullmatch(said):
        raise wrong(f"{root / CURRENT} holds {said!r}; it must be the number of a version, such as 1")
    return int(said)


def deploy(root: Path, version: Path, encoder: EncoderIdentity | None = None) -> int:
    """Copies a version's folder into the root, if it can be served, and makes it the one that is; returns its number.

    One that lies in the root already, under a number, is not copied. All is on the disk when it returns.

    Args:
        encoder: whose vectors the server has; None: not looked at.

    Raises:
        EngineFailed: it cannot be served (MODEL_INVALID), or the disk failed; what was served before still is.
    """
    OnnxSession(version, encoder).close()
    try:
        root.mkdir(parents=True, exist_ok=True)
        if version.resolve().parent == root.resolve() and NUMBER.fullmatch(version.resolve().name):
            number = int(version.resolve().name)
        else:
            number = _copied(root, version, encoder)
        before = current(root)
        if before != number:
            served = _history(root)
            if before is not None:
                _write(root, HISTORY, "".join(f"{each}\n" for each in [*served, before][-KEPT:]))
            _write(root, CURRENT, f"{number}\n")
    except OSError as error:
        raise EngineFailed(f"the session model could not be deployed to {str(root)!r}: {error}") from error
    return number


def rollback(root: Path) -> int:
    """Makes the version that was served before the present one the one that is, and returns its number.

    Raises:
        NotFound: there is none before it, or no such folder.
        EngineFailed: the disk failed, or that version cannot be served any more; nothing was changed.
    """
    if not root.is_dir():
        what = f"the folder of session models {str(root)!r} cannot be read: it is not there"
        raise NotFound(what, reason="MODEL_NOT_FOUND")
    now, there = current(root), set(versions(root))
    served = [number for number in _history(root) if number in there]
    while served and served[-1] == now:  # what a crash right after CURRENT was replaced leaves
        served.pop()
    if not served:
        what = "no session model is deployed in" if now is None else f"no version was served before {now} in"
        raise NotFound(f"{what} {str(root)!r}; deploy one with `matchcut train session`", reason="MODEL_NOT_FOUND")
    number = served.pop()
    OnnxSession(root / str(number)).close()
    try:
        _write(root, CURRENT, f"{number}\n")
        _write(root, HISTORY, "".join(f"{each}\n" for each in served))
    except OSError as error:
        raise EngineFailed(f"{CURRENT} could not be replaced: {error}") from error
    return number


class SessionFolder:
    """The model that a folder says is to be served, looked at now and then. For one thread at a time.

    served: the version that was loaded last; None: none yet. fault: why what CURRENT says is not served; "": it is.

    Args:
        root: the folder.
        encoder: whose vectors the server has.
        threads: see OnnxSession.
    """

    def __init__(self, root: Path, encoder: EncoderIdentity, *, threads: int = 1) -> None:
        self.served: int | None = None
        self.fault = ""
        self._root = root
        self._encoder = encoder
        self._threads = threads
        self._tried: tuple[int, Stamp] | None = None
        self._digest = ""

    def load(self) -> OnnxSession:
        """The model that CURRENT names.

        Raises:
            EngineFailed: there is none, or it cannot be served.
        """
        number = current(self._root)
        if number is None:
            raise wrong(f"{str(self._root)!r} has no {CURRENT}: deploy a session model with `matchcut train session`")
        return self._load(number)

    def poll(self) -> OnnxSession | None:
        """Another model than the one before, which is to take its place; None: there is none that can be served.

        One that failed is tried again only when CURRENT names another, or its files have changed. It raises nothing:
        the log and `fault` say what is wrong, and what was served goes on.
        """
        faulty = bool(self.fault)
        try:
            number = self._current()
            if number is None or (number, _stamp(self._root / str(number))) == self._tried:
                return None
            before = self._digest
            model = self._load(number)
        except MatchcutError as error:
            if self.fault != error.message:
                _log.error("the session model is not replaced: %s", error.message)
            self.fault = error.message
            return None
        if model.identity.digest == before:  # CURRENT went back, or a file was written again as it was
            model.close()
            if faulty:
                _log.info("%s is good again: version %d is still served", self._root / CURRENT, number)
            return None
        _log.info("session model %r: version %d is served now", model.identity.name, number)
        return model

    def _current(self) -> int | None:
        """What CURRENT says; where that is nothing, all is looked at again once it is a number, the same one or not."""
        try:
            return current(self._root)
        except EngineFailed:
            self._tried = None
            raise

    def _load(self, number: int) -> OnnxSession:
        folder = self._root / str(number)
        self._tried = number, _stamp(folder)
        model = OnnxSession(folder, self._encoder, threads=self._threads)
        self.served, self.fault, self._digest = number, "", model.identity.digest
        return model


def _copied(root: Path, version: Path, encoder: EncoderIdentity | None) -> int:
    """Copies a version into the root under the next number, whole or not at all, and returns that number."""
    aside = Path(tempfile.mkdtemp(prefix=".deploy-", dir=root))
    try:
        for path in sorted(version.iterdir()):
            if path.is_file() and not path.name.startswith("."):
                shutil.copyfile(path, aside / path.name)
                _sync(aside / path.name)
        aside.chmod(0o755)
        _sync(aside)
        OnnxSession(aside, encoder).close()  # what was copied is what was checked
        first = max(versions(root), default=0) + 1
        for number in range(first, first + TRIES):
            with suppress(FileExistsError):
                (root / str(number)).mkdir()  # it is ours now, whoever else deploys
                aside.rename(root / str(number))  # an empty folder gives way
                _sync(root)
                return number
        raise OSError("no number is free")
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _history(root: Path) -> list[int]:
    """The versions that were served before; what is no number is left out."""
    try:
        lines = (root / HISTORY).read_text(encoding="utf-8", errors="replace").split()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise wrong(f"{HISTORY} cannot be read: {error.strerror}") from error
    return [int(line) for line in lines if NUMBER.fullmatch(line)]


def _write(root: Path, name: str, text: str) -> None:
    """Puts a file in the place of another in an instant."""
    number, aside = tempfile.mkstemp(prefix=f".{name}-", dir=root)
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(aside).replace(root / name)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
    _sync(root)


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _stamp(folder: Path) -> Stamp:
    """Changes with the files of a folder; empty where it cannot be read."""
    with suppress(OSError):
        found = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
        return tuple((name, status.st_size, status.st_mtime_ns, status.st_ino) for name, status in found)
    return ()
