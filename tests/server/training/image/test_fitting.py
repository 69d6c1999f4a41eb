"""The loop: the same seed, the same weights; early stopping; resuming; what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from matchcut.server.errors import InvalidInput
from matchcut.server.training.image import fitting
from matchcut.server.training.image.fitting import Fitted, Plan, fit, judge, probabilities, scheduled
from matchcut.server.training.image.samples import VectorSamples
from matchcut.server.training.progress import Bar

SILENT = Bar(None, silent=True)
PLAN = Plan(epochs=6, patience=3, batch=16, rate=0.02, seed=5)


def data(seed: int, count: int = 90, *, shift: float = 2.0) -> VectorSamples:
    """Clouds of three classes, in two views."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    views = random.normal(0, 1, (2, count, 4)) + shift * np.eye(3, 4)[labels]
    return VectorSamples(views.astype(np.float32), labels)


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3)]
        return nn.Sequential(*layers)


def run(plan: Plan = PLAN, **more: object) -> tuple[nn.Module, Fitted]:
    model = network()
    return model, fit(model, data(1), data(2), plan, SILENT, **more)  # type: ignore[arg-type]


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_it_learns() -> None:
    model, fitted = run()
    loss, accuracy = judge(model, data(2))
    assert accuracy > 0.8
    assert fitted.epochs == len(fitted.history["validation loss"])
    assert loss == pytest.approx(min(fitted.history["validation loss"]))
    assert probabilities(model, data(2)).sum(axis=1) == pytest.approx(np.ones(90))


def test_the_seed_decides_everything_and_leaves_torchs_own_chance_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    one, first = run()
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(2)
    again, second = run()
    assert same(one, again)
    assert first == second
    other, third = run(Plan(epochs=6, patience=3, batch=16, rate=0.02, seed=6))
    assert not same(one, other)
    assert first != third


def test_it_stops_early_with_the_best_weights() -> None:
    """What is to be learnt is noise, so the validation loss grows soon."""
    train, validation = data(1, 48, shift=0.0), data(2, 300, shift=0.0)
    model = network()
    fitted = fit(model, train, validation, Plan(epochs=80, patience=3, batch=16, rate=0.05), SILENT)
    losses = fitted.history["validation loss"]
    assert fitted.stopped
    assert fitted.epochs == fitted.best + 3 < 80
    assert losses[fitted.best - 1] == min(losses) < losses[-1]
    assert judge(model, validation)[0] == pytest.approx(min(losses))
    assert not model.training


def test_without_a_better_loss_missing_it_does_not_stop() -> None:
    _, fitted = run(Plan(epochs=3, patience=3, batch=16, rate=0.02))
    assert not fitted.stopped
    assert fitted.epochs == 3


class Interrupted(Exception):
    pass


def breaking(after: int) -> Callable[[int], None]:
    def ended(epoch: int) -> None:
        if epoch == after:
            raise Interrupted

    return ended


@pytest.mark.parametrize("after", [1, 4, 6])
def test_resumed_is_the_same_as_uninterrupted(tmp_path: Path, after: int) -> None:
    whole, expected = run()
    place = tmp_path / "checkpoint.pt"
    with pytest.raises(Interrupted):
        run(checkpoint=place, key="k", ended=breaking(after))
    trained: list[int] = []
    resumed, fitted = run(checkpoint=place, key="k", ended=trained.append)
    assert trained == list(range(after + 1, 7))
    assert fitted == expected
    assert same(whole, resumed)
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint.pt"]


def unexpected(epoch: int) -> None:
    pytest.fail(f"epoch {epoch} was trained again")


def test_resumed_after_it_had_stopped_early(tmp_path: Path) -> None:
    train, validation = data(1, 48, shift=0.0), data(2, 300, shift=0.0)
    plan = Plan(epochs=80, patience=3, batch=16, rate=0.05)
    first = fit(network(), train, validation, plan, SILENT, checkpoint=tmp_path / "c", key="k")
    again = fit(network(), train, validation, plan, SILENT, checkpoint=tmp_path / "c", key="k", ended=unexpected)
    assert first == again
    assert again.stopped


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    run(checkpoint=tmp_path / "c", key="k")
    with pytest.raises(InvalidInput, match="is of a training with other data or options: give those again") as caught:
        run(checkpoint=tmp_path / "c", key="other")
    assert (caught.value.reason, caught.value.field) == ("CHECKPOINT_OF_OTHER_TRAINING", "out")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80\x02cos\nsystem\nU\x04trueq\x85R."])
def test_a_damaged_checkpoint_is_refused_and_runs_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"cannot be read \(\w+\): remove it, and training begins anew"):
        run(checkpoint=tmp_path / "c", key="k")


def test_a_loss_that_is_no_number_ends_it() -> None:
    bad = data(1)
    bad.vectors[0, 3] = np.inf
    with pytest.raises(InvalidInput, match="not a finite number any more in epoch 1; give a lower learning rate"):
        fit(network(), bad, bad, PLAN, SILENT)


def test_only_what_wants_gradients_is_learnt() -> None:
    model = network()
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    fit(model, data(1), data(2), PLAN, SILENT)
    assert torch.equal(model[0].weight, before)


def test_a_last_batch_of_one_sample_is_left_out() -> None:
    fitted = fit(network(), data(1, 33), data(2), Plan(epochs=1, batch=16), SILENT)
    assert fitted.epochs == 1  # batch normalisation would have raised


def test_the_rate_grows_then_falls() -> None:
    rates = [scheduled(step, 100) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) == 1.0
    assert 0 < rates[-1] < 0.01
    assert scheduled(0, 1) == 1.0


def test_progress_tells_the_figures(capsys: pytest.CaptureFixture[str]) -> None:
    fit(network(), data(1), data(2), Plan(epochs=2), Bar(None, silent=False))
    told = capsys.readouterr().err
    assert told.startswith("epoch: 2 in ")
    assert all(name in told for name in fitting.SERIES)
