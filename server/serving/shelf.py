"""One model of a repository: its versions that are ready, how they are replaced, and why others are not ready."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from matchcut.server.errors import EngineFailed, MatchcutError, NotFound, Unavailable
from matchcut.server.serving.contract import IndexEntry, ModelState
from matchcut.server.serving.folder import Folder, Stamp, Version, order
from matchcut.server.serving.policy import Policy
from matchcut.server.serving.runner import Runner
from matchcut.server.serving.served import Served

__all__ = ["Shelf"]

log = logging.getLogger("matchcut")


@dataclass(frozen=True, slots=True)
class Ready:
    """What is served: versions by number, and which of them answers where none is named ("": none)."""

    versions: Mapping[str, Served] = field(default_factory=dict)
    default: str = ""


class Shelf:
    """One model of a repository. Safe to be used by several threads at once.

    Who asks for a version gets what is ready at that moment, and what replaces it is ready before it is taken away:
    `_ready` is changed as a whole.

    Args:
        folder: what is on disk.
        describe: reads which versions of the model are to be served.
        build: loads a version and runs it for the first time.
    """

    def __init__(
        self,
        folder: Folder,
        *,
        describe: Callable[[Folder], Policy],
        build: Callable[[Folder, Version], Served],
    ) -> None:
        self._name = folder.name
        self._describe = describe
        self._build = build
        self._ready = Ready()
        self._pinned = ""
        self._leaving: list[tuple[str, Runner]] = []
        self._work = threading.Lock()  # held while versions are loaded or taken away
        self._lock = threading.Lock()  # held for a moment, for what follows
        self._folder = folder
        self._gone = self._closed = False
        self._loading = ""
        self._fault = ""  # of the whole model
        self._faults: dict[str, str] = {}  # of its versions
        self._loaded: dict[str, Stamp] = {}  # the files that each ready version was made of
        self._settled: dict[str, Stamp] = {}  # files that failed, or are not to be loaded before they change

    @property
    def ready(self) -> Mapping[str, Served]:
        """The versions that are ready, by number."""
        return self._ready.versions

    @property
    def known(self) -> bool:
        """Whether there is a folder, or something that was made of it."""
        return not self._gone or bool(self.ready or self.leaving())

    def see(self, folder: Folder | None) -> None:
        """What is on disk now; None: nothing any more."""
        with self._lock:
            self._gone = folder is None
            self._folder = folder or Folder(self._name, self._folder.path, fault="its folder has gone")

    def model(self, version: str) -> Served:
        """See Repository.model."""
        ready = self._ready
        served = ready.versions.get(version or ready.default)
        if served is not None:
            return served
        entries = self.entries()
        if version and version not in {entry.version for entry in entries}:
            raise NotFound(
                f"Request for unknown model: {self._name!r} version {version!r} is not found",
                reason="MODEL_NOT_FOUND",
                field="model_version",
            )
        if not version and ready.versions:
            why = f"model.toml lets version {self._pinned} answer, which is not ready; name another, or correct it"
        else:
            whys = [(entry.version, entry.reason) for entry in entries if version in ("", entry.version)]
            why = "; ".join(f"version {number}: {reason}" if number else reason for number, reason in whys)
        of_version = f" version {version}" if version else ""
        raise Unavailable(f"model {self._name!r}{of_version} is not ready: {why}", field="model_name")

    def at_hand(self, version: str) -> Served | None:
        """See Repository.at_hand."""
        ready = self._ready
        return ready.versions.get(version or ready.default)

    def settle(self) -> None:
        """What is on disk now is not to be loaded before it changes, unless somebody asks for it."""
        with self._lock:
            self._settled = {each.number: each.stamp for each in self._folder.versions}

    def load(self, folder: Folder, *, only: Collection[str] | None = None) -> None:
        """Makes ready what is new or changed on disk, then takes away what is not there any more.

        Args:
            only: versions whose files are complete, or have gone; others stay as they are. None: all of them are, and
                those that failed before are tried again.

        Raises:
            EngineFailed: some failed, and none could be loaded; those that were ready still are.
            Unavailable: the repository is closed.
        """
        with self._work:
            if self._closed:
                raise Unavailable("the server is stopping; no model is loaded any more")
            self.see(folder)
            policy = self._said(folder)
            old = self._ready.versions
            new: dict[str, Served] = {}
            failed: dict[str, str] = {}
            for version in self._wanted(folder, policy, new):
                served = old.get(version.number)
                try:
                    served = self._version(folder, version, served, only)
                except EngineFailed as error:
                    failed[version.number] = error.message
                if served is not None:
                    new[version.number] = served
            on_disk = {version.number for version in folder.versions}
            new |= {
                number: served
                for number, served in old.items()
                if not new or (only is not None and number not in only and number not in on_disk)
            }
            vain = all(old.get(number) is served for number, served in new.items())
            self._replace(new, policy)
        if failed and vain:
            whys = "; ".join(f"version {number}: {why}" for number, why in failed.items())
            raise EngineFailed(f"failed to load {self._name!r}: {whys}", reason="MODEL_INVALID")

    def unload(self) -> None:
        """Takes all versions away; who holds one still uses it to its end."""
        with self._work:
            self.settle()
            with self._lock:
                self._fault, self._faults = "", {}
            self._replace({}, Policy())

    def close(self) -> None:
        """Takes all versions away for good, and frees them once the requests under way are answered."""
        with self._work:
            self._closed = True
        self.unload()
        for runner in self.leaving():
            runner.close()

    def leaving(self) -> list[Runner]:
        """What was taken away, but is not closed yet, since somebody still holds it."""
        with self._lock:
            return [runner for _, runner in self._leaving if not runner.closed.is_set()]

    def sweep(self) -> None:
        """Forgets what is over: idle sequences, models that were closed."""
        for served in self._ready.versions.values():
            served.sweep()
        with self._lock:
            self._leaving = [(number, runner) for number, runner in self._leaving if not runner.closed.is_set()]

    def entries(self) -> list[IndexEntry]:
        """What the index says of this model."""
        with self._lock:
            folder, ready, loading, faults = self._folder, self._ready, self._loading, dict(self._faults)
            fault, loaded = self._fault, dict(self._loaded)
            leaving = {number for number, runner in self._leaving if not runner.closed.is_set()}
        on_disk = {each.number: each for each in folder.versions}
        found = []
        for number in sorted({*on_disk, *ready.versions, *leaving}, key=order) or [""]:
            version = on_disk.get(number)
            own = "" if version is None or loaded.get(number) == version.stamp else version.fault
            reason = folder.fault or fault or faults.get(number, "") or own
            if number in ready.versions:
                state = ModelState.READY
            elif number and number == loading:
                state, reason = ModelState.LOADING, "it is being loaded"
            elif number in leaving:
                state, reason = ModelState.UNLOADING, reason or "requests under way are answered"
            else:
                state, reason = ModelState.UNAVAILABLE, reason or "it is not loaded"
            found.append(IndexEntry(self._name, number, state, reason))
        return found

    def _said(self, folder: Folder) -> Policy:
        """Which versions are to be served; EngineFailed where what says so, or the whole folder, is broken."""
        try:
            if folder.fault:
                raise EngineFailed(folder.fault)
            policy = self._describe(folder)
        except Exception as error:
            why = told(error)
            log.warning("model %s cannot be loaded: %s", self._name, why)
            self.settle()
            with self._lock:
                self._fault = "" if folder.fault else why
            raise EngineFailed(f"failed to load {self._name!r}: {why}", reason="MODEL_INVALID") from error
        with self._lock:
            self._fault = ""
        return policy

    def _wanted(self, folder: Folder, policy: Policy, found: Mapping[str, Served]) -> Iterator[Version]:
        """The versions that should be ready, latest first.

        `found` fills meanwhile: one that cannot be loaded leaves its place to an older one.
        """
        for version in reversed(folder.versions):
            why_not = policy.why_not(version.number, found)
            if not why_not:
                yield version
                continue
            with self._lock:
                self._faults[version.number] = why_not

    def _version(
        self, folder: Folder, version: Version, current: Served | None, only: Collection[str] | None
    ) -> Served | None:
        """The version, made anew where its files are others now; None where it is not to be loaded."""
        number, stamp = version.number, version.stamp
        if current is not None and self._loaded.get(number) == stamp:
            with self._lock:
                self._faults.pop(number, None)
            return current
        if only is not None and (number not in only or self._settled.get(number) == stamp):
            return current
        with self._lock:
            self._loading = number
            self._faults.pop(number, None)
        try:
            served = self._build(folder, version)
        except Exception as error:
            why = told(error)
            log.warning("model %s version %s cannot be loaded: %s", self._name, number, why)
            with self._lock:
                self._settled[number], self._faults[number] = stamp, why
            raise EngineFailed(why) from error
        finally:
            with self._lock:
                self._loading = ""
        with self._lock:
            self._loaded[number] = stamp
            self._settled.pop(number, None)
        log.info("model %s version %s is ready", self._name, number)
        return served

    def _replace(self, new: dict[str, Served], policy: Policy) -> None:
        """These are ready from now on; sequences under way go on where they began."""
        old = self._ready
        default = self._default(new, policy.default)
        for number, served in new.items():
            before = {old.versions.get(number), old.versions.get(old.default) if number == default else None}
            served.follow([each for each in before - {None, served} if each is not None])
        self._pinned = policy.default
        with self._lock:
            self._ready = Ready(new, default)
            self._loaded = {number: stamp for number, stamp in self._loaded.items() if number in new}
            taken = [(number, one) for number, one in old.versions.items() if new.get(number) is not one]
            self._leaving += [(number, one.runner) for number, one in taken]
        for number, one in taken:
            one.retire(new.get(number) or new.get(default))

    def _default(self, new: Mapping[str, Served], pinned: str) -> str:
        """The version that answers where none is named: one that is pinned but not ready leaves it as it was."""
        if not pinned:
            return max(new, key=order, default="")
        return next((number for number in (pinned, self._ready.default) if number in new), "")


def told(error: Exception) -> str:
    """Why something cannot be loaded."""
    return error.message if isinstance(error, MatchcutError) else f"it cannot be loaded: {error}"
