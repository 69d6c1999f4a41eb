"""Learning curves are drawn: a plot for each kind of figure, whatever the values."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from matchcut.server.training.curves import draw


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert len(set(image.convert("L").tobytes())) > 20  # something is drawn
        return image.size


def test_series_of_one_kind_share_a_plot(tmp_path: Path) -> None:
    one, two = tmp_path / "one.png", tmp_path / "two.png"
    draw(one, {"train loss": [3.0, 2.0, 1.0], "validation loss": [3.0, 2.5]}, title="a model")
    draw(two, {"train loss": [3.0, 2.0], "accuracy": [0.1, 0.9]}, title="a model")
    assert size(one)[0] == size(two)[0]
    assert size(two)[1] > 1.5 * size(one)[1]


@pytest.mark.parametrize(
    "history",
    [
        {},
        {"": [1.0]},
        {"loss": []},
        {"loss": [float("nan"), 1.0, float("inf")]},
        {"_hidden $x$ loss": [1e300, -1e300]},
        {"loss": [0.5] * 500},
    ],
)
def test_odd_histories_are_drawn_too(tmp_path: Path, history: dict[str, list[float]]) -> None:
    draw(tmp_path / "c.png", history, title="$ not a formula")
    size(tmp_path / "c.png")


def test_the_same_history_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw(tmp_path / name, {"loss": [2.0, 1.0]}, title="t")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        draw(tmp_path / "none" / "c.png", {"loss": [1.0]}, title="t")
