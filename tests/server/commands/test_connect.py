"""Commands whose server wants to know who calls, and what they say where it does not answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from matchcut.server.__main__ import main
from matchcut.server.config import Config


@pytest.fixture
def config(config: Config, tmp_path: Path) -> Config:
    """A server that speaks TLS for localhost, asks for a certificate and for a token."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name in ("localhost", "caller"):
        pair = authority.issue_cert(name)
        pair.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
        pair.private_key_pem.write_to_path(tmp_path / f"{name}.key")
    (tmp_path / "tokens").write_text("secret\n")
    (tmp_path / "other").write_text("guess\n")
    return replace(
        config,
        listen="localhost:0",
        tls_cert=tmp_path / "localhost.pem",
        tls_key=tmp_path / "localhost.key",
        tls_client_ca=tmp_path / "ca.pem",
        token_file=tmp_path / "tokens",
    )


def test_a_caller_shows_a_certificate_and_a_token(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ls"]) == 69
    assert "if it speaks TLS, give --tls-ca" in capsys.readouterr().err
    monkeypatch.setenv("MATCHCUT_TLS_CA", str(tmp_path / "ca.pem"))
    assert main(["ls"]) == 69
    assert f"no server answers at {address} with TLS" in capsys.readouterr().err
    monkeypatch.setenv("MATCHCUT_CLIENT_CERT", str(tmp_path / "caller.pem"))
    monkeypatch.setenv("MATCHCUT_CLIENT_KEY", str(tmp_path / "caller.key"))
    assert main(["ls"]) == 1
    assert f"{address} asks for a token; name a file that holds one" in capsys.readouterr().err
    assert main(["ls", "--client-token-file", str(tmp_path / "other")]) == 1
    assert "does not accept the token" in capsys.readouterr().err
    assert main(["ls", "--client-token-file", str(tmp_path / "tokens")]) == 0
    assert capsys.readouterr().out.startswith("0 items")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--client-cert", "c"], "--client-cert and --client-key belong together"),
        (["--client-key", "k", "--tls-ca", "a"], "--client-cert and --client-key belong together"),
        (["--client-cert", "c", "--client-key", "k"], "--client-cert needs TLS"),
        (["--client-cert", "/c", "--client-key", "/k", "--tls-ca", "/none"], "/none: No such file or directory"),
    ],
)
def test_options_that_do_not_fit_are_told_with_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ls", *arguments]) == 2
    assert said in capsys.readouterr().err
