"""Clips of a folder: what is broken or there twice is left out and told of; what is judged by was not trained with."""

from __future__ import annotations

import io
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matchcut.server.errors import InvalidInput, MatchcutError, UnreadableMedia
from matchcut.server.records import InputSize
from matchcut.server.training.clip.clips import Clip, Clips, batch, digest, divided
from matchcut.server.training.clip.reading import Recipe, decoded, of_digits, of_folder
from matchcut.server.training.progress import Bar

RECIPE = Recipe(InputSize(32, 32), 25.0, 6)


@pytest.fixture(scope="module")
def files(synth: ModuleType) -> list[bytes]:
    """Ten different clips of 8 to 17 frames."""
    return [synth.clip(frames=8 + at, size=(64, 48)) for at in range(10)]


def written(root: Path, content: dict[str, bytes]) -> Path:
    for name, data in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def test_a_folder_of_clips_and_what_is_wrong_in_it(
    tmp_path: Path, files: list[bytes], synth: ModuleType, silent: Bar
) -> None:
    long = synth.clip(frames=100, size=(64, 48))
    folder = written(
        tmp_path,
        {
            **{f"a/{at}.mp4": files[at] for at in range(4)},
            **{f"b/deep/{at}.mp4": files[at] for at in range(4, 8)},
            "a/again.mp4": files[0],
            "a/empty.mp4": b"",
            "a/notes.txt": b"no video at all, but text",
            "a/both.mp4": files[8],
            "b/both.mp4": files[8],
            "b/cut.mp4": long[: len(long) // 2],
            "a/.hidden.mp4": b"?",
            ".git/x": b"?",
            "readme.md": b"?",
        },
    )
    clips = of_folder(folder, Recipe(InputSize(32, 32), 25.0, 200), seed=1, bar=silent)
    assert clips.classes == ("a", "b")
    used = [*clips.train, *clips.validation, *clips.test]
    assert clips.counts() == {"train": 4, "validation": 2, "test": 2}
    assert sorted(clip.name for clip in used) == sorted(
        [f"a/{at}.mp4" for at in range(4)] + [f"b/deep/{at}.mp4" for at in range(4, 8)]
    )
    assert {clip.name: len(clip.frames) for clip in used}["a/3.mp4"] == 11
    assert {clip.label for clip in clips.test} == {0, 1}
    why = dict(clips.left_out)
    assert sorted(why) == ["a/again.mp4", "a/both.mp4", "a/empty.mp4", "a/notes.txt", "b/both.mp4", "b/cut.mp4"]
    assert why["a/again.mp4"] == "the same file as 0.mp4"
    assert why["a/both.mp4"] == why["b/both.mp4"] == "the same file lies in 2 places, of several classes"
    assert "ends before its container says" in why["b/cut.mp4"]


def test_a_clip_gives_so_many_frames_at_the_rate(files: list[bytes]) -> None:
    assert decoded(io.BytesIO(files[9]), RECIPE).shape == (6, 32, 32, 3)
    assert len(decoded(io.BytesIO(files[0]), Recipe(InputSize(32, 32), 12.5, 99))) == 4
    assert len(decoded(io.BytesIO(files[0]), Recipe(InputSize(32, 32), 1e-3, 99))) == 1
    with pytest.raises(UnreadableMedia):
        decoded(io.BytesIO(b"x" * 5000), RECIPE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "has 0 folders in it"),
        ({"a/1.mp4": b"1", "2.mp4": b"2"}, "has 1 folders in it"),
        ({"a/1.mp4": b"1", "b/2.mp4": b"2"}, "the class 'a' has 0 usable clips"),
        ({"a/1.mp4": b"1", "b\n/2.mp4": b"2"}, "cannot be printed"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path: Path, content: dict[str, bytes], message: str, silent: Bar) -> None:
    with pytest.raises(InvalidInput, match=message):
        of_folder(written(tmp_path, content), RECIPE, seed=1, bar=silent)


def test_a_folder_that_is_not_there(tmp_path: Path, silent: Bar) -> None:
    with pytest.raises(InvalidInput, match="cannot be read: No such file") as caught:
        of_folder(tmp_path / "none", RECIPE, seed=1, bar=silent)
    assert caught.value.field == "folder"


def test_more_than_memory_takes_is_refused(
    tmp_path: Path, files: list[bytes], silent: Bar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("matchcut.server.training.clip.reading.MOST_BYTES", 6 * 32 * 32 * 3 * 4)
    folder = written(tmp_path, {f"{'ab'[at % 2]}/{at}.mp4": files[at] for at in range(6)})
    with pytest.raises(InvalidInput, match="of memory"):
        of_folder(folder, RECIPE, seed=1, bar=silent)


@given(counts=st.lists(st.integers(3, 40), min_size=2, max_size=5), seed=st.integers(0, 99))
def test_every_clip_has_one_part_and_every_part_each_class(counts: list[int], seed: int) -> None:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    parts = divided(labels, [str(label) for label in range(len(counts))], seed)
    assert sorted(at for part in parts for at in part) == list(range(len(labels)))
    for part in parts:
        assert {labels[at] for at in part} == set(range(len(counts)))
    assert len(parts[1]) == len(parts[2])
    assert parts == divided(labels, [str(label) for label in range(len(counts))], seed)


def test_digits_are_in_one_part_only(silent: Bar) -> None:
    clips = of_digits(8, 6, 32, Recipe(InputSize(32, 32), 8.0, 6), seed=4, bar=silent)
    images = [{clip.name.split(",")[0] for clip in part} for part in (clips.train, clips.validation, clips.test)]
    assert [len(each) for each in images] == [24, 4, 4]
    assert len(set.union(*images)) == 32
    again = of_digits(8, 6, 32, Recipe(InputSize(32, 32), 8.0, 6), seed=4, bar=silent)
    assert digest(clips) == digest(again)
    with pytest.raises(MatchcutError, match="has 2 usable clips"):
        of_digits(2, 6, 32, RECIPE, seed=4, bar=silent)


def test_the_digest_sees_everything() -> None:
    def made(label: int = 0, value: int = 0, classes: tuple[str, ...] = ("a", "b"), swap: bool = False) -> str:
        one, two = Clip("x", label, np.full((2, 3), value, np.uint8)), Clip("y", 1, np.zeros((1, 3), np.uint8))
        return digest(Clips(classes, (two,) if swap else (one,), (one,) if swap else (two,), ()))

    every = [made(), made(label=1), made(value=1), made(classes=("a", "c")), made(swap=True)]
    assert len(set(every)) == len(every)
    assert made() == every[0]


def test_a_batch_is_one_clip_behind_the_other() -> None:
    found = batch([Clip("x", 3, np.zeros((2, 4), np.float32)), Clip("y", 1, np.ones((5, 4), np.float32))])
    assert found.frames.shape == (7, 4)
    assert (found.lengths.tolist(), found.labels.tolist()) == ([2, 5], [3, 1])
