"""A process that dies in the midst of putting leaves whole items only, and all that it had answered for."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np

from matchcut.server.catalog import open_catalog
from matchcut.server.records import EncoderIdentity, TagFilter

# Puts 16 items in again and again, each time with other content, and says what is done. All vectors of version v are v.
CHILD = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
from matchcut.server.catalog import open_catalog
from matchcut.server.records import EncoderIdentity, Item, Segment, TimeRange

catalog = open_catalog(Path(sys.argv[1]))
encoder = EncoderIdentity("crash", "1", "crash", 300)

def work(thread):
    version = 0
    while True:
        version += 1
        for at in range(4):
            item_id, count = f"{thread}-{at}", 1 + version % 5
            vector = np.full(300, version, np.float32)
            segments = [Segment(TimeRange(version, version + 1), vector)] * count
            catalog.put("", Item(item_id, str(version)), segments, encoder, str(version).encode())
            sys.stdout.write(f"{item_id} {version}\\n")
            sys.stdout.flush()

with ThreadPoolExecutor(4) as pool:
    for future in [pool.submit(work, thread) for thread in range(4)]:
        future.result()
"""


def test_killed_in_the_midst(tmp_path: Path) -> None:
    encoder = EncoderIdentity("crash", "1", "crash", 300)
    for lines in (37, 90, 151):
        answered = put_until_killed(tmp_path, lines)
        with closing(open_catalog(tmp_path)) as catalog:
            items, _ = catalog.page("", after="", size=100, tags=TagFilter())
            assert answered.keys() <= {item.item_id for item in items}
            assert catalog.view("", encoder).count == len(items)
            for item in items:
                stored, known = catalog.get("", item.item_id), catalog.known("", item.item_id)
                assert stored is not None
                assert known is not None
                version = int(item.title)
                if item.item_id in answered:  # the next one may be durable too, though nobody was told
                    assert version - answered[item.item_id] in (0, 1)
                assert known.content == str(version).encode()
                assert len(stored.segments) == 1 + version % 5
                for segment in stored.segments:
                    assert segment.range == (version, version + 1)
                    np.testing.assert_array_equal(segment.vector, np.full(300, version, np.float32))


def put_until_killed(folder: Path, lines: int) -> dict[str, int]:
    """The last version of each item that was answered for."""
    command = [sys.executable, "-c", CHILD, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = [child.stdout.readline() for _ in range(lines)]
        assert all(said), "the child died by itself"
        child.kill()
        said += child.stdout.readlines()  # what it had said before the kill took effect
    assert child.returncode == -9
    pairs = (line.split() for line in said if line.endswith("\n"))
    return {item_id: int(version) for item_id, version in pairs}
