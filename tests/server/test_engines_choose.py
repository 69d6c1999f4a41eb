"""`auto`: the fastest exact engine wins, is remembered as long as nothing changes, and the log says why."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from matchcut.server import engines, models
from matchcut.server.engines import memory, registry, trial
from matchcut.server.engines.base import Engine
from matchcut.server.errors import EngineFailed
from matchcut.server.records import EncoderIdentity, Floats, InputSize

ENCODER = models.Encoder(
    Path("encoder.onnx"), EncoderIdentity("toy", "1", "ab" * 32, 3), InputSize(16, 16), (0, 0, 0), (1, 1, 1)
)


@dataclass
class Toy:
    """An engine that averages the channels, more or less exactly."""

    encoder: models.Encoder
    variant: str
    error: float = 0.0
    fault: str = ""
    open: bool = True

    def run(self, batch: Floats) -> Floats:
        if self.fault:
            raise EngineFailed(self.fault)
        result: Floats = batch.mean((2, 3)) * (1 + self.error * np.array([1, -1, 0], np.float32))
        return result

    def close(self) -> None:
        self.open = False


@dataclass
class Workshop:
    """Makes toys, keeps them, and says what each costs."""

    costs: dict[str, float]
    errors: dict[str, float] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    unloadable: set[str] = field(default_factory=set)
    made: list[Toy] = field(default_factory=list)

    def make(self, encoder: models.Encoder, variant: str, threads: int) -> Engine:
        if variant in self.unloadable:
            raise EngineFailed(f"{variant} cannot be loaded here")
        self.made.append(Toy(encoder, variant, self.errors.get(variant, 0.0), self.faults.get(variant, "")))
        return self.made[-1]

    def cost(self, engine: Engine, batch: Floats) -> float:
        return self.costs[engine.variant] + len(batch) / 100

    def names(self) -> list[str]:
        return [toy.variant for toy in self.made]


@pytest.fixture
def workshop(monkeypatch: pytest.MonkeyPatch) -> Workshop:
    shop = Workshop({"exact": 9.0, "other": 8.0, "rough": 2.0})
    variants = {
        name: registry.Variant("onnxruntime", lambda encoder, variant, threads, _: shop.make(encoder, variant, threads))
        for name in shop.costs
    }
    monkeypatch.setattr(registry, "VARIANTS", variants)
    monkeypatch.setattr(trial, "cpu_ms", shop.cost)
    return shop


def auto(cache: Path | None = None, threads: int = 1) -> str:
    return engines.load(ENCODER, threads=threads, cache=cache).variant


def test_the_cheapest_wins_and_the_others_are_closed(workshop: Workshop) -> None:
    engine = engines.load(ENCODER)
    assert engine.variant == "rough"
    assert [toy.open for toy in workshop.made] == [False, False, True]


def test_cheap_but_inexact_does_not_win(workshop: Workshop, caplog: pytest.LogCaptureFixture) -> None:
    workshop.errors["rough"] = 0.2
    with caplog.at_level(logging.INFO):
        assert auto() == "other"
    (line,) = caplog.messages
    assert "engine other is the fastest for toy" in line
    assert "8.0 at batch 1, 8.1 at batch 8" in line
    assert "exact 9.0 ms" in line
    assert "rough cosine 0.9" in line


def test_not_a_number_does_not_win(workshop: Workshop) -> None:
    workshop.errors["rough"] = float("nan")
    assert auto() == "other"


def test_what_cannot_be_loaded_or_run_is_left_out(workshop: Workshop) -> None:
    workshop.unloadable.add("exact")
    workshop.faults["rough"] = "illegal instruction"
    assert auto() == "other"


def test_no_engine_at_all(workshop: Workshop) -> None:
    workshop.unloadable |= {"exact", "other"}
    workshop.faults["rough"] = "illegal instruction"
    with pytest.raises(EngineFailed, match=r"rough illegal instruction.*exact exact cannot be loaded") as caught:
        auto()
    assert caught.value.reason == "ENGINE_UNAVAILABLE"
    assert not workshop.made[0].open


def test_the_choice_is_remembered(workshop: Workshop, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = tmp_path / "new"
    assert auto(cache) == "rough"
    assert workshop.names() == ["exact", "other", "rough"]
    with caplog.at_level(logging.INFO):
        assert auto(cache) == "rough"
    assert workshop.names() == ["exact", "other", "rough", "rough"]
    assert caplog.messages == ["engine rough, which was the fastest on this CPU before"]
    (file,) = cache.iterdir()
    kept = json.loads(file.read_text())
    assert [each["cpu_ms"]["1"] for each in kept["trials"]] == [9.01, 8.01, 2.01]


def test_without_a_cache_it_is_measured_each_time(workshop: Workshop) -> None:
    assert auto() == auto() == "rough"
    assert len(workshop.made) == 6


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", "null", '{"variant": "rough"}', '{"facts": {}, "variant": "rough"}', "\x00\xff"]
)
def test_a_damaged_or_foreign_choice_is_measured_anew(workshop: Workshop, tmp_path: Path, damage: str) -> None:
    auto(tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_text()
    file.write_text(damage)
    auto(tmp_path)
    assert len(workshop.made) == 6
    assert file.read_text() == whole


@pytest.mark.parametrize("variant", ["gone", ["rough"], None, 3])
def test_a_remembered_engine_that_does_not_exist(workshop: Workshop, tmp_path: Path, variant: object) -> None:
    auto(tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_text(json.dumps({**json.loads(file.read_text()), "variant": variant}))
    assert auto(tmp_path) == "rough"
    assert len(workshop.made) == 6


def test_a_remembered_engine_that_no_longer_loads(
    workshop: Workshop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    auto(tmp_path)
    workshop.unloadable.add("rough")
    assert auto(tmp_path) == "other"
    assert "rough was the fastest before but cannot be loaded" in caplog.text


def test_what_changes_the_choice_is_measured_anew(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto(tmp_path)
    auto(tmp_path, threads=2)
    monkeypatch.setattr(registry, "versions", lambda: {"onnxruntime": "99"})
    auto(tmp_path)
    monkeypatch.setattr(memory, "CPUINFO", tmp_path / "nowhere")
    auto(tmp_path)
    assert len(workshop.made) == 12
    auto(tmp_path)
    assert len(workshop.made) == 13
    assert len(list(tmp_path.iterdir())) == 4


def test_a_cache_that_cannot_be_written(workshop: Workshop, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    assert auto(tmp_path / "file") == "rough"
    assert "cannot be remembered" in caplog.text


def test_the_cpu_is_known_by_name_and_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def seen(text: str) -> memory.Facts:
        (tmp_path / "cpuinfo").write_text(text)
        return memory.cpu()

    monkeypatch.setattr(memory, "CPUINFO", tmp_path / "cpuinfo")
    first = seen("model name\t: A\nflags\t: sse avx\n\nmodel name\t: B\n")
    assert first["cpu"] == "A"
    assert seen("model name\t: A\nflags\t: avx sse\n") == first
    assert seen("model name\t: A\nflags\t: avx sse amx_bf16\n")["features"] != first["features"]
    assert seen("CPU part\t: 0xd40\nFeatures\t: asimd bf16\n")["cpu"]


def test_the_real_choice_keeps_the_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "ROUNDS", 1)
    encoder = models.load(models.default_encoder(tmp_path))
    engine = engines.load(encoder, threads=1, cache=tmp_path)
    batch = trial.frames(encoder)
    exact = engines.load(encoder, engine="onnxruntime", threads=1)
    assert trial.least_cosine(engine.run(batch), exact.run(batch)) >= trial.GATE
    again = engines.load(encoder, threads=1, cache=tmp_path)
    assert again.variant == engine.variant
    for each in (engine, exact, again):
        each.close()
