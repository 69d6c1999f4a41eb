"""What training takes: rows in any order, items in the order of their names, vectors of unit length."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matchcut.server.errors import InvalidInput
from matchcut.server.records import EncoderIdentity, Floats
from matchcut.server.training.session.dataset import NO_ENCODER, Row, made
from matchcut.server.training.session.judging import histories, parted

SECOND = 1_000_000


def test_items_are_in_the_order_of_their_names_and_have_vectors_of_unit_length() -> None:
    rows = [("u", "b", 3 * SECOND, 1.0), ("u", "a", SECOND, 0.5), ("v", "b", 2 * SECOND, 1.0)]
    data = made(
        rows, {"c": np.array([3, 4], np.float32), "b": np.array([0, 2], np.float32)}, EncoderIdentity("e", "1", "x", 2)
    )
    assert data.events.item_ids == ("a", "b", "c")
    assert np.allclose(data.content, np.array([[0, 0], [0, 1], [0.6, 0.8]]))
    assert data.has_content
    (first, strengths), (second, _) = histories(data)
    assert (first.tolist(), strengths.tolist(), second.tolist()) == ([0, 1], [0.5, 1.0], [1])


def test_without_vectors_there_is_no_content() -> None:
    data = made([("u", "a", 0, 1.0)])
    assert data.encoder is NO_ENCODER
    assert not data.has_content
    assert data.content.shape == (1, 1)


@given(st.permutations(range(8)))
def test_the_order_of_rows_does_not_matter_where_times_differ(order: list[int]) -> None:
    rows: list[Row] = [(f"u{at % 2}", f"i{at % 3}", at * 500_000, 1.0) for at in range(8)]
    found, wanted = (histories(made(each)) for each in ([rows[at] for at in order], rows))
    users = {tuple(items) for items, _ in found}
    assert users == {tuple(items) for items, _ in wanted}


def test_what_speaks_against_an_item_is_left_out() -> None:
    data = made([("u", "a", 0, -1.0), ("u", "b", 1, 0.0), ("u", "c", 2, 0.25)])
    assert data.events.item_ids == ("c",)


@pytest.mark.parametrize(
    ("rows", "vectors", "says"),
    [
        ([], None, "no event speaks for an item"),
        ([("u", "a", 0, -1.0)], None, "no event speaks for an item"),
        ([("u", "a", 0, float("nan"))], None, "strengths must be"),
        ([("u", "a", 0, 1.5)], None, "strengths must be"),
        ([("u", "a", 0, 1.0)], {"a": np.array([np.nan, 1], np.float32)}, "'a' is zero, or holds NaN"),
        ([("u", "a", 0, 1.0)], {"a": np.array([np.inf, 1], np.float32)}, "'a' is zero, or holds NaN"),
        ([("u", "a", 0, 1.0)], {"a": np.array([0, 0], np.float32)}, "'a' is zero, or holds NaN"),
        (
            [("u", "a", 0, 1.0)],
            {"b": np.array([1, 0], np.float32), "a": np.array([1], np.float32)},
            r"shape \(1,\), not \(2,\)",
        ),
    ],
)
def test_bad_data_is_refused(rows: list[Row], vectors: dict[str, Floats] | None, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        made(rows, vectors)


def test_a_digest_tells_data_apart(rows: list[Row], vectors: dict[str, Floats], encoder: EncoderIdentity) -> None:
    same = made(rows, vectors, encoder).digest()
    assert made(list(rows), dict(vectors), encoder).digest() == same
    assert made(rows[:-1], vectors, encoder).digest() != same
    assert made(rows, {**vectors, "i00": -vectors["i00"]}, encoder).digest() != same
    assert made([(*rows[0][:3], 0.75), *rows[1:]], vectors, encoder).digest() != same


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6))
def test_each_users_last_item_is_the_tests_and_the_one_before_validations(lengths: list[int]) -> None:
    rows = [(f"u{user}", f"i{at}", at * SECOND, 1.0) for user, n in enumerate(lengths) for at in range(n)]
    split = parted(histories(made(rows)))
    tested = [n for n in lengths if n >= 3]
    assert [len(items) for items, _ in split.train] == [n - 2 if n >= 3 else n for n in lengths]
    assert split.test.targets.tolist() == [n - 1 for n in tested]
    assert split.validation.targets.tolist() == [n - 2 for n in tested]
    assert [items.tolist() for items, _ in split.test.histories] == [list(range(n - 1)) for n in tested]
    assert split.test.users.tolist() == [user for user, n in enumerate(lengths) if n >= 3]
