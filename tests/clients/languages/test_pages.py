"""Each language's page: its commands run, its program is the one in the folder, and its library's own tests pass."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from support.processes import ROOT, bare
from support.tours import BUILT, LIMIT, command

FENCES = {"python": "python", "cpp": "cpp", "go": "go", "java": "java", "node": "ts"}


def page(language: str) -> str:
    return (ROOT / "clients" / language / "README.md").read_text(encoding="utf-8")


def blocks(language: str, fence: str) -> list[str]:
    """What stands in fences of a kind on a language's page."""
    return re.findall(rf"^```{fence}\n(.*?)^```$", page(language), flags=re.M | re.S)


def quickstart(language: str) -> str:
    """The program of a language's page, as it lies in its folder."""
    found = sorted((ROOT / "clients" / language / "example").rglob("[Qq]uickstart*.*"))
    found += sorted((ROOT / "clients" / language / "example").glob("quickstart/main.*"))
    (path,) = [path for path in found if path.is_file()]
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("language", FENCES)
def test_the_program_of_the_page_is_the_one_that_runs(language: str) -> None:
    assert quickstart(language) in blocks(language, FENCES[language])


@pytest.mark.parametrize("language", FENCES)
def test_the_commands_of_the_page(language: str, address: str) -> None:
    if language in BUILT:
        command(language)
    script = "set -euo pipefail\n" + "\n".join(blocks(language, "sh"))
    environment = bare(MATCHCUT_SERVER=address)
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=environment, capture_output=True, timeout=LIMIT, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "carphone 0.6" in done.stdout  # the quickstart's
    assert "left: " in done.stdout  # the tour's
    subprocess.run(["matchcut", "rm", "bikes", "carphone", "--missing-ok"], env=environment, check=True)


@pytest.mark.parametrize("language", BUILT)
def test_the_librarys_own_tests(language: str) -> None:
    command(language)
    build = ROOT / "clients" / language / "build.sh"
    out = ROOT / "build" / "clients" / language
    done = subprocess.run([build, "--test", out], capture_output=True, timeout=2 * LIMIT, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("language", BUILT)
def test_what_is_missing_is_told(language: str, tmp_path: Path) -> None:
    """Without compilers in the path it names packages, and needs none of them to do so."""
    for tool in ("bash", "env", "dirname", "cat", "grep", "sed", "sort", "uname"):
        (tmp_path / tool).symlink_to(f"/usr/bin/{tool}")
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    build = ROOT / "clients" / language / "build.sh"
    done = subprocess.run([build, "--missing"], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()
    assert all(re.fullmatch(r"[a-z0-9.+-]+", line) for line in done.stdout.splitlines())
    command(language)
    assert subprocess.run([build, "--missing"], capture_output=True, text=True, check=True).stdout == ""
