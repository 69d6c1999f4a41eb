"""Training: it learns what popularity cannot, the same each time, also when it was broken off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from matchcut.server.errors import EngineFailed, InvalidInput
from matchcut.server.records import EncoderIdentity, Floats
from matchcut.server.training.session.batches import frequencies
from matchcut.server.training.session.dataset import Dataset, made
from matchcut.server.training.session.fitting import Fitted, fit, fresh
from matchcut.server.training.session.judging import Answers, histories, network_answers, parted, values
from matchcut.server.training.session.settings import Settings


def recall_of(fitted: Fitted, data: Dataset, k: int = 1) -> float:
    test = parted(histories(data)).test
    return float(values(network_answers(fitted.network, test.histories), test, k=k)["recall"].mean())


def same(first: Fitted, second: Fitted) -> bool:
    pairs = zip(first.network.state_dict().values(), second.network.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


class Broken(Exception):
    """What ends a training from outside."""


def test_it_learns_an_order_that_popularity_cannot_know(ring: Dataset, gru: Fitted, sasrec: Fitted) -> None:
    split = parted(histories(ring))
    often = frequencies(split.train, len(ring.content)).astype(np.float32)[:, None]
    alike = Answers(np.ones((len(split.test.targets), 1), np.float32), often, np.ones(len(often), bool))
    popular = values(alike, split.test, k=1)["recall"].mean()
    assert popular < 0.15
    assert recall_of(gru, ring) > 0.8
    assert recall_of(sasrec, ring) > 0.8


def test_curves_and_the_epoch_of_the_weights(gru: Fitted, small: Settings) -> None:
    assert set(gru.curves) == {"train loss", *(f"validation {name}@10" for name in ("recall", "mrr", "ndcg"))}
    assert all(len(curve) == small.epochs for curve in gru.curves.values())
    assert gru.curves["train loss"][-1] < gru.curves["train loss"][0] / 2
    assert gru.best == 1 + int(np.argmax(gru.curves["validation ndcg@10"]))
    assert not gru.network.training


@pytest.mark.parametrize("kind", ["gru", "sasrec"])
def test_a_training_that_was_broken_off_comes_to_the_same(
    ring: Dataset, small: Settings, tmp_path: Path, kind: str
) -> None:
    settings = replace(small, kind=kind, epochs=4)
    split, saved = parted(histories(ring)), tmp_path / "checkpoint.pt"
    whole = fit(ring, split, settings)

    def breaks(epoch: int, _: dict[str, float]) -> None:
        if epoch == 2:
            raise Broken

    with pytest.raises(Broken):
        fit(ring, split, settings, saved=saved, told=breaks)
    seen: list[int] = []
    resumed = fit(ring, split, settings, saved=saved, told=lambda epoch, _: seen.append(epoch))
    assert seen == [3, 4]
    assert same(whole, resumed)
    assert resumed.curves == whole.curves


def test_another_seed_comes_to_something_else(ring: Dataset, small: Settings) -> None:
    split, settings = parted(histories(ring)), replace(small, epochs=1)
    before = torch.get_rng_state()
    first = fit(ring, split, settings)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    assert same(first, fit(ring, split, settings))
    assert not same(first, fit(ring, split, replace(settings, seed=1)))


def test_a_checkpoint_of_something_else_is_refused(ring: Dataset, small: Settings, tmp_path: Path) -> None:
    split, settings, saved = parted(histories(ring)), replace(small, epochs=1), tmp_path / "checkpoint.pt"
    fit(ring, split, settings, saved=saved)
    with pytest.raises(InvalidInput, match=r"--rate was 0\.02 and is 0\.5 now"):
        fit(ring, split, replace(settings, rate=0.5), saved=saved)
    with pytest.raises(InvalidInput, match=r"options: --items\. Give"):
        fit(ring, split, replace(settings, ids=False), saved=saved)
    with pytest.raises(InvalidInput, match="--tenant was None and is 't' now"):
        fit(ring, split, settings, saved=saved, asked={"tenant": "t"})
    with pytest.raises(InvalidInput, match="of other data"):
        fit(ring.only(np.arange(len(ring.events) - 1)), split, settings, saved=saved)
    saved.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(InvalidInput, match="no checkpoint, or damaged"):
        fit(ring, split, settings, saved=saved)


def test_it_stops_where_validation_gets_no_better(ring: Dataset, small: Settings) -> None:
    # With this rate nothing that matters changes, and the first epoch stays the best.
    settings = replace(small, epochs=50, patience=2, rate=1e-12, dropout=0.0, id_dropout=0.0)
    fitted = fit(ring, parted(histories(ring)), settings)
    assert len(fitted.curves["train loss"]) == 3
    assert fitted.best == 1


def test_a_training_that_diverges_says_so(ring: Dataset, small: Settings) -> None:
    with pytest.raises(EngineFailed, match="lower --rate") as failed:
        fit(ring, parted(histories(ring)), replace(small, rate=1e30, normalise=False))
    assert failed.value.reason == "TRAINING_DIVERGED"


@pytest.mark.parametrize("rows", [[("u", "a", 0, 1.0)], [("u", "a", 0, 1.0), ("u", "b", 1, 1.0)]])
def test_too_few_events_are_refused(rows: list[tuple[str, str, int, float]], small: Settings) -> None:
    data = made(rows)
    with pytest.raises(InvalidInput, match="no user has the three events"):
        fit(data, parted(histories(data)), replace(small, content=False))


def test_one_user_is_enough(small: Settings) -> None:
    data = made([("u", f"i{at % 3}", at * 1_000_000, 1.0) for at in range(20)])
    fitted = fit(data, parted(histories(data)), replace(small, content=False))
    assert recall_of(fitted, data) == 1.0


def test_drawn_items_teach_the_order_too(ring: Dataset, small: Settings) -> None:
    settings = replace(small, full=10, negatives=12)
    assert recall_of(fit(ring, parted(histories(ring)), settings), ring) > 0.8


def test_whole_histories_can_be_trained_on(ring: Dataset, small: Settings) -> None:
    fitted = fit(ring, parted(histories(ring)), replace(small, window=0))
    assert recall_of(fitted, ring) > 0.9


def genres(cold: int = 1) -> tuple[Dataset, list[int]]:
    """Items of four kinds; after one of a kind comes any of the next kind. Content tells the kind, and a little more.
    Also the numbers of items of kind 1 that nobody used yet."""
    random = np.random.default_rng(0)
    kinds, each = 4, 8
    vectors: dict[str, Floats] = {}
    for kind in range(kinds):
        for at in range(each + (cold if kind == 1 else 0)):
            vector = random.standard_normal(10) * 0.15
            vector[kind] += 1
            vectors[f"{kind}-{at}"] = vector.astype(np.float32)
    rows = [
        (f"u{user}", f"{(begin + at) % kinds}-{int(random.integers(each))}", at * 1_000_000, 1.0)
        for user, begin in enumerate(random.integers(kinds, size=60))
        for at in range(9)
    ]
    data = made(rows, vectors, EncoderIdentity("tiny", "1", "d1", 10))
    return data, [data.events.item_ids.index(f"1-{each + at}") for at in range(cold)]


def test_a_cold_item_ranks_by_its_content(small: Settings) -> None:
    data, new = genres(cold=4)
    of_kind_0 = [at for at, item in enumerate(data.events.item_ids) if item.startswith("0-")]
    ended = [(np.array([at]), np.ones(1, np.float32)) for at in of_kind_0]
    fitted = fit(data, parted(histories(data)), replace(small, epochs=30, patience=30))
    assert not fitted.network.index[new].any()
    order = np.argsort(-network_answers(fitted.network, ended).scores(), axis=1).argsort(axis=1)
    # Of 36; after one of kind 0 the twelve of kind 1 should have the places 0 to 11.
    assert order[:, new].mean() < 12


def test_id_dropout_teaches_what_content_can_tell_where_no_id_is_known(ring: Dataset, small: Settings) -> None:
    test, found = parted(histories(ring)).test, {}
    for share in (0.0, 0.5):
        fitted = fit(ring, parted(histories(ring)), replace(small, id_dropout=share, epochs=20))
        fitted.network.index.zero_()  # as if none had been learnt
        found[share] = float(values(network_answers(fitted.network, test.histories), test)["ndcg"].mean())
    assert found[0.5] > found[0.0] + 0.1


def test_a_fresh_network_is_one_of_the_data(ring: Dataset, small: Settings) -> None:
    network = fresh(ring, small, np.array([3, 5]))
    assert network.items().shape == (len(ring.content), small.dimensions)
    assert "content" not in network.state_dict()
