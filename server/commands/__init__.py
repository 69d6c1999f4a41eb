"""The commands of `matchcut`, one module each: NAME, SUMMARY, DESCRIPTION, EXAMPLES, add_arguments(), run()."""

from __future__ import annotations

from matchcut.server.commands import encoder, serve

COMMANDS = (serve, encoder)
