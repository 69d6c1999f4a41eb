"""What the commands that talk to a server share: where it is, whose catalogue, and how failures end a command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path

from matchcut.client import Client, DeadlineExceeded, Error, InvalidInput, Unauthenticated, Unavailable
from matchcut.server import errors
from matchcut.server.commands.output import printable
from matchcut.server.config import environment

UNREACHABLE = 69  # EX_UNAVAILABLE of sysexits.h
DEFAULT_SERVER = "127.0.0.1:7411"
Run = Callable[[argparse.Namespace], int]


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Adds --server, --tenant, --tls-ca, --client-cert, --client-key, --client-token-file, --timeout and --json."""
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
        "--client-cert",
        metavar="FILE",
        default=environment("CLIENT_CERT", ""),
        help="PEM certificate chain to show to a server that asks for one [MATCHCUT_CLIENT_CERT]",
    )
    group.add_argument(
        "--client-key",
        metavar="FILE",
        default=environment("CLIENT_KEY", ""),
        help="PEM private key of --client-cert [MATCHCUT_CLIENT_KEY]",
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
    try:
        value = float(text)
    except ValueError:
        value = 0.0
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
    """A client for the server that the command line names.

    Raises:
        errors.InvalidInput: options that belong together are not all given.
    """
    shown = (arguments.client_cert, arguments.client_key)
    if any(shown) and not all(shown):
        raise errors.InvalidInput("--client-cert and --client-key belong together; give both")
    if any(shown) and not arguments.tls_ca:
        raise errors.InvalidInput("--client-cert needs TLS; give --tls-ca as well")
    file = arguments.client_token_file
    token = Path(file).read_text(encoding="utf-8").split("\n", 1)[0].strip() if file else None
    tls = True if arguments.tls_ca == "system" else arguments.tls_ca or None
    return Client(
        arguments.server,
        tenant=arguments.tenant,
        timeout=arguments.timeout,
        token=token,
        tls=tls,
        certificate=shown if all(shown) else None,
    )


def told(run: Run) -> Run:
    """A command whose client errors end it with one line and the right exit code."""

    @wraps(run)
    def guarded(arguments: argparse.Namespace) -> int:
        try:
            return run(arguments)
        except Unavailable as error:
            say(unreachable(arguments, error))
            return UNREACHABLE
        except DeadlineExceeded as error:
            bound = arguments.timeout
            say(f"no answer within --timeout {bound:g} s; allow more" if bound else error.message)
            return 1
        except Unauthenticated as error:
            say(refused(arguments) if error.reason == "TOKEN_INVALID" else error.message)
            return 1
        except Error as error:
            say(error.message)
            return 2 if isinstance(error, InvalidInput) else 1
        except UnicodeEncodeError as error:
            say(f"{error.object!r} is not UTF-8, as names must be")
            return 2
        except BrokenPipeError:
            raise  # not a file of ours: whoever reads what we print has gone
        except OSError as error:
            say(f"{error.filename}: {error.strerror}" if error.filename else str(error))
            return 2

    return guarded


def say(text: str) -> None:
    """One line on standard error."""
    print(f"matchcut: {printable(text)}", file=sys.stderr)


def refused(arguments: argparse.Namespace) -> str:
    """What to say where the server wants another token."""
    if arguments.client_token_file:
        return f"{arguments.server} does not accept the token in {arguments.client_token_file}; give another file"
    return f"{arguments.server} asks for a token; name a file that holds one with --client-token-file"


def unreachable(arguments: argparse.Namespace, error: Unavailable | None = None) -> str:
    """What to say where no server answers, or one says why it cannot be used, as when its files or its GPU are lost."""
    if error is not None and error.reason:
        return error.message
    if arguments.tls_ca:
        return (
            f"no server answers at {arguments.server} with TLS; it must speak TLS, its certificate must name that host "
            "and come from an authority in --tls-ca, and it may ask for --client-cert"
        )
    return (
        f"no server answers at {arguments.server}; start one with `matchcut serve`, or name another with --server; "
        "if it speaks TLS, give --tls-ca"
    )
