"""`matchcut bench load` against a server that wants a token: one line that says what to give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from matchcut.server.__main__ import main
from matchcut.server.config import Config


@pytest.fixture
def config(config: Config, tmp_path: Path) -> Config:
    """The options of such a server."""
    tokens = tmp_path / "tokens"
    tokens.write_text("secret\n")
    return replace(config, token_file=tokens)


def test_a_server_that_wants_a_token(address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load = ["bench", "load", "--server", address]
    for arguments in (["--mix", "query"], ["--mix", "live"], ["--model", "layout", "--mix", "infer-stream"]):
        assert main([*load, *arguments]) == 1
        out, err = capsys.readouterr()
        assert not out
        assert err == f"matchcut: {address} asks for a token; name a file that holds one with --client-token-file\n"
    token = tmp_path / "token"
    token.write_text("wrong\n")
    assert main([*load, "--client-token-file", str(token)]) == 1
    assert f"{address} does not accept the token in {token}; give another file" in capsys.readouterr().err
    token.write_text("secret\n")
    assert main([*load, "--client-token-file", str(token), "--tenant", "films"]) == 2
    assert "the catalogue of tenant 'films' is empty" in capsys.readouterr().err
