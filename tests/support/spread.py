"""How tests are spread over processes (pytest-xdist): the tests of a file go to one of them, in order.

So what a module shares is made once. What stands in a line of `TOGETHER` goes to one as well.
"""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling

# Beginnings of paths. These tests share what is dear, or what may not be used by two at once.
TOGETHER = (
    ("tests/clients/languages/",),  # the clients' builds
    ("tests/server/test_precision.py", "tests/server/test_tensorrt_"),  # the default encoder in other precisions
    ("tests/server/training/clip/",),  # a training
    ("tests/server/training/session/",),  # trainings
)


class Spread(LoadFileScheduling):  # type: ignore[misc] # xdist has no types
    """Units of work in the order of collection, each a file or the files of a line of `TOGETHER`."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return next((line[0] for line in TOGETHER if path.startswith(line)), path)
