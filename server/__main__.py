"""The `matchcut` command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from matchcut.server.commands import COMMANDS, command
from matchcut.server.errors import MatchcutError

EPILOG = """\
exit codes:
  0  done
  1  some of it failed; the summary says what and why
  2  the command line or an option is wrong
  69 the server cannot be reached
  130 interrupted

first steps:
  matchcut serve                    start a server on 127.0.0.1:7411
  matchcut index clips/             put every video below clips/ into its catalogue
  matchcut query clip.mp4           ask what goes with a clip
"""


def parser(names: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """The command line with these of its commands."""
    from importlib import metadata  # which takes as long as all else here

    top = argparse.ArgumentParser(
        prog="matchcut",
        description="Video in, ranked items out.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"matchcut {metadata.version('matchcut')}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for each in map(command, names):
        below = commands.add_parser(
            each.NAME,
            help=each.SUMMARY,
            description=each.DESCRIPTION,
            epilog=each.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        each.add_arguments(below)
        below.set_defaults(run=each.run)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    try:
        # Inside, as the command's own imports take most of its start, in which Ctrl-C may come, too.
        given = sys.argv[1:] if arguments is None else arguments
        named = [name for name in given[:1] if name in COMMANDS]
        parsed = parser(named or COMMANDS).parse_args(given)
        code: int = parsed.run(parsed)
        sys.stdout.flush()  # here a reader that has gone is told, not by the interpreter's last words
    except MatchcutError as error:
        print(f"matchcut: {error.message}", file=sys.stderr)
        return 2 if error.code == "INVALID_ARGUMENT" else 1
    except KeyboardInterrupt:
        print("matchcut: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone, e.g. `| head`; nobody is left to tell, and what is buffered has to go
        # somewhere when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


if __name__ == "__main__":
    sys.exit(main())
