"""Finds out which models on disk are complete: their files are the same in two looks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from matchcut.server.serving.folder import Folder, Stamp

__all__ = ["Watch"]

Look = dict[str, dict[str, Stamp]]  # by model and version


class Watch:
    """Compares looks at a repository's folder."""

    def __init__(self) -> None:
        self._before: Look | None = None
        self._told: dict[str, Collection[tuple[str, Stamp]]] = {}

    def changes(
        self, folders: Mapping[str, Folder], ready: Mapping[str, Collection[str]]
    ) -> Iterator[tuple[str, frozenset[str]]]:
        """The models that have changed, with their versions that did not change since the last look.

        Each change is told once. The first look only remembers.

        Args:
            folders: what is on disk now, by model.
            ready: the versions that are served, by model.
        """
        now = {name: stamps(folder) for name, folder in folders.items()}
        before, self._before = self._before, now
        if before is None:
            return
        for name in sorted({*now, *ready}):
            was, is_now = before.get(name, {}), now.get(name, {})
            steady = {(number, stamp) for number, stamp in is_now.items() if was.get(number) == stamp}
            gone = {(number, ()) for number in ready.get(name, ()) if number not in was and number not in is_now}
            told, self._told[name] = self._told.get(name), steady | gone
            if steady | gone and steady | gone != told:
                yield name, frozenset(number for number, _ in steady | gone)


def stamps(folder: Folder) -> dict[str, Stamp]:
    """Of each version; of the folder itself where none of them can be used."""
    if folder.fault:
        return {"": ((folder.fault, 0, 0, 0),)}
    return {version.number: version.stamp for version in folder.versions}
