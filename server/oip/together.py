"""Models that are always there, beside repositories whose models come and go."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from matchcut.server.errors import InvalidInput, NotFound
from matchcut.server.serving import IndexEntry, Model, ModelState, Repository

__all__ = ["Together"]


class Together:
    """A Repository of fixed models and of others'; whose name comes first has it.

    Args:
        fixed: gives them as they are at the time: loaded, one version of each; they can be neither loaded nor unloaded.
        others: in order.
    """

    def __init__(self, fixed: Callable[[], Iterable[Model]], *others: Repository) -> None:
        self._fixed = fixed
        self._others = others

    def model(self, name: str, version: str = "") -> Model:
        """See Repository."""
        fixed = self._find(name)
        if fixed is None:
            return self._beside(name).model(name, version)
        if version not in ("", fixed.version):
            raise NotFound(
                f"model {name!r} is there in version {fixed.version} only", reason="MODEL_NOT_FOUND", field="version"
            )
        return fixed

    def at_hand(self, name: str, version: str = "") -> Model | None:
        """See Repository."""
        fixed = self._find(name)
        if fixed is not None:
            return fixed if version in ("", fixed.version) else None
        return self._beside(name).at_hand(name, version) if self._others else None

    def index(self) -> list[IndexEntry]:
        """See Repository."""
        own = [IndexEntry(model.name, model.version, ModelState.READY) for model in self._fixed()]
        found, taken = sorted(own, key=lambda entry: entry.name), {entry.name for entry in own}
        for other in self._others:
            entries = [entry for entry in other.index() if entry.name not in taken]
            taken |= {entry.name for entry in entries}
            found += entries
        return found

    def versions(self, name: str) -> list[str]:
        """See Repository."""
        fixed = self._find(name)
        return self._beside(name).versions(name) if fixed is None else [fixed.version]

    def load(self, name: str) -> None:
        """See Repository. InvalidInput for a fixed one."""
        self._refuse_fixed(name)
        self._beside(name).load(name)

    def unload(self, name: str) -> None:
        """See Repository. InvalidInput for a fixed one."""
        self._refuse_fixed(name)
        self._beside(name).unload(name)

    def _find(self, name: str) -> Model | None:
        return next((model for model in self._fixed() if model.name == name), None)

    def _refuse_fixed(self, name: str) -> None:
        if self._find(name) is not None:
            raise InvalidInput(
                f"{name!r} is the server's own encoder and stays loaded; name a model of the repository",
                field="model_name",
            )

    def _beside(self, name: str) -> Repository:
        for other in self._others[:-1]:
            if any(entry.name == name for entry in other.index()):
                return other
        if not self._others:
            raise NotFound(f"there is no model {name!r}", reason="MODEL_NOT_FOUND", field="model_name")
        return self._others[-1]
