"""Events as callers tell them, made into what is kept of them, and the events of many calls at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from matchcut.server.errors import InvalidInput
from matchcut.server.events import rows, schema
from matchcut.server.events.changing import Change, Tenant
from matchcut.server.events.pseudonyms import Pseudonyms
from matchcut.server.events.rows import Row
from matchcut.server.events.strengths import UNIT, strength
from matchcut.server.records import Event

_LATEST_US = (1 << 63) - 1


class Append(NamedTuple):
    """What one call brings."""

    tenant: Tenant
    rows: list[Row]


def kept(pseudonyms: Pseudonyms, events: Sequence[Event]) -> list[Row]:
    """Rows of the events, in that order.

    Raises:
        InvalidInput: one lacks an id, or something is out of range; the field says which, as in "events[3].weight".
    """
    users: dict[str, bytes] = {}
    made = []
    for at, event in enumerate(events):
        try:
            units = int(strength(event) * UNIT)
            _check(event)
        except InvalidInput as error:
            raise InvalidInput(error.message, field=f"events[{at}].{error.field}") from error
        user = users.get(event.user_id)
        if user is None:
            user = users[event.user_id] = pseudonyms.user(event.user_id)
        session = pseudonyms.session(event.session_id) if event.session_id else rows.NONE
        shown_by = pseudonyms.recommendation(event.recommendation_id) if event.recommendation_id else rows.NONE
        digest, kind = pseudonyms.event(event.event_id), schema.NUMBERS[event.kind]
        made.append(Row(user, digest, event.time_us, event.item_id, kind, units, session, shown_by))
    return made


def _check(event: Event) -> None:
    for field in ("event_id", "user_id", "item_id"):
        if not getattr(event, field):
            raise InvalidInput(f"{field} is empty; give one", field=field)
    if not 0 <= event.time_us <= _LATEST_US:
        raise InvalidInput(f"time_us is {event.time_us}; give microseconds since 1970", field="time_us")


def apply(change: Change, appends: Sequence[Append]) -> list[list[bool]]:
    """Which events of each call are new; all calls of a tenant at once."""
    tenants: dict[Tenant, list[int]] = {}
    for at, append in enumerate(appends):
        tenants.setdefault(append.tenant, []).append(at)
    made: list[list[bool]] = [[] for _ in appends]
    for tenant, places in tenants.items():
        news = iter(change.append(tenant, [row for at in places for row in appends[at].rows]))
        for at in places:
            made[at] = list(islice(news, len(appends[at].rows)))
    return made
