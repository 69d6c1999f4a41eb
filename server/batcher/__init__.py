"""Rows of different callers in one run of a model: fair, bounded, and never for somebody who has gone."""

from __future__ import annotations

from matchcut.server.batcher.batcher import Batcher
from matchcut.server.batcher.contract import Answer, Quiet, Run, Watcher
from matchcut.server.batcher.timing import Measured

__all__ = ["Answer", "Batcher", "Measured", "Quiet", "Run", "Watcher"]
