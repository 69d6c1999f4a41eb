"""Who may call: TLS, client certificates and bearer tokens."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from matchcut.server.config import NOT_GIVEN, Config
from matchcut.server.errors import InvalidInput, Unauthenticated
from matchcut.server.service.status import fail
from matchcut.server.service.watching import MAKERS

OPEN = "/grpc.health.v1.Health/"  # what watches over the server needs no token
SCHEME = "bearer "
Handler = Callable[[Any], Awaitable[Any]]
log = logging.getLogger("matchcut")


class TokenGate(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Lets only calls through that carry one of the tokens as `authorization: Bearer ...`; health checks need none."""

    def __init__(self, tokens: list[bytes]) -> None:
        self._tokens = tokens

    async def intercept_service(self, continuation: Handler, details: Any) -> Any:
        """See grpc.aio.ServerInterceptor."""
        handler = await continuation(details)
        passes = self._passes(dict(details.invocation_metadata).get("authorization", ""))
        if handler is None or passes or details.method.startswith(OPEN):
            return handler
        return refusal(handler.request_streaming, handler.response_streaming)

    def _passes(self, header: str | bytes) -> bool:
        text = (header if isinstance(header, str) else header.decode(errors="replace")).strip()
        if not text.lower().startswith(SCHEME):
            return False
        sent = text[len(SCHEME) :].strip().encode()
        # Every token is compared, each in constant time, so that the time taken tells nothing.
        return sum(hmac.compare_digest(sent, token) for token in self._tokens) > 0


def refusal(request_streaming: bool, response_streaming: bool) -> Any:
    """A handler of the kind that it replaces, which answers every call with UNAUTHENTICATED before any message."""

    async def refuse(_request: Any, context: Any) -> None:
        fail(context, Unauthenticated("send a valid token as the metadata `authorization: Bearer TOKEN`"))

    return MAKERS[request_streaming, response_streaming](refuse)


def interceptors(config: Config) -> list[TokenGate]:
    """The token gate, where there is a token file.

    Raises:
        InvalidInput: the file cannot be read or holds no token.
    """
    if config.token_file == NOT_GIVEN:
        return []
    tokens = [line.strip() for line in content(config.token_file, "token_file").splitlines() if line.strip()]
    if not tokens:
        raise InvalidInput(f"{config.token_file} holds no token; write one a line", field="token_file")
    return [TokenGate(tokens)]


def credentials(config: Config) -> Any:
    """TLS credentials; None where none are configured.

    Raises:
        InvalidInput: a file is missing, or only part of what belongs together is given.
    """
    if (config.tls_cert == NOT_GIVEN) != (config.tls_key == NOT_GIVEN):
        raise InvalidInput("--tls-cert and --tls-key belong together; give both", field="tls_cert")
    if config.tls_cert == NOT_GIVEN:
        if config.tls_client_ca != NOT_GIVEN:
            raise InvalidInput("--tls-client-ca needs --tls-cert and --tls-key", field="tls_client_ca")
        return None
    pair = (content(config.tls_key, "tls_key"), content(config.tls_cert, "tls_cert"))
    if config.tls_client_ca == NOT_GIVEN:
        return grpc.ssl_server_credentials([pair])
    return grpc.ssl_server_credentials([pair], content(config.tls_client_ca, "tls_client_ca"), True)


def warn_of_clear_text(config: Config) -> None:
    """Logs what an operator should know before others can reach the port."""
    host = config.listen.rpartition(":")[0].strip("[]")
    local = host in ("localhost", "::1") or host.startswith(("127.", "unix"))
    if not local and config.tls_cert == NOT_GIVEN:
        log.warning("serving in clear text on %s; --tls-cert and --tls-key encrypt it", host)
    if not local and config.token_file == NOT_GIVEN and config.tls_client_ca == NOT_GIVEN:
        log.warning("whoever reaches %s may call; --token-file or --tls-client-ca limits who", host)


def content(path: Path, field: str) -> bytes:
    """A file that the operator named."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}", reason="INVALID_OPTION", field=field) from error
