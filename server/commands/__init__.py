"""The commands of `matchcut`, one module each: NAME, SUMMARY, DESCRIPTION, EXAMPLES, add_arguments(), run()."""

from __future__ import annotations

from matchcut.server.commands import bench, doctor, encoder, index, ls, query, rm, serve

COMMANDS = (serve, index, query, ls, rm, encoder, bench, doctor)
