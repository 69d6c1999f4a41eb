"""Experiments: who is in which, and what may stand in their file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matchcut.server.blend import Experiments, load, parse
from matchcut.server.errors import InvalidInput
from matchcut.server.records import Assignment, PersonalOptions

TWO = """
[[experiments]]
name = "diversity"
salt = "diversity-1"
share = 0.5

[[experiments.variants]]
name = "control"

[[experiments.variants]]
name = "diverse"
weight = 3
options = { mmr_lambda = 0.6, freshness = 1 }

[[experiments]]
name = "explore"
variants = [{ name = "on", options = { exploration = 0.1 } }]
"""
EXPECTED = ["on", "diverse", "on", "on", "diverse", "on", "diverse", "diverse", "on", "on", "control", "on"]
USERS = [f"user-{number}" for number in range(20_000)]


def dealt(experiments: Experiments, tenant: str = "") -> list[Assignment]:
    return [experiments.assign(tenant, user) for user in USERS]


def split(salt: str, share: float = 1, variants: int = 2) -> Experiments:
    named = "".join(f'[[experiments.variants]]\nname = "{index}"\n' for index in range(variants))
    return parse(f'[[experiments]]\nname = "e"\nsalt = "{salt}"\nshare = {share}\n{named}', "here")


def chi_square(observed: list[int], expected: list[float]) -> float:
    return sum((seen - meant) ** 2 / meant for seen, meant in zip(observed, expected, strict=True))


def test_the_split_is_by_share_and_weight() -> None:
    """Chi-square over the four fates of 20,000 users; 16.3 is exceeded by chance once in a thousand (3 degrees)."""
    counts = Counter(dealt(parse(TWO, "here")))
    fates = [Assignment("diversity", "control"), Assignment("diversity", "diverse"), Assignment("explore", "on")]
    assert counts.keys() == set(fates)
    assert chi_square([counts[fate] for fate in fates], [2500, 7500, 10_000]) < 13.8  # 2 degrees of freedom


def test_many_variants_are_equally_likely() -> None:
    counts = Counter(assignment.variant for assignment in dealt(split("s", variants=10)))
    assert len(counts) == 10
    assert chi_square(list(counts.values()), [2000] * 10) < 27.9  # 9 degrees, one in a thousand


def test_nobody_moves() -> None:
    """The very fates of these users are part of the contract: whoever upgrades the server stays in their variant."""
    made = parse(TWO, "here")
    assert [made.assign("shop", f"u{number}").variant for number in range(12)] == EXPECTED
    assert dealt(parse(TWO, "there"))[:500] == dealt(made)[:500]


def test_a_share_that_grows_keeps_whom_it_had() -> None:
    before, after = dealt(split("s", 0.2)), dealt(split("s", 0.6))
    inside = [index for index, assignment in enumerate(before) if assignment.experiment]
    assert len(inside) == pytest.approx(4000, abs=230)
    assert all(before[index] == after[index] for index in inside)
    assert sum(bool(assignment.experiment) for assignment in after) == pytest.approx(12_000, abs=280)


@pytest.mark.parametrize("other", ["salt", "tenant"])
def test_salts_and_tenants_are_independent(other: str) -> None:
    """Chi-square of the 2 x 2 table of two splits; 10.8 is exceeded by chance once in a thousand (1 degree)."""
    one = dealt(split("a"), "t")
    two = dealt(split("b"), "t") if other == "salt" else dealt(split("a"), "u")
    counts = Counter((first.variant, second.variant) for first, second in zip(one, two, strict=True))
    assert chi_square([counts[cell] for cell in (("0", "0"), ("0", "1"), ("1", "0"), ("1", "1"))], [5000] * 4) < 16.3


def test_being_held_says_nothing_of_the_variant() -> None:
    held = Counter(assignment.variant for assignment in dealt(split("s", 0.05)) if assignment.experiment)
    total = held.total()
    assert total > 800
    assert chi_square([held["0"], held["1"]], [total / 2] * 2) < 10.8


def test_tenant_and_user_are_not_run_together() -> None:
    made = split("s", variants=1000)
    assert made.assign("ab", "c") != made.assign("a", "bc")


@given(st.text(), st.text())
@settings(max_examples=50, deadline=None)
def test_any_ids_are_dealt(tenant: str, user: str) -> None:
    assigned = split("s").assign(tenant, user)
    assert assigned.variant in (("0", "1") if user else ("",))


def test_half_of_a_surrogate_pair_is_an_id_too() -> None:
    assert split("s").assign("", "\ud800").variant in ("0", "1")


def test_no_user_and_no_experiments_have_no_variant() -> None:
    assert parse(TWO, "here").assign("t", "") == Assignment()
    assert Experiments().assign("t", "u") == Assignment()
    assert not any(assignment.experiment for assignment in dealt(split("s", 0)))
    assert all(assignment.experiment for assignment in dealt(split("s", 1)))


def test_what_is_asked_for_beats_the_variant_which_beats_the_defaults() -> None:
    made = parse(TWO, "here", PersonalOptions(popularity=0.3, freshness=0.7))
    diverse = Assignment("diversity", "diverse")
    assert made.options(diverse, {"freshness": 0}) == PersonalOptions(mmr_lambda=0.6, freshness=0.0, popularity=0.3)
    assert made.options(diverse, {}) == PersonalOptions(mmr_lambda=0.6, freshness=1.0, popularity=0.3)
    assert made.options(Assignment(), {"cap": 2}) == PersonalOptions(popularity=0.3, freshness=0.7, cap=2)
    assert made.options(Assignment("diversity", "gone"), {}) == made.defaults
    with pytest.raises(InvalidInput, match=r"user_options\.cap"):
        made.options(diverse, {"cap": -1})


ONE = '[[experiments]]\nname = "e"\n'


@pytest.mark.parametrize(
    ("text", "field", "what"),
    [
        ("", "experiments", "at least one"),
        ("experiments = 3", "experiments", "at least one"),
        ("experiments = [1]", "experiments", "at least one"),
        ("[[experiment]]", "experiment", "did you mean 'experiments'"),
        ("[[experiments]", "experiments", "here: "),
        ("[[experiments]]", "experiments[0].name", "1 to 100 printable"),
        (ONE, "experiments[0].variants", "at least one"),
        (ONE + "variants = []", "experiments[0].variants", "at least one"),
        (ONE + "variants = [{}]", "experiments[0].variants[0].name", "printable"),
        (ONE + 'variants = [{name = "a\\n"}]', "experiments[0].variants[0].name", "printable"),
        (ONE + "variants = [{name = 3}]", "experiments[0].variants[0].name", "printable"),
        (ONE + f'variants = [{{name = "{"x" * 101}"}}]', "experiments[0].variants[0].name", "printable"),
        (ONE + 'share = 1.5\nvariants = [{name = "a"}]', "experiments[0].share", "between 0 and 1"),
        (ONE + 'share = nan\nvariants = [{name = "a"}]', "experiments[0].share", "number from 0"),
        (ONE + 'share = -0.1\nvariants = [{name = "a"}]', "experiments[0].share", "number from 0"),
        (ONE + 'share = true\nvariants = [{name = "a"}]', "experiments[0].share", "number from 0"),
        (ONE + 'salt = ""\nvariants = [{name = "a"}]', "experiments[0].salt", "printable"),
        (ONE + 'wait = 1\nvariants = [{name = "a"}]', "experiments[0].wait", "there are: name, salt, share, variants"),
        (
            ONE + 'variants = [{name = "a", wieght = 1}]',
            "experiments[0].variants[0].wieght",
            "no such field; did you mean 'weight'.; there are: name, weight, options",
        ),
        (ONE + 'variants = [{name = "a", wieght = 1}]', "experiments[0].variants[0].wieght", "did you mean 'weight'"),
        (ONE + 'variants = [{name = "a", weight = 0}]', "experiments[0].variants[0].weight", "leave out"),
        (ONE + 'variants = [{name = "a", weight = inf}]', "experiments[0].variants[0].weight", "number from 0"),
        (ONE + 'variants = [{name = "a", options = 3}]', "experiments[0].variants[0].options", "a table"),
        (ONE + 'variants = [{name = "a", options = {cap = -1}}]', "experiments[0].variants[0].options.cap", "between"),
        (ONE + 'variants = [{name = "a", options = {mmr = 1}}]', "experiments[0].variants[0].options.mmr", "no such"),
        (ONE + 'variants = [{name = "a"}, {name = "a"}]', "experiments[0].variants[1].name", "there already"),
        (2 * (ONE + 'variants = [{name = "a"}]\n'), "experiments[1].name", "there already"),
        (
            ONE + 'variants = [{name = "a"}]\n[[experiments]]\nname = "f"\nsalt = "e"\nvariants = [{name = "a"}]',
            "experiments[1].salt",
            "there already",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, field: str, what: str) -> None:
    with pytest.raises(InvalidInput, match=what) as caught:
        parse(text, "here")
    assert caught.value.field == field
    assert caught.value.message.startswith("here: ")


def test_the_file(tmp_path: Path) -> None:
    path = tmp_path / "experiments.toml"
    path.write_text(TWO, encoding="utf-8")
    assert [one.name for one in load(path).running] == ["diversity", "explore"]
    path.write_bytes(b"name = '\xff'")
    with pytest.raises(InvalidInput, match="it is not UTF-8"):
        load(path)
    with pytest.raises(InvalidInput, match="No such file"):
        load(tmp_path / "none.toml")


def test_the_example_in_the_module_is_one() -> None:
    from matchcut.server.blend import experiments

    assert experiments.__doc__ is not None
    lines = experiments.__doc__.splitlines()
    text = "\n".join(line[4:] for line in lines if line.startswith("    "))
    assert [variant.name for variant in parse(text, "doc").running[0].variants] == ["control", "diverse"]
    assert np.isclose(parse(text, "doc").running[0].share, 0.2)
