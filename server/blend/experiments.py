"""Experiments: which users get which options, decided by a hash alone, so that nothing is stored and nobody moves.

    [[experiments]]
    name = "diversity"
    salt = "diversity-1"   # not given: the name; another salt deals the users anew
    share = 0.2            # of the users that no experiment above took; not given: 1

    [[experiments.variants]]
    name = "control"
    weight = 1             # not given: 1

    [[experiments.variants]]
    name = "diverse"
    options = { mmr_lambda = 0.6 }

A user is in one experiment at most, the first whose share holds them. A user's number within an experiment is from
SHA-256 over salt, tenant and user id: the first 8 bytes say whether the share holds them, so that a share that grows
keeps whom it had; the next 8 in which variant they are. Experiments of different salts are independent of each other.
"""

from __future__ import annotations

import hashlib
import tomllib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from matchcut.server.blend.choices import checked
from matchcut.server.errors import InvalidInput
from matchcut.server.options import suggestion
from matchcut.server.records import Assignment, PersonalOptions

__all__ = ["Experiment", "Experiments", "Variant", "load", "parse"]

LONGEST_NAME = 100  # characters; names stand in replies and in the log
FULL = 1 << 64


@dataclass(frozen=True, slots=True)
class Variant:
    """What some of the users of an experiment get. weight: above 0, by the sum of all. options: override defaults."""

    name: str
    weight: float
    options: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Experiment:
    """See the module. share: 0 to 1."""

    name: str
    salt: str
    share: float
    variants: tuple[Variant, ...]

    def variant(self, tenant: str, user_id: str) -> Variant | None:
        """The variant that the user would be in; None: the share does not hold them."""
        digest = hashlib.sha256()
        for part in (self.salt, tenant, user_id):
            written = part.encode("utf-8", "surrogatepass")
            digest.update(len(written).to_bytes(8, "big") + written)  # "ab", "c" is not "a", "bc"
        held, drawn = digest.digest()[:8], digest.digest()[8:16]
        if int.from_bytes(held, "big") >= self.share * FULL:
            return None
        ends = list(accumulate(variant.weight for variant in self.variants))
        place = bisect_right(ends, int.from_bytes(drawn, "big") / FULL * ends[-1])
        return self.variants[min(place, len(ends) - 1)]


@dataclass(frozen=True, slots=True)
class Experiments:
    """All that run, in order. defaults: the options of whoever is in none."""

    running: tuple[Experiment, ...] = ()
    defaults: PersonalOptions = field(default_factory=PersonalOptions)

    def assign(self, tenant: str, user_id: str) -> Assignment:
        """The variant that the user is in, always the same one; of an empty id none."""
        if user_id:
            for experiment in self.running:
                variant = experiment.variant(tenant, user_id)
                if variant:
                    return Assignment(experiment.name, variant.name)
        return Assignment()

    def options(self, assignment: Assignment, asked: Mapping[str, object]) -> PersonalOptions:
        """The defaults, over them the variant's options, over those what the caller asked for.

        Args:
            assignment: one that is not running any more has no options.
            asked: by field of PersonalOptions, see choices.checked().

        Raises:
            InvalidInput: what was asked for is no option, or out of bounds.
        """
        chosen = self.defaults
        for experiment in self.running:
            for variant in experiment.variants:
                if (experiment.name, variant.name) == (assignment.experiment, assignment.variant):
                    chosen = checked(chosen, variant.options, "")
        return checked(chosen, asked, "user_options")


def load(path: Path, defaults: PersonalOptions | None = None) -> Experiments:
    """The experiments of a TOML file.

    Raises:
        InvalidInput: it cannot be read, or holds what is no experiment; says where.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidInput(f"cannot read the experiments of {path}: {why}", field="experiments") from error
    return parse(text, str(path), defaults)


def parse(text: str, source: str, defaults: PersonalOptions | None = None) -> Experiments:
    """The experiments of a TOML text.

    Args:
        source: where it is from, for messages.
        defaults: options of whoever is in none; None: PersonalOptions().

    Raises:
        InvalidInput: as load().
    """
    defaults = defaults or PersonalOptions()
    try:
        written = tomllib.loads(text)
        _known(written, ("experiments",), "")
        found = [_experiment(one, place, defaults) for one, place in _tables(written, "experiments", "experiments")]
        _different([(one.name, f"experiments[{i}].name") for i, one in enumerate(found)])
        _different([(one.salt, f"experiments[{i}].salt") for i, one in enumerate(found)])
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{source}: {error}", field="experiments") from error
    except InvalidInput as error:
        raise InvalidInput(f"{source}: {error.message}", field=error.field) from error
    return Experiments(tuple(found), defaults)


def _experiment(table: Mapping[str, Any], place: str, defaults: PersonalOptions) -> Experiment:
    _known(table, ("name", "salt", "share", "variants"), place)
    name = _name(table, "name", place)
    salt = _name(table, "salt", place) if "salt" in table else name
    share = _number(table, "share", place)
    if share > 1:
        raise InvalidInput(f"{place}.share is {share}; it must be between 0 and 1", field=f"{place}.share")
    variants = []
    for one, where in _tables(table, "variants", f"{place}.variants"):
        _known(one, ("name", "weight", "options"), where)
        options = one.get("options", {})
        if not isinstance(options, dict):
            raise InvalidInput(f"{where}.options must be a table of options", field=f"{where}.options")
        checked(defaults, options, f"{where}.options")
        weight = _number(one, "weight", where)
        if not weight:
            raise InvalidInput(f"{where}.weight is 0; leave out a variant that nobody gets", field=f"{where}.weight")
        variants.append(Variant(_name(one, "name", where), weight, options))
    _different([(one.name, f"{place}.variants[{i}].name") for i, one in enumerate(variants)])
    return Experiment(name, salt, share, tuple(variants))


def _tables(table: Mapping[str, Any], key: str, place: str) -> list[tuple[Mapping[str, Any], str]]:
    found = table.get(key)
    if not isinstance(found, list) or not found or not all(isinstance(one, dict) for one in found):
        raise InvalidInput(f"there must be at least one [[{key}]] at {place}", field=place)
    return [(one, f"{place}[{index}]") for index, one in enumerate(found)]


def _known(table: Mapping[str, Any], names: tuple[str, ...], place: str) -> None:
    for name in table.keys() - set(names):
        where = f"{place}.{name}" if place else name
        known = ", ".join(names)
        message = f"{where}: there is no such field{suggestion(name, names)}; there are: {known}"
        raise InvalidInput(message, field=where)


def _name(table: Mapping[str, Any], key: str, place: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str) or not value or len(value) > LONGEST_NAME or not value.isprintable():
        raise InvalidInput(
            f"{place}.{key} must be a text of 1 to {LONGEST_NAME} printable characters", field=f"{place}.{key}"
        )
    return value


def _number(table: Mapping[str, Any], key: str, place: str) -> float:
    value = table.get(key, 1)
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9
    if not good:
        raise InvalidInput(f"{place}.{key} is {value!r}; it must be a number from 0", field=f"{place}.{key}")
    return float(value)


def _different(names: list[tuple[str, str]]) -> None:
    seen: set[str] = set()
    for name, place in names:
        if name in seen:
            raise InvalidInput(f"{place}: {name!r} is there already; give each its own", field=place)
        seen.add(name)
