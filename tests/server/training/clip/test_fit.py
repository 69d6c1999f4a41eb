"""Training: the same by its seed, the same when it was interrupted, and over when there is nothing left to gain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from matchcut.server.errors import InvalidInput
from matchcut.server.training.clip.clips import Clip
from matchcut.server.training.clip.fit import Fitted, Options, fit, predictions, tensors, varied
from matchcut.server.training.clip.model import ClipNet, FrameNet, Pooled, Recurrent, seeded
from matchcut.server.training.progress import Bar

RNG = np.random.default_rng(0)
# Of different lengths.
CLIPS = [Clip(str(at), at % 2, RNG.integers(0, 255, (3 + at % 3, 32, 32, 3)).astype(np.uint8)) for at in range(12)]


def net(kind: Any = Recurrent, seed: int = 1) -> ClipNet:
    with seeded(seed):
        return ClipNet(FrameNet(32, 8), kind(8, 6, 2), [120.0] * 3, [60.0] * 3)


def run(silent: Bar, epochs: int, model: ClipNet, seed: int = 1, **more: Any) -> Fitted:
    options = Options(epochs=epochs, batch=4, patience=99, seed=seed)
    return fit(model, CLIPS[:8], CLIPS[8:], options, bar=silent, **more)


def same(one: ClipNet, other: ClipNet) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(bool(torch.equal(a, b)) for a, b in pairs)


@pytest.mark.parametrize("kind", [Recurrent, Pooled])
def test_the_seed_decides(silent: Bar, kind: Any) -> None:
    one, again, other = net(kind), net(kind), net(kind, 2)
    torch.manual_seed(99)  # what others draw does not matter
    first = run(silent, 3, one)
    torch.rand(7)
    assert run(silent, 3, again).history == first.history
    assert same(one, again)
    assert run(silent, 3, other, seed=2).history != first.history


def test_seeded_leaves_the_random_numbers_of_others_alone() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    with seeded(1):
        torch.rand(10)
    assert torch.equal(torch.rand(3), wanted)


def test_an_interrupted_training_ends_as_one_that_was_not(silent: Bar, tmp_path: Path) -> None:
    whole, parts, after = net(), net(), net(seed=7)
    wanted = run(silent, 5, whole)
    path = tmp_path / "net.pt"
    run(silent, 2, parts, checkpoint=path, fingerprint="f")
    found = run(silent, 5, after, checkpoint=path, fingerprint="f", resume=True)
    assert (found.history, found.best) == (wanted.history, wanted.best)
    assert same(whole, after)
    assert [each.name for each in tmp_path.iterdir()] == ["net.pt"]
    assert run(silent, 5, net(), checkpoint=path, fingerprint="f", resume=True).history == wanted.history


def test_a_checkpoint_of_something_else_is_refused(silent: Bar, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    run(silent, 1, net(), checkpoint=path, fingerprint="f")
    with pytest.raises(InvalidInput, match="other clips or options") as caught:
        run(silent, 2, net(), checkpoint=path, fingerprint="g", resume=True)
    assert caught.value.reason == "CHECKPOINT_MISMATCH"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InvalidInput, match="is no checkpoint"):
        run(silent, 2, net(), checkpoint=path, fingerprint="f", resume=True)
    assert run(silent, 1, net(), checkpoint=path, fingerprint="f").epochs == 1  # without resume it is written anew


def test_the_best_weights_are_kept(silent: Bar) -> None:
    model = net()
    found = run(silent, 6, model)
    losses = found.history["validation loss"]
    assert losses[found.best - 1] == min(losses)
    logits = torch.from_numpy(predictions(model, CLIPS[8:]))
    labels = torch.tensor([clip.label for clip in CLIPS[8:]])
    assert float(torch.nn.functional.cross_entropy(logits, labels)) == pytest.approx(min(losses), abs=1e-6)


@pytest.mark.parametrize(
    ("losses", "over"),
    [
        ([], False),
        ([1.0, 1.1, 1.2], False),
        ([1.0, 1.1, 1.2, 1.3], True),
        ([1.0, 0.99, 0.98, 0.975], True),  # too little to count
        ([1.0, 1.1, 1.2, 0.5], False),
        ([1.0, 0.01], True),  # nothing left to gain
    ],
)
def test_it_stops_where_nothing_is_gained(losses: list[float], over: bool) -> None:
    assert Fitted({"train loss": losses, "validation loss": losses}).over(3) is over


def test_it_does_stop(silent: Bar) -> None:
    options = Options(epochs=50, batch=4, patience=2, seed=1)  # noise, which cannot be learnt
    found = fit(net(Pooled), CLIPS[:8], CLIPS[8:], options, bar=silent)
    assert found.epochs < 50
    assert found.over(2)


def test_a_loss_that_is_not_finite_says_what_to_do(silent: Bar) -> None:
    model = net()
    with torch.no_grad():
        model.over_time.head.bias[0] = float("nan")
    with pytest.raises(InvalidInput, match="lower --learning-rate"):
        run(silent, 1, model)


def test_other_light_and_place_are_the_same_for_all_frames_of_a_clip() -> None:
    still = np.repeat(RNG.integers(60, 180, (2, 1, 32, 32, 3)).astype(np.uint8), 3, axis=1).reshape(6, 32, 32, 3)
    found = varied(torch.from_numpy(still), torch.tensor([3, 3]), np.random.default_rng(1)).numpy()
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[3], found[5])
    assert np.abs(found - still).mean() > 1
    assert (found.min() >= 0) & (found.max() <= 255)


@pytest.mark.parametrize("kind", [Recurrent, Pooled])
def test_what_else_is_in_the_batch_changes_nothing(kind: Any) -> None:
    model = net(kind)
    together = predictions(model, CLIPS, 12)
    alone = np.concatenate([predictions(model, [clip]) for clip in CLIPS])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_mean_knows_no_order_and_the_gru_does() -> None:
    turned = [Clip(clip.name, clip.label, clip.frames[::-1].copy()) for clip in CLIPS]
    for kind, order in ((Pooled, False), (Recurrent, True)):
        model = net(kind)
        apart = np.abs(predictions(model, CLIPS) - predictions(model, turned)).max()
        assert bool(apart > 1e-4) is order


@pytest.mark.parametrize("kind", [Recurrent, Pooled])
def test_the_last_logits_are_those_of_the_loss(kind: Any) -> None:
    model = net(kind).eval()
    with torch.no_grad():
        loss, logits = model.loss(*tensors(CLIPS))
    np.testing.assert_allclose(logits.numpy(), predictions(model, CLIPS), atol=1e-5)
    assert float(loss) > 0
