"""The port: where the server listens, how, and within which limits of the transport."""

from __future__ import annotations

import logging
import socket
from typing import NamedTuple

import grpc.aio

from matchcut.server.config import Config
from matchcut.server.errors import InvalidInput
from matchcut.server.service.access import credentials


class Address(NamedTuple):
    """Where to listen; port 0 takes a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def parse(text: str, option: str = "listen") -> Address:
    """HOST:PORT, or [HOST]:PORT for IPv6.

    Args:
        option: which one the text is the value of, for the message.

    Raises:
        InvalidInput: it is none.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise InvalidInput(f"--{option} {text!r} is not HOST:PORT", reason="INVALID_OPTION", field=option)
    return Address(host, int(port))


def bind(server: grpc.aio.Server, config: Config) -> Address:
    """Takes the address that the options name, with TLS where they say so; returns it with the real port.

    Raises:
        InvalidInput: the port is taken, the address not this machine's, or a file of TLS is missing.
    """
    address, secure = parse(config.listen), credentials(config)
    try:
        probe(address)
        if secure is None:
            port = server.add_insecure_port(str(address))
        else:
            port = server.add_secure_port(str(address), secure)
    except (OSError, RuntimeError) as error:
        raise InvalidInput(
            f"cannot listen on {address}: the port is taken or the address is not this machine's; "
            "choose another with --listen",
            reason="ADDRESS_UNAVAILABLE",
            field="listen",
        ) from error
    return Address(address.host, port)


def probe(address: Address) -> None:
    """Raises OSError where the address cannot be taken; gRPC itself would also print lines of its own."""
    found = socket.getaddrinfo(address.host.strip("[]"), address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, kind, protocol, _, target in found:
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(target)


def channel_options(config: Config) -> list[tuple[str, int]]:
    """The transport's limits."""
    return [
        ("grpc.max_receive_message_length", config.max_message),
        ("grpc.max_send_message_length", config.max_message),
        ("grpc.max_metadata_size", config.max_metadata),
        ("grpc.max_allowed_incoming_connections", config.max_connections),
        ("grpc.max_concurrent_streams", config.max_streams),
        ("grpc.http2.min_ping_interval_without_data_ms", round(config.min_ping_interval * 1000)),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.so_reuseport", 0),
    ]


def quieten() -> None:
    """Keeps gRPC from logging a traceback for every caller who leaves while a reply is written."""
    logging.getLogger("grpc._cython.cygrpc").addFilter(
        lambda record: "ExecuteBatchError" not in record.getMessage() and not _is_batch_error(record)
    )


def _is_batch_error(record: logging.LogRecord) -> bool:
    return bool(record.exc_info and record.exc_info[0] and record.exc_info[0].__name__ == "ExecuteBatchError")
