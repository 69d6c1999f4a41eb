"""Which versions of a model are served."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

__all__ = ["Policy"]


@dataclass(frozen=True, slots=True)
class Policy:
    """Which versions are served, and which of them answers where none is named.

    default: its number; "": the latest. keep: how many of the latest are served; 0: all. only: the numbers of those
    that may be; None: any. source: the file that says so.
    """

    default: str = ""
    keep: int = 0
    only: frozenset[str] | None = None
    source: str = "model.toml"

    def why_not(self, number: str, ready: Collection[str]) -> str:
        """Why a version is not served beside later ones that are ready; "" where it is."""
        if self.only is not None and number not in self.only:
            listed = ", ".join(sorted(self.only, key=lambda each: (len(each), each))) or "none"
            return f"only versions {listed} are served, as {self.source} says"
        if number != self.default and self.keep and len(set(ready) - {self.default}) >= self.keep:
            return f"only the latest {self.keep} are kept, as {self.source} says"
        return ""
