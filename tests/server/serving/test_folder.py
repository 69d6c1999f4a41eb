"""What a folder of models may look like, and what is said of one that is not so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matchcut.server.serving.folder import Folder, look, order, scan
from matchcut.server.serving.watch import Watch
from support import onnx_models
from support.onnx_models import identity


def put(root: Path, *path: str) -> Path:
    return onnx_models.write(root.joinpath(*path), identity())


def faults(root: Path, name: str = "m") -> dict[str, str]:
    folder = scan(root)[name]
    assert folder == look(root, name)
    return {version.number: version.fault for version in folder.versions} or {"": folder.fault}


def test_models_and_versions_in_order(root: Path) -> None:
    for path in (("b", "10"), ("b", "9"), ("b", "100"), ("a", "1"), ("a.b-c_d+1", "1")):
        put(root, *path)
    (root / "README.md").write_text("not a model")
    (root / "a" / "notes.txt").write_text("not a version")
    put(root, ".hidden", "1")
    put(root, "a", ".copying")
    found = scan(root)
    assert {name: [version.number for version in folder.versions] for name, folder in found.items()} == {
        "a": ["1"],
        "a.b-c_d+1": ["1"],
        "b": ["9", "10", "100"],
    }
    assert not any(version.fault for folder in found.values() for version in folder.versions)
    assert found["a"].versions[0].onnx == root / "a" / "1" / "model.onnx"


@pytest.mark.parametrize("number", ["0", "01", "x", "-1", "1.0", "１", "1 ", "9" * 19])
def test_a_version_is_a_whole_number_from_one(root: Path, number: str) -> None:
    put(root, "m", number)
    assert list(faults(root).values()) == [
        "a version is a whole number from 1, without zeros before it: rename the folder"
    ]


@pytest.mark.parametrize("name", ["a b", "a\\b", "a:b", "a\nb", "ä", "-a", "+", "a" * 129, "a\x7f"])
def test_a_name_that_is_none(root: Path, name: str) -> None:
    put(root, name, "1")
    assert "its name may have letters, digits" in faults(root, name)[""]


def test_a_name_that_is_not_text(root: Path) -> None:
    os.makedirs(os.path.join(os.fsencode(root), b"a\xff", b"1\xfe"))
    [folder] = scan(root).values()
    assert folder.name == "a\\xff"
    folder.name.encode()
    os.makedirs(os.path.join(os.fsencode(root), b"m", b"1\xfe"))
    assert list(faults(root)) == ["1\\xfe"]


def test_folders_that_lack_something(root: Path) -> None:
    (root / "m").mkdir()
    assert faults(root) == {"": "it has no versions: put the model into m/1/"}
    (root / "m" / "1").mkdir()
    assert faults(root) == {"1": "there is no ONNX file in it: put one there, with the ending .onnx"}
    (root / "m" / "1" / "model.pt").write_text("")
    (root / "m" / "1" / ".model.onnx").write_text("still being written")
    assert faults(root) == {"1": "there is no ONNX file in it: put one there, with the ending .onnx"}
    put(root, "m", "1").rename(root / "m" / "1" / "any name.onnx")
    assert faults(root) == {"1": ""}
    put(root, "m", "1")
    assert faults(root) == {"1": "there are 2 ONNX files in it, any name.onnx and others: leave one"}


def test_links_do_not_lead_out(root: Path, tmp_path: Path) -> None:
    outside = put(tmp_path, "outside", "1")
    (root / "m").symlink_to(outside.parent.parent)
    assert "leads out of the repository: put the folder itself there" in faults(root)[""]
    (root / "m").unlink()
    (root / "m").mkdir()
    (root / "m" / "1").symlink_to(outside.parent)
    (root / "m" / "2").mkdir()
    (root / "m" / "2" / "model.onnx").symlink_to(outside)
    (root / "m" / "3").mkdir()
    (root / "m" / "3" / "model.onnx").symlink_to("/etc/passwd")
    found = faults(root)
    assert "leads out of the repository: put the folder itself there" in found["1"]
    assert found["2"] == found["3"]
    assert "model.onnx is a link that leads out of the repository" in found["2"]


def test_links_inside_are_followed(root: Path) -> None:
    inside = put(root, "a", "1")
    (root / "b").symlink_to(root / "a")
    (root / "a" / "2").symlink_to(inside.parent)
    assert faults(root, "a") == faults(root, "b") == {"1": "", "2": ""}


def test_links_to_nothing_and_in_circles(root: Path) -> None:
    (root / "m").symlink_to(root / "gone")
    assert "it is a link to nothing" in faults(root)[""]
    (root / "n").symlink_to(root / "n")
    assert "link" in faults(root, "n")[""]
    put(root, "o", "1")
    (root / "o" / "2").symlink_to(root / "o" / "2")
    (root / "o" / "3").symlink_to(root / "gone")
    found = faults(root, "o")
    assert found["1"] == ""
    assert found["2"]
    assert found["3"] == "it is no folder: a version is a folder with an ONNX file"


def test_what_may_not_be_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(root, "m", "1")
    put(root, "n", "1")
    honest = Path.iterdir

    def iterdir(path: Path) -> object:
        if path in (root / "m", root / "n" / "1"):
            raise PermissionError(13, "Permission denied")
        return honest(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert faults(root) == {"": "its folder cannot be read: Permission denied"}
    assert faults(root, "n") == {"1": "its folder cannot be read: Permission denied"}


@given(st.text())
def test_a_name_is_never_opened_as_a_path(name: str) -> None:
    here = Path(__file__).parent
    found = look(here, name)
    assert found is None or found.name == name


def test_names_that_lead_elsewhere_are_not_found(root: Path) -> None:
    put(root, "m", "1")
    for name in ("", ".", "..", "../models/m", "m/1", "m/", "/etc", "m\0", str(root / "m")):
        assert look(root, name) is None
    found = look(root, "m")
    assert found is not None
    assert found.fault == ""


@given(st.permutations(["1", "2", "10", "0", "x", "01"]))
def test_versions_are_sorted_by_number(numbers: list[str]) -> None:
    assert sorted(numbers, key=order) == ["1", "2", "10", "0", "01", "x"]


def test_a_stamp_changes_with_the_files_and_with_nothing_else(root: Path) -> None:
    def stamp() -> object:
        return scan(root)["m"].versions[0].stamp

    path = put(root, "m", "1")
    first = stamp()
    assert stamp() == first
    os.utime(path, ns=(1, 1))
    second = stamp()
    (root / "m" / "1" / "labels.txt").write_text("a")
    third = stamp()
    (root / "m" / "model.toml").write_text("keep = 1")
    fourth = stamp()
    (path.parent / "copy").write_bytes(path.read_bytes())
    os.replace(path.parent / "copy", path)
    os.utime(path, ns=(1, 1))
    assert len({first, second, third, fourth, stamp()}) == 5
    fifth = stamp()
    put(root, "m", "2")
    (root / "other").mkdir()
    assert stamp() == fifth


def test_a_file_that_goes_while_it_is_looked_at(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(root, "m", "1")
    labels = path.with_name("labels.txt")
    labels.write_text("a")
    honest = Path.is_file

    def is_file(each: Path) -> bool:
        found = honest(each)
        if each == labels:
            each.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(Path, "is_file", is_file)
    [version] = scan(root)["m"].versions
    assert version.fault == ""
    assert [name for name, *_ in version.stamp] == ["model.onnx"]


def changes(watch: Watch, root: Path, ready: dict[str, list[str]] | None = None) -> dict[str, set[str]]:
    return {name: set(only) for name, only in watch.changes(scan(root), ready or {})}


def test_a_version_is_told_once_it_is_the_same_twice(root: Path) -> None:
    watch = Watch()
    path = put(root, "m", "1")
    assert changes(watch, root) == {}
    assert changes(watch, root) == {"m": {"1"}}
    assert changes(watch, root) == {}
    copied = put(root, "m", "2")
    assert changes(watch, root) == {}
    for size in range(3):  # it is still being written
        copied.write_bytes(bytes(size))
        assert changes(watch, root) == {}
    assert changes(watch, root) == {"m": {"1", "2"}}
    os.utime(path, ns=(5, 5))
    assert changes(watch, root) == {"m": {"2"}}, "the first is being changed"
    assert changes(watch, root) == {"m": {"1", "2"}}


def test_what_has_gone_is_told_once_it_was_missing_twice(root: Path) -> None:
    watch = Watch()
    path = put(root, "m", "1")
    put(root, "m", "2")
    ready = {"m": ["1", "2"]}
    changes(watch, root)
    assert changes(watch, root, ready) == {"m": {"1", "2"}}
    path.parent.rename(root / "kept")
    assert changes(watch, root, ready) == {"m": {"2"}}
    assert changes(watch, root, ready) == {"m": {"1", "2"}, "kept": {""}}
    assert changes(watch, root, {"m": ["2"]}) == {"m": {"2"}}
    assert changes(watch, root, {"m": ["2"]}) == {}


def test_a_whole_model_that_has_gone() -> None:
    watch = Watch()
    ready = {"m": ["1"]}
    assert dict(watch.changes({}, ready)) == {}
    assert dict(watch.changes({}, ready)) == {"m": {"1"}}
    assert dict(watch.changes({"n": Folder("n", Path("n"), fault="broken")}, ready)) == {}
    assert dict(watch.changes({"n": Folder("n", Path("n"), fault="broken")}, ready)) == {"n": {""}}
