"""Folders of pictures: what is read, what is left out, and what is said of folders that cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from matchcut.server.errors import InvalidInput
from matchcut.server.records import InputSize
from matchcut.server.training.image.pictures import check_name, digits, folder, read

SIZE = InputSize(32, 32)
MakeFolder = Callable[..., Path]


def test_a_folder_is_read_in_the_order_of_its_names(make_folder: MakeFolder) -> None:
    found = folder(make_folder(each=3), SIZE)
    assert found.classes == ("stripes0", "stripes1", "stripes2")
    assert found.names[:4] == ("stripes0/00.png", "stripes0/01.png", "stripes0/02.png", "stripes1/00.png")
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert found.pixels.shape == (9, 32, 32, 3)
    assert not found.unreadable
    assert not found.skipped


def test_what_cannot_be_read_is_reported_and_left_out(make_folder: MakeFolder) -> None:
    root = make_folder(each=3)
    (root / "stripes1" / "01.png").write_bytes((root / "stripes1" / "01.png").read_bytes()[:200])
    (root / "stripes0" / "empty.jpg").touch()
    (root / "stripes0" / "notes.txt").write_text("not a picture")
    (root / "stripes0" / ".hidden.png").write_text("not looked at")
    (root / ".cache").mkdir()
    found = folder(root, SIZE)
    assert [name for name, _ in found.unreadable] == ["stripes0/empty.jpg", "stripes1/01.png"]
    assert all(why for _, why in found.unreadable)
    assert found.skipped == ("stripes0/notes.txt",)
    assert len(found) == len(found.pixels) == len(found.labels) == 8
    # The pixels are still those of their names.
    for name, pixels in zip(found.names, found.pixels, strict=True):
        assert np.array_equal(pixels, read(root / name, SIZE))


def test_folders_within_a_class_are_read_too(make_folder: MakeFolder) -> None:
    root = make_folder(each=3)
    (root / "stripes0" / "deeper").mkdir()
    Image.new("RGB", (40, 30), "red").save(root / "stripes0" / "deeper" / "a.JPEG", format="jpeg")
    assert "stripes0/deeper/a.JPEG" in folder(root, SIZE).names


def test_at_most_so_many_of_a_class(make_folder: MakeFolder) -> None:
    assert folder(make_folder(each=4), SIZE, most=2).labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_files_are_tracked(make_folder: MakeFolder) -> None:
    seen: list[int] = []

    def track(files: Sequence[Path]) -> Sequence[Path]:
        seen.append(len(files))
        return files

    folder(make_folder(each=2), SIZE, track=track)
    assert seen == [6]


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: root / "missing", "cannot be read: No such file or directory; give a folder"),
        (lambda root: root / "stripes0" / "00.png", "cannot be read: Not a directory"),
        (lambda root: root / "stripes0", "has 0 sub-folders; give a folder with one for each class"),
        (lambda root: ((root / "empty").mkdir(), root)[1], "empty is no picture that can be read"),
        (lambda root: ((root / "a\nb").mkdir(), root)[1], r"the folder 'a\\nb' cannot name a class"),
    ],
)
def test_a_folder_that_cannot_be_used_says_why(
    make_folder: MakeFolder, prepare: Callable[[Path], Path], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        folder(prepare(make_folder(each=1)), SIZE)
    assert caught.value.field == "data"


def test_one_class_is_too_few(make_folder: MakeFolder) -> None:
    with pytest.raises(InvalidInput, match="has 1 sub-folders; give a folder with one for each class, two at least"):
        folder(make_folder(classes=1, each=1), SIZE)


@pytest.mark.parametrize("name", ["cat", "Müller & Söhne", "日本", "a" * 100])
def test_names_of_classes(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", ["a" * 101, "é" * 51, " a", "a\u2028b", "a\x85b", "\udcff", "a\x1b[2J"])
def test_names_that_are_no_labels(name: str) -> None:
    with pytest.raises(InvalidInput, match="cannot name a class"):
        check_name(name)


def test_digits_come_with_the_package() -> None:
    found = digits(SIZE)
    assert len(found) == 1797
    assert found.pixels.shape == (1797, 32, 32, 3)
    assert (found.pixels[..., 0] == found.pixels[..., 2]).all()
    assert found.pixels.max() > 240
    assert np.bincount(found.labels).min() > 170
    assert np.bincount(digits(SIZE, most=5).labels).tolist() == [5] * 10
