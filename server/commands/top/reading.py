"""Reads the metrics of a server."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from matchcut.server.errors import InvalidInput, Unavailable

__all__ = ["Labels", "Reading", "Source"]

LARGEST = 32 << 20  # bytes; a server with a hundred models tells less than one
PREFIX = "matchcut_"
Labels = Mapping[str, str]


@dataclass(frozen=True)
class Reading:
    """What a server told at one time.

    time: when, in seconds since 1970. series: by name without "matchcut_", labels and value of each sample.
    """

    time: float
    series: Mapping[str, tuple[tuple[Labels, float], ...]]

    def of(self, name: str) -> Iterator[tuple[Labels, float]]:
        """The samples of that name."""
        return iter(self.series.get(name, ()))

    def value(self, name: str, default: float = 0.0) -> float:
        """The first sample of that name."""
        return next((value for _, value in self.of(name)), default)


class Source:
    """Where a server tells its metrics.

    Args:
        address: HOST:PORT, or the whole address as the server logs it.
        timeout: seconds to wait for an answer.

    Raises:
        InvalidInput: the address is none.
    """

    def __init__(self, address: str, *, timeout: float = 10.0) -> None:
        rest = address.removeprefix("http://").removesuffix("/metrics")
        try:
            parts = urlsplit(f"//{rest}")
            port = parts.port
        except ValueError:
            port = None
        if not port or not parts.hostname or rest != parts.netloc or parts.username is not None:
            raise InvalidInput(f"--metrics {address!r} is not HOST:PORT", reason="INVALID_OPTION", field="metrics")
        self.address = rest
        self._host, self._port = parts.hostname, port
        self._timeout = timeout

    def read(self) -> Reading:
        """What is told now.

        Raises:
            Unavailable: nobody answers, or something else does.
        """
        from prometheus_client.parser import text_string_to_metric_families  # a tenth of a second, not for --help

        series: dict[str, list[tuple[Labels, float]]] = {}
        try:
            for family in text_string_to_metric_families(self._text()):
                for sample in family.samples:
                    if sample.name.startswith(PREFIX):
                        series.setdefault(sample.name.removeprefix(PREFIX), []).append((sample.labels, sample.value))
        except OSError as error:
            raise Unavailable(
                f"no metrics are served at {self.address} ({error.strerror or error}); start the server with "
                f"`matchcut serve --metrics {self.address}`, or name where it serves them with --metrics"
            ) from error
        except (http.client.HTTPException, ValueError, KeyError, IndexError) as error:
            raise self._other() from error
        if not series:
            raise self._other()
        return Reading(time.time(), {name: tuple(samples) for name, samples in series.items()})

    def _text(self) -> str:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        try:
            connection.request("GET", "/metrics", headers={"Accept": "text/plain"})
            reply = connection.getresponse()
            body = reply.read(LARGEST + 1)
        finally:
            connection.close()
        if reply.status != http.client.OK or len(body) > LARGEST:
            raise ValueError(f"HTTP status {reply.status}, {len(body)} bytes")
        return body.decode("utf-8")

    def _other(self) -> Unavailable:
        return Unavailable(
            f"what answers at {self.address} is not the metrics of a matchcut server; name the address of its "
            "--metrics, which is not the one that it serves calls on"
        )
