"""The commands of `matchcut`, one module each: NAME, SUMMARY, DESCRIPTION, EXAMPLES, add_arguments(), run()."""

from __future__ import annotations

from matchcut.server.commands import (
    bench,
    doctor,
    encoder,
    engine,
    evaluate,
    events,
    forget,
    index,
    ls,
    query,
    recommend,
    reindex,
    rm,
    serve,
    top,
    train,
)

COMMANDS = (
    serve,
    index,
    query,
    ls,
    rm,
    events,
    recommend,
    forget,
    reindex,
    encoder,
    engine,
    train,
    evaluate,
    bench,
    top,
    doctor,
)
