"""One transaction of the log: what is appended and deleted, and what that makes of the numbers that are kept of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from matchcut.server.events import rows, schema
from matchcut.server.events.pseudonyms import Pseudonyms
from matchcut.server.events.rows import Row
from matchcut.server.records import Exposure, Receipt

Favoured = dict[str, int]  # by item: how many users it speaks for


@dataclass(slots=True, eq=False)
class Tenant:
    """What is known of a tenant. number: in the file, 0 where it is not there yet. The others: how many there are."""

    name: str
    pseudonyms: Pseudonyms
    number: int = 0
    events: int = 0
    users: int = 0
    exposures: int = 0


@dataclass(slots=True)
class _Sums:
    """What to add to a tenant's numbers; more, fewer: items, and bits of a user's mask that were set or taken away."""

    events: int = 0
    users: int = 0
    exposures: int = 0
    more: list[tuple[str, int]] = field(default_factory=list)
    fewer: list[tuple[str, int]] = field(default_factory=list)


class Change:
    """What is done in one transaction, which somebody else begins and ends.

    Args:
        db: in the transaction.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._sums: dict[Tenant, _Sums] = {}
        self._fresh: list[Tenant] = []
        self._favoured: dict[Tenant, Favoured] = {}

    def append(self, tenant: Tenant, wanted: Sequence[Row]) -> list[bool]:
        """Keeps events; which of them are new."""
        self._enter(tenant)
        known = self._known(schema.KNOWN_EVENTS, tenant, E=[row.event for row in wanted])
        news, seen = [], set()
        for at, row in enumerate(wanted):
            news.append(at not in known and row.event not in seen)
            seen.add(row.event)
        new = [row for row, is_new in zip(wanted, news, strict=True) if is_new]
        if new:
            users = {row.user: None for row in new}
            there = self._known(schema.KNOWN_USERS, tenant, U=list(users))
            self._insert(tenant, new)
            self._pair(tenant, new)
            sums = self._of(tenant)
            sums.events += len(new)
            sums.users += len(users) - len(there)
        return news

    def expose(self, tenant: Tenant, user: bytes, exposed: Exposure) -> None:
        """Keeps what was shown."""
        self._enter(tenant)
        recommendation = tenant.pseudonyms.recommendation(exposed.recommendation_id)
        values = tenant.number, user, exposed.time_us, recommendation, *rows.exposure(exposed)
        self._db.execute(schema.EXPOSE, values)
        self._of(tenant).exposures += 1

    def introduce(self, tenant: Tenant, times_us: dict[str, int]) -> None:
        """Keeps when items were first heard of, where it is not known yet."""
        self._enter(tenant)
        self._db.executemany(schema.INTRODUCE, [(tenant.number, *entry) for entry in times_us.items()])

    def forget(self, tenant: Tenant, user: bytes) -> tuple[int, int]:
        """Deletes all of a user: events and exposures, how many."""
        whose, sums = (tenant.number, user), self._of(tenant)
        for item_id, mask in self._db.execute(schema.ITEMS_OF, whose).fetchall():
            self._tally(tenant, item_id, mask, 0)
        events, exposures, _ = (self._db.execute(statement, whose).rowcount for statement in schema.FORGET)
        sums.events -= events
        sums.exposures -= exposures
        sums.users -= events > 0
        return events, exposures

    def trim(self, tenant: Tenant, user: bytes, before_us: int, most: int) -> int:
        """Deletes a user's events that are older than a time, and the oldest beyond so many (0: any number)."""
        whose = tenant.number, user
        cut = (before_us, b"")
        if most and (excess := self._db.execute(schema.EXCESS, (*whose, most)).fetchone()):
            cut = max(cut, excess)
        touched = [item_id for (item_id,) in self._db.execute(schema.OLD_ITEMS, (*whose, *cut)).fetchall()]
        if not touched:
            return 0
        deleted = self._db.execute(schema.TRIM, (*whose, *cut)).rowcount
        stays: dict[str, int] = {}
        for item_id, kind, speaks_for in self._db.execute(schema.STAYS, whose).fetchall():
            stays[item_id] = stays.get(item_id, 0) | _bits(kind, speaks_for)
        had = dict(self._db.execute(schema.ITEMS_OF, whose).fetchall())
        for item_id in touched:
            left = stays.get(item_id, 0)
            self._tally(tenant, item_id, had[item_id], left)
            if left:
                self._db.execute(schema.SET_MASK, (left, *whose, item_id))
            else:
                self._db.execute(schema.DROP_PAIR, (*whose, item_id))
        sums = self._of(tenant)
        sums.events -= deleted
        sums.users -= not stays
        return deleted

    def exceeds(self, tenant: Tenant, user: bytes, most: int) -> bool:
        """Whether a user has more events than that."""
        return self._db.execute(schema.EXCESS, (tenant.number, user, most)).fetchone() is not None

    def certify(self, receipt: Receipt, nonce: bytes) -> None:
        """Keeps a receipt."""
        values = bytes.fromhex(receipt.digest), receipt.events, receipt.exposures, receipt.time_us, nonce
        self._db.execute(schema.RECEIPT, values)

    def age_exposures(self, tenants: dict[int, Tenant], before_us: int, count: int) -> int:
        """Deletes those of the `count` exposures kept first that are older than a time; how many."""
        gone = self._db.execute(schema.OLD_EXPOSURES, {"before": before_us, "n": count}).fetchall()
        for (number,) in gone:
            self._of(tenants[number]).exposures -= 1
        return len(gone)

    def write(self) -> None:
        """Puts down the numbers; the last thing to be done in the transaction."""
        for tenant, sums in self._sums.items():
            totals = sums.events, sums.users, sums.exposures
            if any(totals):
                self._db.execute(schema.TOTALS, (*totals, tenant.number))
            for sign, tallied in ((1, sums.more), (-1, sums.fewer)):
                if tallied:
                    item_ids, masks = zip(*tallied, strict=True)
                    self._db.execute(schema.TALLY, rows.items(item_ids, masks) | _whose(tenant) | {"sign": sign})
            if sums.fewer:
                self._db.execute(schema.UNTALLY, rows.items({item_id for item_id, _ in sums.fewer}) | _whose(tenant))
            speaks_for = 1 << schema.FOR
            favoured = list({item_id: None for item_id, bits in (*sums.more, *sums.fewer) if bits & speaks_for})
            if favoured:
                answer = self._db.execute(schema.FAVOURED, rows.items(favoured) | _whose(tenant)).fetchone()[0]
                found = rows.pairs(answer)
                self._favoured[tenant] = {item_id: found.get(at, 0) for at, item_id in enumerate(favoured)}

    def committed(self) -> dict[Tenant, Favoured]:
        """Tells the tenants their numbers; by tenant and item, for how many users it speaks where that has changed."""
        for tenant, sums in self._sums.items():
            tenant.events += sums.events
            tenant.users += sums.users
            tenant.exposures += sums.exposures
        return self._favoured

    def undone(self) -> None:
        """The transaction was rolled back."""
        for tenant in self._fresh:
            tenant.number = 0

    def _enter(self, tenant: Tenant) -> None:
        if not tenant.number:
            number = self._db.execute(schema.NEW_TENANT, (tenant.name, tenant.pseudonyms.salt)).lastrowid
            assert number is not None
            tenant.number = number
            self._fresh.append(tenant)

    def _of(self, tenant: Tenant) -> _Sums:
        return self._sums.setdefault(tenant, _Sums())

    def _known(self, statement: str, tenant: Tenant, **digests: list[bytes]) -> set[int]:
        ((name, values),) = digests.items()
        if not values:
            return set()
        parameters = {name: b"".join(values), "n": len(values)} | _whose(tenant)
        return rows.numbers(self._db.execute(statement, parameters).fetchone()[0])

    def _insert(self, tenant: Tenant, new: Sequence[Row]) -> None:
        users, events, times_us, item_ids, kinds, strengths, sessions, recommendations = zip(*new, strict=True)
        parameters = rows.items(item_ids, times_us, kinds, strengths) | _whose(tenant)
        blobs = {"U": users, "E": events, "S": sessions, "R": recommendations}
        self._db.execute(schema.INSERT, parameters | {name: b"".join(parts) for name, parts in blobs.items()})

    def _pair(self, tenant: Tenant, new: Sequence[Row]) -> None:
        """Notes who did what with which item, and counts users for whom that is new."""
        added: dict[tuple[bytes, str], int] = {}
        for row in new:
            pair = row.user, row.item_id
            added[pair] = added.get(pair, 0) | _bits(row.kind, row.strength > 0)
        answer = self._db.execute(schema.MASKS, _pairs(added) | _whose(tenant)).fetchone()[0]
        masks, had = {}, rows.pairs(answer)
        for at, (pair, bits) in enumerate(added.items()):
            before = had.get(at, 0)
            if bits & ~before:
                masks[pair] = before | bits
                self._tally(tenant, pair[1], before, before | bits)
        if masks:
            self._db.execute(schema.SET_MASKS, _pairs(masks, list(masks.values())) | _whose(tenant))

    def _tally(self, tenant: Tenant, item_id: str, before: int, after: int) -> None:
        """Counts that a user's mask of an item has changed."""
        sums = self._of(tenant)
        if after & ~before:
            sums.more.append((item_id, after & ~before))
        if before & ~after:
            sums.fewer.append((item_id, before & ~after))


def _bits(kind: int, speaks_for: bool) -> int:
    """What an event of a kind adds to a mask."""
    return 1 << schema.ANY | bool(speaks_for) << schema.FOR | 1 << schema.FIRST_KIND + kind - 1


def _pairs(pairs: Iterable[tuple[bytes, str]], *more: Sequence[int]) -> dict[str, object]:
    users, item_ids = zip(*pairs, strict=True)
    return rows.items(item_ids, *more) | {"U": b"".join(users)}


def _whose(tenant: Tenant) -> dict[str, object]:
    return {"tenant": tenant.number}
