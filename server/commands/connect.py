"""What the commands that talk to a server share: where it is, whose catalogue, and how failures end a command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path

from matchcut.client import Client, DeadlineExceeded, Error, InvalidInput, Unavailable
from matchcut.server.config import environment

UNREACHABLE = 69  # EX_UNAVAILABLE of sysexits.h
DEFAULT_SERVER = "127.0.0.1:7411"
Run = Callable[[argparse.Namespace], int]


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Adds --server, --tenant, --tls-ca, --client-token-file, --timeout and --json."""
    group = parser.add_argument_group("server")
    group.add_argument(
        "--server",
        metavar="HOST:PORT",
        default=environment("SERVER", DEFAULT_SERVER),
        help=f"the server to ask [default: {DEFAULT_SERVER}] [MATCHCUT_SERVER]",
    )
    group.add_argument(
        "--tenant",
        default=environment("TENANT", ""),
        help="whose catalogue [default: the default tenant] [MATCHCUT_TENANT]",
    )
    group.add_argument(
        "--tls-ca",
        metavar="FILE",
        default=environment("TLS_CA", ""),
        help="speak TLS and trust the authorities in this PEM file; 'system': the well-known ones [MATCHCUT_TLS_CA]",
    )
    group.add_argument(
        "--client-token-file",
        metavar="FILE",
        default=environment("CLIENT_TOKEN_FILE", ""),
        help="file whose first line is the bearer token to send [MATCHCUT_CLIENT_TOKEN_FILE]",
    )
    group.add_argument(
        "--timeout", type=positive, metavar="SECONDS", help="give a call up after so long [default: never]"
    )
    group.add_argument("--json", action="store_true", help="print one JSON document instead of a table")


def positive(text: str) -> float:
    """A number above zero, for argparse."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above zero")
    return value


def add_tag_filter(parser: argparse.ArgumentParser) -> None:
    """Adds --tag, --any-tag and --not-tag."""
    group = parser.add_argument_group("filter")
    group.add_argument("--tag", action="append", default=[], help="only items that have this tag (repeat: all of them)")
    group.add_argument("--any-tag", action="append", default=[], help="only items that have one of these (repeat)")
    group.add_argument("--not-tag", action="append", default=[], help="no items that have this tag (repeat)")


def client(arguments: argparse.Namespace) -> Client:
    """A client for the server that the command line names."""
    file = arguments.client_token_file
    token = Path(file).read_text(encoding="utf-8").split("\n", 1)[0].strip() if file else None
    tls = True if arguments.tls_ca == "system" else arguments.tls_ca or None
    return Client(arguments.server, tenant=arguments.tenant, timeout=arguments.timeout, token=token, tls=tls)


def told(run: Run) -> Run:
    """A command whose client errors end it with one line and the right exit code."""

    @wraps(run)
    def guarded(arguments: argparse.Namespace) -> int:
        try:
            return run(arguments)
        except Unavailable:
            print(f"matchcut: {unreachable(arguments.server)}", file=sys.stderr)
            return UNREACHABLE
        except DeadlineExceeded as error:
            late = (
                f"no answer within --timeout {arguments.timeout:g} s; allow more"
                if arguments.timeout
                else error.message
            )
            print(f"matchcut: {late}", file=sys.stderr)
            return 1
        except Error as error:
            print(f"matchcut: {error.message}", file=sys.stderr)
            return 2 if isinstance(error, InvalidInput) else 1
        except OSError as error:
            print(f"matchcut: {error.filename or ''}: {error.strerror}", file=sys.stderr)
            return 2

    return guarded


def unreachable(server: str) -> str:
    """What to say where no server answers."""
    return f"no server answers at {server}; start one with `matchcut serve`, or name another with --server"
