"""States of streams: what they are, whose they are, and how they go on."""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from matchcut.server.errors import Cancelled, EncoderMismatch, EngineFailed, InvalidInput
from matchcut.server.feed import Caller
from matchcut.server.models import graph, gru, temporal
from matchcut.server.records import EncoderIdentity
from matchcut.server.recurrence import HEAD, Recurrence

SIZE, HALF_LIFE = 32, 3.0
ENCODER = EncoderIdentity("some", "1", "ab" * 32, SIZE)


def made(encoder: EncoderIdentity = ENCODER, half_life: float = HALF_LIFE) -> Recurrence:
    return Recurrence(encoder, lambda: temporal.step(None, dimensions=SIZE, half_life=half_life))


@pytest.fixture
def recurrence() -> Iterator[Recurrence]:
    opened = made()
    yield opened
    opened.close()
    opened.close()  # may be called twice


def frames(seed: int, count: int) -> np.ndarray:
    return np.asarray(np.random.default_rng(seed).standard_normal((count, SIZE)), np.float32)


def decaying(vectors: np.ndarray) -> np.ndarray:
    """The decaying mean of unit vectors, by its definition."""
    kept, state = 2 ** (-1 / HALF_LIFE), np.zeros(SIZE)
    for vector in vectors.astype(np.float64):
        state = kept * state + (1 - kept) * vector / np.linalg.norm(vector)
    return state / np.linalg.norm(state)


def after(recurrence: Recurrence, vectors: np.ndarray, resume: bytes = b"") -> tuple[np.ndarray, bytes]:
    with recurrence.stream(Caller(), resume) as stream:
        for vector in vectors:
            stream.add(vector)
        return stream.vector(), stream.token()


def test_it_is_the_decaying_mean(recurrence: Recurrence) -> None:
    vectors = frames(0, 20) * np.float32(40)  # of any length
    vector, _ = after(recurrence, vectors)
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    assert vector @ decaying(vectors) > 1 - 1e-6


def test_what_is_seen_now_counts_most(recurrence: Recurrence) -> None:
    first, second = frames(1, 1), frames(2, 1)
    vector, _ = after(recurrence, np.concatenate([np.repeat(first, 50, axis=0), np.repeat(second, 12, axis=0)]))
    assert vector @ second[0] / np.linalg.norm(second) > 0.98


def test_streams_do_not_see_each_other(recurrence: Recurrence) -> None:
    """Whatever others do meanwhile, together or not, a stream's state is what it is alone."""
    alone = [after(recurrence, frames(seed, 30))[0] for seed in range(6)]
    found: dict[int, np.ndarray] = {}

    def work(seed: int) -> None:
        found[seed] = after(recurrence, frames(seed, 30))[0]

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(6):
        np.testing.assert_allclose(found[seed], alone[seed], atol=1e-6)
    assert recurrence.live == 0


def test_a_poisoned_stream_fails_alone(recurrence: Recurrence) -> None:
    good, bad = frames(3, 4), frames(4, 1)
    with ExitStack() as opened:
        one = opened.enter_context(recurrence.stream(Caller()))
        other = opened.enter_context(recurrence.stream(Caller()))
        for vector in good[:2]:
            one.add(vector)
        other.add(bad[0])
        other._state[3] = np.nan  # whatever did it
        with pytest.raises(EngineFailed, match="not finite"):
            other.add(bad[0])
        for vector in good[2:]:
            one.add(vector)
        np.testing.assert_array_equal(one.vector(), after(recurrence, good)[0])


def test_a_state_is_gone_with_its_stream(recurrence: Recurrence) -> None:
    assert recurrence.live == 0
    with recurrence.stream(Caller()) as stream:
        assert recurrence.live == 1
        with pytest.raises(InvalidInput, match="is zero"):
            stream.vector()
    assert recurrence.live == 0
    with pytest.raises(ValueError, match="on purpose"), recurrence.stream(Caller()):
        raise ValueError("on purpose")
    assert recurrence.live == 0


def test_who_has_left_is_not_stepped(recurrence: Recurrence) -> None:
    caller = Caller()
    with recurrence.stream(caller) as stream:
        stream.add(frames(0, 1)[0])
        caller.leave()
        with pytest.raises(Cancelled):
            stream.add(frames(0, 1)[0])
        assert stream.frames == 1


def test_a_token_carries_the_state_over() -> None:
    vectors = frames(5, 12)
    one, other = made(), made()
    whole, _ = after(one, vectors)
    _, token = after(one, vectors[:7])
    resumed, last = after(other, vectors[7:], token)
    np.testing.assert_array_equal(resumed, whole)
    with other.stream(Caller(), last) as stream:
        assert stream.frames == 12
        np.testing.assert_array_equal(stream.vector(), whole)
    one.close()
    other.close()


def altered(token: bytes, at: int, value: bytes) -> bytes:
    body = (token[:at] + value + token[at + len(value) :])[:-4]
    return body + struct.pack("<I", zlib.crc32(body))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda token: b"x", "is none"),
        (lambda token: b"MCR2" + token[4:], "is none"),
        (lambda token: token[:-1], "is damaged"),
        (lambda token: token[:90] + b"\xff" + token[91:], "is damaged"),
        (lambda token: altered(token, HEAD.size - 32, b"\0" * 8), "is of another GRU"),
        (lambda token: altered(token + bytes(4), 0, b"MCR1"), "is of another GRU"),
        (lambda token: altered(token, 4, b"\xff" * 8), "counts more frames than there can be"),
        (lambda token: altered(token, HEAD.size, struct.pack("<f", np.nan)), "holds NaN or infinity"),
        (lambda token: altered(token, HEAD.size + 8, struct.pack("<f", np.inf)), "holds NaN or infinity"),
    ],
)
def test_what_is_no_token_is_refused(recurrence: Recurrence, spoil: object, message: str) -> None:
    assert callable(spoil)
    _, token = after(recurrence, frames(6, 3))
    with pytest.raises(InvalidInput, match=message) as caught, recurrence.stream(Caller(), spoil(token)):
        pass
    assert (caught.value.reason, caught.value.field) == ("RESUME_TOKEN", "resume")
    assert recurrence.live == 0


def test_a_token_of_other_models_is_refused(recurrence: Recurrence) -> None:
    _, token = after(recurrence, frames(6, 3))
    other = made(EncoderIdentity("some", "2", "cd" * 32, SIZE))
    with pytest.raises(EncoderMismatch, match="another encoder"), other.stream(Caller(), token):
        pass
    slower = made(half_life=9)
    with pytest.raises(InvalidInput, match="another GRU"), slower.stream(Caller(), token):
        pass
    other.close()
    slower.close()


def test_a_trained_one_is_taken_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(gru.write(gru.decaying_mean(SIZE, 1.0)))
    mine = Recurrence(ENCODER, lambda: temporal.step(path, dimensions=SIZE, half_life=HALF_LIFE))
    vectors = frames(7, 5)
    wanted = made(half_life=1.0)
    np.testing.assert_array_equal(after(mine, vectors)[0], after(wanted, vectors)[0])
    mine.close()
    wanted.close()


def test_what_is_no_step_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(gru.write(gru.decaying_mean(SIZE + 1, 1.0)))
    wrong = Recurrence(ENCODER, lambda: graph.read(path))
    for _ in range(2):  # not only the first time
        with pytest.raises(EngineFailed, match=r"takes x \(n, 32\) and h"), wrong.stream(Caller()):
            pass
    missing = Recurrence(ENCODER, lambda: graph.read(tmp_path / "none.onnx"))
    with pytest.raises(EngineFailed, match=r"none\.onnx cannot be read"), missing.stream(Caller()):
        pass


def test_without_onnx_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: gru.Weights) -> bytes:
        raise ImportError("No module named 'onnx'", name="onnx")

    monkeypatch.setattr(gru, "write", absent)
    with pytest.raises(EngineFailed, match=r'pip install "matchcut\[encoder\]", or give a trained one with --gru'):
        temporal.step(None, dimensions=SIZE, half_life=HALF_LIFE)
