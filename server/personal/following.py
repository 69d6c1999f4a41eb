"""Which session model users' lists are made with: the one deployed last, if it takes the encoder's vectors."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

from matchcut.server.errors import EngineFailed, InvalidInput, MatchcutError
from matchcut.server.records import EncoderIdentity
from matchcut.server.session import DecayingMean, SessionFolder, SessionModel, current
from matchcut.server.session.description import FILE, read

__all__ = ["Choosing", "Following"]

log = logging.getLogger("matchcut")


class Choosing:
    """Finds the session model for an encoder. For one thread at a time.

    Args:
        folder: of session models; None: there is none, and the decaying mean is used.
        half_life: of that mean, in events.
    """

    def __init__(self, folder: Path | None, half_life: float) -> None:
        self._root = folder
        self._half_life = half_life
        self._folder: SessionFolder | None = None

    @property
    def fault(self) -> str:
        """Why what is deployed is not served; "": it is, or nothing is deployed."""
        return "" if self._folder is None else self._folder.fault

    def first(self, encoder: EncoderIdentity) -> SessionModel:
        """The model to begin with; the decaying mean where none is deployed, or it is of another encoder.

        Raises:
            EngineFailed: what is deployed is broken; says where, and what to do.
            InvalidInput: what --session names is no folder of session models.
        """
        if self._root is not None:
            check(self._root)
        self._folder = None if self._root is None else SessionFolder(self._root, encoder)
        if self._root is None or self._folder is None:
            return DecayingMean(encoder, self._half_life)
        try:
            number = current(self._root)
        except EngineFailed as error:
            raise told(error, "put that right, or leave --session out") from error
        if number is None:
            log.info("no session model is deployed in %s yet: users' lists are made with a decaying mean", self._root)
            return DecayingMean(encoder, self._half_life)
        try:
            return self._loaded(self._root, self._folder, number, encoder)
        except EngineFailed as error:
            remedy = f"`matchcut train rollback {self._root}` serves the version before it; or leave --session out"
            raise told(error, remedy, f"version {number} of {self._root} cannot be served: ") from error

    def _loaded(self, root: Path, folder: SessionFolder, number: int, encoder: EncoderIdentity) -> SessionModel:
        made_for = read(root / str(number)).encoder
        if (made_for.digest, made_for.dimensions) != (encoder.digest, encoder.dimensions):
            log.warning(
                "session model %d of %s takes vectors of %r, not of %r: users' lists are made with a decaying mean "
                "until another is trained",
                *(number, root, made_for.name, encoder.name),
            )
            return DecayingMean(encoder, self._half_life)
        return folder.load()

    def another(self, encoder: EncoderIdentity, served: SessionModel) -> SessionModel | None:
        """What is to take the served one's place; None: nothing is. Never raises a MatchcutError."""
        if served.encoder.digest != encoder.digest:
            try:
                return self.first(encoder)
            except MatchcutError as error:
                log.error("the session model cannot be used with %r: %s", encoder.name, error.message)
                return DecayingMean(encoder, self._half_life)
        if self._folder is None or self._root is None or not self._root.is_dir():
            return None
        return self._folder.poll()


def check(root: Path) -> None:
    """Refuses what can never be a folder of session models; one that is not there yet can.

    Raises:
        InvalidInput: it is a file, or one version's own folder; or it cannot be looked into.
    """
    try:
        file, version = root.exists() and not root.is_dir(), (root / FILE).exists()
    except OSError as error:
        message = f"--session {root} cannot be read: {error.strerror}"
        raise InvalidInput(message, reason="INVALID_OPTION", field="session") from error
    if file:
        why = "is a file; it must be a folder of session models, as `matchcut train session` makes one"
    elif version:
        why = f"is one version's own folder; give the folder of versions that it lies in: {root.resolve().parent}"
    else:
        return
    raise InvalidInput(f"--session {root} {why}", reason="INVALID_OPTION", field="session")


def told(error: EngineFailed, remedy: str, what: str = "") -> EngineFailed:
    """The error with the option that it is of, and what can be done."""
    return EngineFailed(f"--session: {what}{error.message}; {remedy}", reason=error.reason, field="session")


class Following:
    """A thread that looks now and then whether another session model is to be served.

    Args:
        look: does that, and serves it; what it raises is logged.
        pause: seconds between two looks.
    """

    def __init__(self, look: Callable[[], None], pause: float) -> None:
        self._look = look
        self._pause = pause
        self._over = Event()
        self._thread = Thread(target=self._run, name="session-models", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Looks no more."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._pause):
            try:
                self._look()
            except MatchcutError as error:
                log.error("the session model is not replaced: %s", error.message)
            except Exception:  # the next look may go better
                log.exception("the session model is not replaced")
