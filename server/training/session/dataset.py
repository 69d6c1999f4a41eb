"""What a session model is trained on: who did what when, and what the items are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from matchcut.server.errors import InvalidInput
from matchcut.server.evaluation.interactions import Interactions
from matchcut.server.evaluation.metrics import Indices
from matchcut.server.records import EncoderIdentity, Floats

__all__ = ["GIVEN", "NO_ENCODER", "Dataset", "made"]

# Of a model that was trained without vectors: a server refuses it, as no encoder is called so.
NO_ENCODER = EncoderIdentity("none", "none", "none", 1)
GIVEN = "given"  # name and digest of an encoder of which nothing is known but its vectors; a server refuses it, too

Row = tuple[str, str, int, float]


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Events that speak for an item, and what each item is.

    events: of strength above 0 only, its weights are the strengths; in the order in which they happened where two are
    of the same second. Items without an event are among its items where they have a vector.
    content: (items, c) float32, rows of unit length, or zero where an item has none; c is the encoder's dimensions.
    """

    events: Interactions
    content: Floats
    encoder: EncoderIdentity

    @property
    def has_content(self) -> bool:
        """Whether any item has a vector."""
        return self.encoder is not NO_ENCODER

    def only(self, rows: Indices) -> Dataset:
        """The same items with these events alone."""
        return Dataset(self.events.take(rows), self.content, self.encoder)

    def digest(self) -> str:
        """SHA-256 over all of it, in hexadecimal: whether a checkpoint is of the same data."""
        found = hashlib.sha256(repr((self.encoder, self.events.shape)).encode())
        for part in (self.events.users, self.events.items, self.events.weights, self.events.times, self.content):
            found.update(np.ascontiguousarray(part).tobytes())
        found.update("\0".join(self.events.item_ids).encode("utf-8", "surrogatepass"))
        return found.hexdigest()


def made(
    rows: list[Row], vectors: Mapping[str, Floats] | None = None, encoder: EncoderIdentity | None = None
) -> Dataset:
    """A data set from rows of (user, item, time in microseconds, strength), in any order.

    Rows of the same user and time keep the order they are given in. Rows of strength 0 or less are left out: a user's
    state is not made of them.

    Args:
        vectors: of items, each of the encoder's dimensions; brought to unit length here. Items with a vector and no
            event are items all the same.

    Raises:
        InvalidInput: nothing is left, a strength is above 1 or not finite, or a vector has another length, is zero or
            not finite.
    """
    strengths = np.array([row[3] for row in rows], np.float64)
    if not np.all(np.isfinite(strengths)) or np.any(strengths > 1):
        raise InvalidInput("strengths must be numbers up to 1", field="strength")
    kept = [row for row in rows if row[3] > 0]
    if not kept:
        raise InvalidInput("no event speaks for an item: give events of strength above 0", field="events")
    users: dict[str, int] = {}
    for user, _, _, _ in kept:
        users.setdefault(user, len(users))
    # In the order of their names, which says nothing of who came when.
    items = {item: at for at, item in enumerate(sorted({row[1] for row in kept}.union(vectors or ())))}
    order = np.argsort(np.array([row[2] for row in kept], np.int64), kind="stable")
    kept = [kept[at] for at in order]
    events = Interactions(
        users=np.array([users[row[0]] for row in kept], np.int64),
        items=np.array([items[row[1]] for row in kept], np.int64),
        weights=np.array([row[3] for row in kept], np.float64),
        times=np.array([row[2] // 1_000_000 for row in kept], np.int64),
        user_ids=tuple(users),
        item_ids=tuple(items),
    )
    content, identity = laid_out(vectors or {}, tuple(items), encoder)
    return Dataset(events, content, identity)


def laid_out(
    vectors: Mapping[str, Floats], item_ids: tuple[str, ...], encoder: EncoderIdentity | None
) -> tuple[Floats, EncoderIdentity]:
    """(items, c) vectors of unit length in the order of the ids, zero where there is none, and whose they are."""
    if not vectors:
        return np.zeros((len(item_ids), 1), np.float32), NO_ENCODER
    size = len(next(iter(vectors.values())))
    identity = encoder or EncoderIdentity(GIVEN, "1", GIVEN, size)
    content = np.zeros((len(item_ids), identity.dimensions), np.float32)
    for at, item in enumerate(item_ids):
        vector = vectors.get(item)
        if vector is None:
            continue
        wide = np.asarray(vector, np.float64)
        if wide.shape != (identity.dimensions,):
            raise InvalidInput(
                f"the vector of item {item!r} has shape {wide.shape}, not ({identity.dimensions},)", field="vectors"
            )
        length = float(np.linalg.norm(wide))
        if not np.isfinite(length) or length == 0:
            raise InvalidInput(
                f"the vector of item {item!r} is zero, or holds NaN or infinity; leave the item out, or make it anew",
                field="vectors",
            )
        content[at] = wide / length
    return content, identity
