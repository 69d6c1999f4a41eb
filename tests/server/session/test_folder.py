"""Deploying, taking back, and watching session models; a broken one never takes the place of a sound one."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

from matchcut.server.errors import EngineFailed, NotFound
from matchcut.server.records import EncoderIdentity
from matchcut.server.session import SessionFolder, current, deploy, rollback, versions
from support import session_models


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "session"


def trained(tmp_path: Path, encoder: EncoderIdentity, seed: int) -> Path:
    """A version's folder that is to be deployed."""
    folder = tmp_path / f"trained-{seed}"
    session_models.write(folder, encoder, seed=seed)
    return folder


def test_deploys_number_upwards_and_are_served(tmp_path: Path, root: Path, encoder: EncoderIdentity) -> None:
    assert [deploy(root, trained(tmp_path, encoder, seed), encoder) for seed in (1, 2)] == [1, 2]
    assert (versions(root), current(root)) == ([1, 2], 2)
    assert SessionFolder(root, encoder).load().identity.version == "2"
    assert sorted(path.name for path in root.iterdir()) == ["1", "2", "CURRENT", "HISTORY"]


def test_one_that_lies_there_already_is_not_copied(root: Path, encoder: EncoderIdentity) -> None:
    session_models.write(root / "7", encoder)
    assert deploy(root, root / "7", encoder) == 7
    assert deploy(root, root / "7", encoder) == 7
    assert (versions(root), current(root)) == ([7], 7)
    with pytest.raises(NotFound):
        rollback(root)


def test_a_broken_one_is_not_deployed(tmp_path: Path, root: Path, encoder: EncoderIdentity) -> None:
    deploy(root, trained(tmp_path, encoder, 1), encoder)
    broken = trained(tmp_path, encoder, 2)
    (broken / "step.onnx").write_bytes(b"")
    with pytest.raises(EngineFailed, match=r"step.onnx"):
        deploy(root, broken, encoder)
    with pytest.raises(EngineFailed, match="trained on vectors of"):
        deploy(root, trained(tmp_path, EncoderIdentity("other", "1", "d2", 6), 3), encoder)
    assert (versions(root), current(root)) == ([1], 1)
    assert not [path for path in root.iterdir() if path.name.startswith(".")]


def test_a_rollback_goes_back_through_what_was_served(tmp_path: Path, root: Path, encoder: EncoderIdentity) -> None:
    for seed in (1, 2, 3):
        deploy(root, trained(tmp_path, encoder, seed))
    assert rollback(root) == 2
    assert deploy(root, trained(tmp_path, encoder, 4)) == 4
    assert [rollback(root), rollback(root)] == [2, 1]  # 3 was taken back and is not returned to
    assert current(root) == 1
    with pytest.raises(NotFound, match="no version was served before 1"):
        rollback(root)


def test_a_rollback_skips_what_is_gone_and_refuses_what_is_broken(
    tmp_path: Path, root: Path, encoder: EncoderIdentity
) -> None:
    for seed in (1, 2, 3):
        deploy(root, trained(tmp_path, encoder, seed))
    (root / "2").rename(tmp_path / "gone")
    (root / "1" / "ids.txt").unlink()
    with pytest.raises(EngineFailed, match=r"ids.txt"):
        rollback(root)
    assert current(root) == 3


def test_a_crash_between_the_two_files_does_not_mislead_a_rollback(
    tmp_path: Path, root: Path, encoder: EncoderIdentity
) -> None:
    for seed in (1, 2, 3):
        deploy(root, trained(tmp_path, encoder, seed))
    (root / "CURRENT").write_text("2\n")  # the rollback from 3 got as far as this
    assert rollback(root) == 1


def test_many_deploy_at_once(tmp_path: Path, root: Path, encoder: EncoderIdentity) -> None:
    folders = [trained(tmp_path, encoder, seed) for seed in range(6)]
    numbers: list[int] = []
    threads = [
        threading.Thread(target=lambda folder=folder: numbers.append(deploy(root, folder))) for folder in folders
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == versions(root) == [1, 2, 3, 4, 5, 6]
    assert current(root) in numbers


def test_polling_gives_each_new_model_once(tmp_path: Path, root: Path, encoder: EncoderIdentity) -> None:
    deploy(root, trained(tmp_path, encoder, 1))
    folder = SessionFolder(root, encoder)
    folder.load().close()
    assert folder.poll() is None
    deploy(root, trained(tmp_path, encoder, 2))
    found = folder.poll()
    assert found is not None
    assert (found.identity.version, folder.served) == ("2", 2)
    assert folder.poll() is None
    rollback(root)
    back = folder.poll()
    assert back is not None
    assert (back.identity.version, folder.served) == ("1", 1)


def test_a_broken_version_is_told_once_and_tried_again_when_it_changes(
    tmp_path: Path, root: Path, encoder: EncoderIdentity, caplog: pytest.LogCaptureFixture
) -> None:
    deploy(root, trained(tmp_path, encoder, 1))
    folder = SessionFolder(root, encoder)
    folder.load().close()
    session_models.write(root / "2", encoder, seed=2)
    sound = (root / "2" / "step.onnx").read_bytes()
    (root / "2" / "step.onnx").write_bytes(sound[:-1])
    (root / "CURRENT").write_text("2\n")
    with caplog.at_level(logging.ERROR, "matchcut.session"):
        assert [folder.poll(), folder.poll()] == [None, None]
    assert [record.message.count("is not replaced") for record in caplog.records] == [1]
    assert folder.served == 1
    assert "step.onnx" in folder.fault
    (root / "2" / "step.onnx").write_bytes(sound)
    found = folder.poll()
    assert found is not None
    assert (found.identity.version, folder.fault) == ("2", "")


@pytest.mark.parametrize("text", ["", "latest", "0", "-1", "1.5", "../1", "9" * 40])
def test_a_current_that_is_no_number(root: Path, encoder: EncoderIdentity, text: str) -> None:
    session_models.write(root / "1", encoder)
    folder = SessionFolder(root, encoder)
    with pytest.raises(EngineFailed, match="has no CURRENT"):
        folder.load()
    (root / "CURRENT").write_text(text)
    with pytest.raises(EngineFailed, match="must be the number of a version"):
        folder.load()
    assert folder.poll() is None
    assert "must be the number" in folder.fault


def test_a_version_that_is_not_there(root: Path, encoder: EncoderIdentity) -> None:
    session_models.write(root / "1", encoder)
    (root / "CURRENT").write_text("2")
    folder = SessionFolder(root, encoder)
    assert folder.poll() is None
    assert "cannot be read" in folder.fault
    with pytest.raises(EngineFailed, match=r"session.toml cannot be read"):
        folder.load()


@pytest.mark.parametrize("said", ["2\n", "latest"])
def test_what_is_good_again_is_told(
    tmp_path: Path, root: Path, encoder: EncoderIdentity, caplog: pytest.LogCaptureFixture, said: str
) -> None:
    deploy(root, trained(tmp_path, encoder, 1))
    folder = SessionFolder(root, encoder)
    folder.load().close()
    (root / "CURRENT").write_text(said)
    assert folder.poll() is None
    assert folder.fault
    (root / "CURRENT").write_text("1\n")
    with caplog.at_level(logging.INFO, "matchcut.session"):
        assert [folder.poll(), folder.poll()] == [None, None]
    assert folder.fault == ""
    assert [record.message for record in caplog.records if record.levelno == logging.INFO] == [
        f"{root / 'CURRENT'} is good again: version 1 is still served"
    ]


def test_a_rollback_where_nothing_is_deployed(root: Path, encoder: EncoderIdentity) -> None:
    with pytest.raises(NotFound, match="it is not there"):
        rollback(root)
    session_models.write(root / "1", encoder)
    with pytest.raises(NotFound, match="no session model is deployed in"):
        rollback(root)
