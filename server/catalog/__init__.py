"""The catalogue: what can be recommended, by tenant, durable and at hand.

contract.py says what it promises, local.py keeps the promise on one machine:

    put / update / remove -> changes -> writer (one thread, one commit for many) -> store (SQLite) -> memory (shelves)
    view / get / page / known <------------------------------------------------------------------ memory
                                                 coder (one thread, codes for the scan) <-> memory

The store is the record, the memory what every read is answered from; a change is in memory only once it is durable.
Codes only make rankings faster: they are in memory alone, made anew at each start, and may be missing.
"""

from matchcut.server.catalog.contract import Catalog, Known, Sizes, Stored, View
from matchcut.server.catalog.local import open_catalog

__all__ = ["Catalog", "Known", "Sizes", "Stored", "View", "open_catalog"]
