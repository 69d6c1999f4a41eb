"""The commands of `matchcut`, one module each: NAME, SUMMARY, DESCRIPTION, EXAMPLES, add_arguments(), run()."""

from __future__ import annotations

from matchcut.server.commands import bench, doctor, encoder, engine, index, ls, query, reindex, rm, serve, top

COMMANDS = (serve, index, query, ls, rm, reindex, encoder, engine, bench, top, doctor)
