"""A folder of models that are loaded, replaced and taken away while the server serves."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue

from matchcut.server.engines.graphs import GraphEngine
from matchcut.server.errors import EngineFailed, InvalidInput, MatchcutError, NotFound, Unavailable
from matchcut.server.models import graph
from matchcut.server.serving import configured
from matchcut.server.serving.contract import IndexEntry
from matchcut.server.serving.declared import Reader
from matchcut.server.serving.folder import Folder, Version, look, order, scan
from matchcut.server.serving.policy import Policy
from matchcut.server.serving.runner import Runner
from matchcut.server.serving.served import Limits, Served
from matchcut.server.serving.shelf import Shelf
from matchcut.server.serving.watch import Watch

__all__ = ["ALL", "NONE", "FolderRepository"]

ALL, NONE = "all", "none"
SWEEP = 1.0  # seconds between two searches for idle sequences

log = logging.getLogger("matchcut")


class FolderRepository:
    """A contract.Repository of ROOT/NAME/VERSION/*.onnx. Safe to be used by several threads at once.

    A model that is replaced or unloaded is closed when nobody holds it any more: whoever got it from model() can use
    it to the end.

    Args:
        root: the folder.
        limits: what holds for all models.
        load: which models are loaded at once: "all", "none", or names with commas between. A model of "all" that cannot
            be loaded is a warning.
        poll: seconds between two looks at the folder, at which what is new, changed or gone is loaded or taken away;
            0: only when asked to.
        read: reads a config.pbtxt; None: such files are not looked at.

    Raises:
        InvalidInput: the root is no folder that can be read, or a model that is named is not there.
        EngineFailed: a model that is named cannot be loaded.
    """

    def __init__(
        self,
        root: Path,
        *,
        limits: Limits | None = None,
        load: str = ALL,
        poll: float = 0.0,
        read: Reader | None = None,
    ) -> None:
        self._root = root
        self._read = read
        self._limits = limits or Limits()
        self._shelves: dict[str, Shelf] = {}
        self._lock = threading.Lock()  # of _shelves
        self._watch = Watch()
        self._stop = threading.Event()
        self._over: SimpleQueue[Runner | None] = SimpleQueue()
        try:
            folders = scan(root)
        except OSError as error:
            raise InvalidInput(
                f"--models {root} cannot be read: {error.strerror}; name a folder of models",
                reason="INVALID_OPTION",
                field="models",
            ) from error
        self._threads = [self._thread("matchcut-models-end", self._end_and_sweep)]
        try:
            self._begin(folders, load)
        except BaseException:
            self.close()
            raise
        if poll:
            self._threads.insert(0, self._thread("matchcut-models-watch", lambda: self._poll_every(poll)))

    def model(self, name: str, version: str = "") -> Served:
        """See Repository."""
        return self._known(name).model(version)

    def at_hand(self, name: str, version: str = "") -> Served | None:
        """See Repository."""
        shelf = self._shelves.get(name)
        return None if shelf is None else shelf.at_hand(version)

    def index(self) -> list[IndexEntry]:
        """See Repository. Looks at the folder anew."""
        try:
            folders = scan(self._root)
        except OSError as error:
            log.warning("the folder of models cannot be read: %s", error)
        else:
            self._see(folders)
        with self._lock:
            shelves = sorted(self._shelves.items())
        return [entry for _, shelf in shelves if shelf.known for entry in shelf.entries()]

    def versions(self, name: str) -> list[str]:
        """See Repository."""
        return sorted(self._known(name).ready, key=order)

    def load(self, name: str) -> None:
        """See Repository."""
        try:
            folder = look(self._root, name)
        except OSError as error:
            raise EngineFailed(f"the folder of models cannot be read: {error.strerror}") from error
        if folder is None:
            raise unknown(name)
        self._shelf(folder).load(folder)

    def unload(self, name: str) -> None:
        """See Repository."""
        self._known(name).unload()

    def poll(self) -> None:
        """Looks at the folder, and loads and takes away what has changed and is complete."""
        folders = scan(self._root)
        with self._lock:
            ready = {name: tuple(shelf.ready) for name, shelf in self._shelves.items()}
        self._see(folders)
        for name, only in self._watch.changes(folders, ready):
            folder = folders.get(name)
            try:
                if folder is not None:
                    self._shelf(folder).load(folder, only=only)
                elif set(ready[name]) <= only:
                    self._known(name).unload()
            except MatchcutError as error:
                log.warning("%s", error.message)

    def close(self) -> None:
        """Takes all models away, waits for the requests under way, and frees everything. May be called twice."""
        self._stop.set()
        watching = [thread for thread in self._threads if thread.name == "matchcut-models-watch"]
        for thread in watching:
            thread.join()
        with self._lock:
            shelves = list(self._shelves.values())
        for shelf in shelves:
            shelf.close()
        self._over.put(None)
        for thread in self._threads:
            thread.join()

    def _begin(self, folders: dict[str, Folder], load: str) -> None:
        """Loads what is to be loaded at the start."""
        named = [] if load in (ALL, NONE) else [name.strip() for name in load.split(",") if name.strip()]
        for name in named:
            if name not in folders:
                raise InvalidInput(
                    f"--models-load names {name!r}, but {self._root} has {', '.join(sorted(folders)) or 'no models'}",
                    reason="INVALID_OPTION",
                    field="models_load",
                )
        self._see(folders)
        for name, folder in folders.items():
            shelf = self._shelf(folder)
            if load != ALL and name not in named:
                shelf.settle()
                continue
            try:
                shelf.load(folder)
            except EngineFailed:
                if named:
                    raise

    def _see(self, folders: dict[str, Folder]) -> None:
        """Remembers what is on disk."""
        if self._stop.is_set():
            return
        for folder in folders.values():
            self._shelf(folder)
        with self._lock:
            shelves = list(self._shelves.items())
        for name, shelf in shelves:
            shelf.see(folders.get(name))

    def _shelf(self, folder: Folder) -> Shelf:
        with self._lock:
            if folder.name not in self._shelves:
                if self._stop.is_set():
                    raise Unavailable("the server is stopping; no model is loaded any more")
                self._shelves[folder.name] = Shelf(folder, describe=self._describe, build=self._build)
            return self._shelves[folder.name]

    def _known(self, name: str) -> Shelf:
        with self._lock:
            shelf = self._shelves.get(name)
        if shelf is None or not shelf.known:
            raise unknown(name)
        return shelf

    def _describe(self, folder: Folder) -> Policy:
        return configured.policy(folder, self._root, self._read)

    def _build(self, folder: Folder, version: Version) -> Served:
        """Loads a version and has it run once, and closes it when nobody holds it any more."""
        found = configured.setup(folder, version, self._root, self._read)
        said, limits = found.description, self._limits
        engine = GraphEngine(graph.read(found.onnx), threads=said.threads or limits.threads)
        served = Served(
            engine,
            said,
            name=folder.name,
            version=version.number,
            limits=limits,
            declared=found.declared,
            begins=found.begins,
        )
        weakref.finalize(served, self._over.put, served.runner).atexit = False
        now = look(self._root, folder.name)
        if now is None or version not in now.versions:
            raise EngineFailed("its files changed while they were read: load it again", reason="MODEL_CHANGED")
        return served

    def _thread(self, name: str, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
        return thread

    def _poll_every(self, seconds: float) -> None:
        while not self._stop.wait(seconds):
            try:
                self.poll()
            except Exception as error:
                log.warning("the folder of models cannot be watched at present: %s", error)

    def _end_and_sweep(self) -> None:
        """Closes models that nobody holds any more, and forgets idle sequences."""
        while True:
            try:
                runner = self._over.get(timeout=SWEEP)
            except Empty:
                with self._lock:
                    shelves = list(self._shelves.values())
                for shelf in shelves:
                    shelf.sweep()
                continue
            if runner is None:
                return
            try:
                runner.close()
            except Exception:
                log.exception("a model that is not needed any more could not be closed")


def unknown(name: str) -> NotFound:
    return NotFound(f"Request for unknown model: {name!r} is not found", reason="MODEL_NOT_FOUND", field="model_name")
