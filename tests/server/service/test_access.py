"""Who may call: tokens, TLS and client certificates, with real handshakes."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from matchcut.server.app import App
from matchcut.server.config import Config
from matchcut.server.errors import InvalidInput
from matchcut.server.service.access import warn_of_clear_text
from matchcut.v1 import catalog_pb2 as pb
from support.wire import Wire


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    file = tmp_path / "tokens"
    file.write_text("first-secret\n\n  second-secret\n")
    return file


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secured(config: Config, authority: trustme.CA, tmp_path: Path) -> Config:
    """Options for a server with a certificate for localhost, which knows its authority's clients."""
    pair = authority.issue_cert("localhost")
    cert, key, ca = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "ca.pem"
    pair.cert_chain_pems[0].write_to_path(cert)
    pair.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(ca)
    return replace(config, listen="localhost:0", tls_cert=cert, tls_key=key, tls_client_ca=ca)


async def listed(channel: grpc.aio.Channel, header: str | None = None) -> int:
    metadata = [("authorization", header)] if header else None
    reply = await Wire(channel).catalog.ListItems(pb.ListItemsRequest(), metadata=metadata)
    assert isinstance(reply, pb.ListItemsResponse)
    return reply.total_size


async def test_only_a_valid_token_passes(config: Config, tokens: Path) -> None:
    async with App(replace(config, token_file=tokens)) as app, grpc.aio.insecure_channel(app.address) as channel:
        for header in ("Bearer first-secret", "bearer second-secret", " Bearer  first-secret "):
            assert await listed(channel, header) == 0
        for wrong in (None, "Bearer ", "Bearer first", "Basic first-secret", "first-secret"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await listed(channel, wrong)
            assert Wire.told(caught.value)[:2] == ("UNAUTHENTICATED", "TOKEN_INVALID")
            assert "secret" not in caught.value.details()


async def test_streams_need_the_token_and_health_does_not(config: Config, tokens: Path) -> None:
    async with App(replace(config, token_file=tokens)) as app, grpc.aio.insecure_channel(app.address) as channel:
        wire = Wire(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wire.ingest("a", [1])
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        call = wire.recommender.RecommendLive(iter([]))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [one async for one in call]
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        health = health_pb2_grpc.HealthStub(channel)
        status = (await health.Check(health_pb2.HealthCheckRequest())).status
        assert status == health_pb2.HealthCheckResponse.SERVING


async def test_tls_with_the_right_authority_only(secured: Config, authority: trustme.CA) -> None:
    config = replace(secured, tls_client_ca=Config().tls_client_ca)
    async with App(config) as app:
        trusted = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        async with grpc.aio.secure_channel(app.address, trusted) as channel:
            assert await listed(channel) == 0
        stranger = grpc.ssl_channel_credentials(trustme.CA().cert_pem.bytes())
        async with grpc.aio.secure_channel(app.address, stranger) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await listed(channel)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        async with grpc.aio.insecure_channel(app.address) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await listed(channel)


async def test_a_client_certificate_is_asked_for(secured: Config, authority: trustme.CA) -> None:
    async with App(secured) as app:
        own = authority.issue_cert("caller")
        with_own = grpc.ssl_channel_credentials(
            authority.cert_pem.bytes(), own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes()
        )
        async with grpc.aio.secure_channel(app.address, with_own) as channel:
            assert await listed(channel) == 0
        without = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        async with grpc.aio.secure_channel(app.address, without) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await listed(channel)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tls_cert": Path("c")}, "belong together"),
        ({"tls_key": Path("k")}, "belong together"),
        ({"tls_client_ca": Path("a")}, "needs --tls-cert"),
        ({"tls_cert": Path("/none"), "tls_key": Path("/none")}, "cannot read /none"),
        ({"token_file": Path("/none")}, "cannot read /none"),
        ({"token_file": Path("/dev/null")}, "holds no token"),
    ],
)
async def test_incomplete_options_are_told(config: Config, options: dict[str, Path], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        await App(replace(config, **options)).__aenter__()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("listen", "warnings"), [("127.0.0.1:1", 0), ("localhost:1", 0), ("0.0.0.0:1", 2), ("[::]:1", 2)]
)
def test_an_open_port_is_warned_of(listen: str, warnings: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "matchcut"):
        warn_of_clear_text(Config(listen=listen))
    assert len(caplog.records) == warnings
