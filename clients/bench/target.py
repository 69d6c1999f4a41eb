"""The server that is measured, and how to reach it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

__all__ = ["Target"]

OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # gRPC would let all channels of a process share one connection, and one connection's flow control.
    ("grpc.use_local_subchannel_pool", 1),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where it is and what it wants to see. It holds what was in the files, so that any process can use it.

    tls: speak TLS. authorities, certificate, key: PEM; without authorities the well-known ones are trusted.
    """

    address: str
    tenant: str = ""
    token: str = ""
    tls: bool = False
    authorities: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with each call."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    @property
    def local(self) -> bool:
        """It is on this machine, so that the generator and it take cores from each other."""
        return self.address.startswith(("127.", "localhost:", "[::1]", "unix:", "ipv4:127.", "dns:///localhost"))

    def channel(self) -> grpc.aio.Channel:
        """A connection of its own, for asyncio."""
        return self._open(grpc.aio)

    def blocking_channel(self) -> grpc.Channel:
        """The same for what is done before and after measuring."""
        return self._open(grpc)

    def _open(self, library: Any) -> Any:
        if not self.tls:
            return library.insecure_channel(self.address, options=OPTIONS)
        credentials = grpc.ssl_channel_credentials(self.authorities, self.key, self.certificate)
        return library.secure_channel(self.address, credentials, options=OPTIONS)
