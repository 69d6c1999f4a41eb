"""What both clients are made of: where the server is, who is calling, and the calls' defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc

from matchcut.client.retry import Retry
from matchcut.v1 import catalog_pb2_grpc, events_pb2_grpc, recommender_pb2_grpc

__all__ = ["Session", "Stubs", "seconds"]

_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),  # a page of items with attributes, an item with vectors
    ("grpc.max_send_message_length", 64 * 1024 * 1024),  # a frame of 4K fits easily
    # A connection of its own: gRPC would let all channels of a process to one address share one, and to the server,
    # which is fair between connections and limits the calls on each, they would be a single client.
    ("grpc.use_local_subchannel_pool", 1),
]


@dataclass(frozen=True, slots=True)
class Stubs:
    """The services of one channel."""

    catalog: Any
    recommender: Any
    events: Any
    health: Any


_SERVICES: tuple[Callable[[Any], Any], ...] = (
    catalog_pb2_grpc.CatalogStub,
    recommender_pb2_grpc.RecommenderStub,
    events_pb2_grpc.EventsStub,
    health_pb2_grpc.HealthStub,
)


class Session:
    """Base of Client and AsyncClient: settings, but no way yet to call.

    Args:
        target: host:port, or any name that gRPC resolves.
        tenant: whose catalogue; "" is the default tenant.
        token: bearer token, sent with each call; in clear text unless `tls` is on.
        tls: None: plaintext; True: TLS with the well-known authorities; a path: TLS with the authorities in that PEM.
        certificate: paths of this client's own PEM certificate chain and key, where the server asks for one.
        timeout: seconds that a call may take, its retries included; None: no bound. Live calls have none of this.
        retry: when to send a failed call again; None: never.

    Raises:
        ValueError: a certificate without `tls`; a token that is no printable ASCII; a timeout that is not above 0.
    """

    def __init__(
        self,
        target: str = "localhost:7411",
        *,
        tenant: str = "",
        token: str | None = None,
        tls: bool | str | PathLike[str] | None = None,
        certificate: tuple[str | PathLike[str], str | PathLike[str]] | None = None,
        timeout: float | None = None,
        retry: Retry | None = Retry(),  # noqa: B008  # frozen
    ) -> None:
        self.target = target
        self.tenant = tenant
        self.timeout = seconds(timeout)
        self.retry = retry or Retry(attempts=1)
        if token and not (token.isascii() and token.isprintable()):
            raise ValueError("the token has characters that no header may have, such as the end of a line")
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._credentials = _credentials(tls, certificate)
        self._connect()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.target!r}, tenant={self.tenant!r})"

    def _connect(self) -> None:
        """Opens the channel, unless the first call does."""

    def timeout_of(self, options: Mapping[str, Any]) -> float | None:
        """A call's own timeout where it has one, else the client's. ValueError where it is not above 0."""
        return seconds(options.get("timeout", self.timeout))

    def _open(self, library: ModuleType) -> Any:
        """A new channel of `library`: grpc or grpc.aio."""
        if self._credentials is None:
            return library.insecure_channel(self.target, options=_CHANNEL_OPTIONS)
        return library.secure_channel(self.target, self._credentials, options=_CHANNEL_OPTIONS)

    @staticmethod
    def _stubs_of(channel: Any) -> Stubs:
        return Stubs(*(service(channel) for service in _SERVICES))

    def _start(self, stubs: Stubs | None, method: str, timeout: float | None, *message: Any) -> Any:
        """Starts a call of `method`, e.g. "catalog.GetItem"; RuntimeError once the client is closed."""
        if stubs is None:
            raise RuntimeError("this client is closed: make a new one")
        return attrgetter(method)(stubs)(*message, timeout=timeout, metadata=self._metadata)


def seconds(timeout: float | None) -> float | None:
    """A timeout as gRPC takes it: None where there is no bound, or one beyond a century. ValueError if not above 0."""
    if timeout is None or timeout > 100 * 365 * 86400:
        return None
    if not timeout > 0:
        raise ValueError(f"a timeout is a number of seconds above 0, not {timeout}; None is no bound")
    return timeout


def _credentials(
    tls: bool | str | PathLike[str] | None, certificate: tuple[str | PathLike[str], str | PathLike[str]] | None
) -> Any:
    if not tls:
        if certificate:
            raise ValueError("a client certificate needs TLS: give tls=True or the path of the authorities")
        return None
    authorities = None if tls is True else Path(tls).read_bytes()
    chain, key = (Path(part).read_bytes() for part in certificate) if certificate else (None, None)
    return grpc.ssl_channel_credentials(authorities, key, chain)
