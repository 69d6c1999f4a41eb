"""The log of events: what users did and what they were shown, durable, under pseudonyms, and forgotten on request.

contract.py says what it promises, local.py keeps the promise on one machine:

    append -> writer (one at a time, one commit for many) -> changing (a transaction) -> store (SQLite, WAL)
    expose / introduced -> later -> the same thread, a moment afterwards
    events / counts <- connections for reading, one for each thread that asks
    popularity <- popular (memory, read in the background, then kept up with each commit)
    forget -> changing, then scrub, which wipes what SQLite leaves of deleted rows

retention deletes what is too old or too much, between two commits. reading is for other processes.
"""

from matchcut.server.events.contract import FILE, Appended, EventLog, LogSizes
from matchcut.server.events.local import open_log
from matchcut.server.events.reading import read_answers, read_exposures, read_log, read_receipts, read_sessions
from matchcut.server.events.strengths import strength

__all__ = [
    "FILE",
    "Appended",
    "EventLog",
    "LogSizes",
    "open_log",
    "read_answers",
    "read_exposures",
    "read_log",
    "read_receipts",
    "read_sessions",
    "strength",
]
