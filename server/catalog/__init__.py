"""The catalogue: what can be recommended, by tenant, durable and at hand.

contract.py says what it promises, local.py keeps the promise on one machine:

    put / update / remove -> writer (one thread, one commit for many) -> keeper -> store (SQLite) -> memory (shelves)
    view / get / page / known <------------------------------------------------------------------ memory
                                                 coder (one thread, codes for the scan) <-> memory
    follow: whoever listens is told of what is there, and by the writer's thread of each change once it is in memory

The store is the record, the memory what every read is answered from; a change is in memory only once it is durable.
What another encoder is to take over with lies aside in both. A switch makes a whole new memory of it beside the present
one, then changes the record in one transaction, then puts the new memory in the place of the old, which requests under
way go on reading.
Codes only make rankings faster: they are in memory alone, made anew at each start, and may be missing.
Where memory is to be saved, the memory has its vectors in a file (filed.py), which is no record either: it is written
at each start and goes with the process.
"""

from matchcut.server.catalog.contract import (
    FILE,
    Catalog,
    Edition,
    Known,
    Lacking,
    Listener,
    Readiness,
    Sizes,
    Stored,
    Switched,
    View,
)
from matchcut.server.catalog.local import open_catalog

__all__ = [
    "FILE",
    "Catalog",
    "Edition",
    "Known",
    "Lacking",
    "Listener",
    "Readiness",
    "Sizes",
    "Stored",
    "Switched",
    "View",
    "open_catalog",
]
