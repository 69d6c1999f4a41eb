"""How the log of events lies in its SQLite file, and the statements that read and write it.

Many rows go to and fro in one statement: in as slices of a few blobs, out as JSON or as numbers with commas between.
Python lets another thread run at every step of a statement, and takes milliseconds to come back where that thread is
busy; a statement for each row would make 20,000 such steps a second.

    n   how many rows; j.key is the row's number, from 0
    N   numbers in decimal, WIDTH characters each, :k in a row
    U   users' digests one after the other, E events', both 16 bytes
    I   UTF-8 of the items' ids one after the other; the first two numbers of a row are where its id starts, from 1, and
        its length
"""

from __future__ import annotations

from matchcut.server.records import EventKind

APPLICATION = 0x4D434556  # "MCEV", in the header of the file
VERSION = 1
PAGE = 4096  # bytes
WIDTH = 20  # characters: any integer of 64 bits
# The first byte of a page tells B-tree pages from others (see scrub) only while page numbers stay below 2^25.
MOST_PAGES = (1 << 25) - 1

# The order is the number on the disk, from 1: only ever append.
KINDS = (
    EventKind.IMPRESSION,
    EventKind.CLICK,
    EventKind.WATCH,
    EventKind.LIKE,
    EventKind.DISLIKE,
    EventKind.SKIP,
    EventKind.SAVE,
    EventKind.SHARE,
    EventKind.PURCHASE,
)
NUMBERS = {kind: number for number, kind in enumerate(KINDS, 1)}
# What is counted of an item: users who did anything, for whom it spoke, who did each kind. A mask has a bit for each.
ANY, FOR = 0, 1
COUNTED = ("users", "favoured", *(kind.value for kind in KINDS))
FIRST_KIND = 2

# tenants: `events`, `users` and `exposures` are how many there are. events: strength in units of 1/strengths.UNIT;
# session and recommendation are digests. pairs: what a user did with an item at least once. tallies: users by item.
# receipts: the digest is SHA-256 over the other columns, see receipts.digest.
SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE tenants (
    tenant INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, salt BLOB NOT NULL,
    events INTEGER NOT NULL DEFAULT 0, users INTEGER NOT NULL DEFAULT 0, exposures INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE events (
    tenant INTEGER NOT NULL, user BLOB NOT NULL, time_us INTEGER NOT NULL, event BLOB NOT NULL,
    item_id TEXT NOT NULL, kind INTEGER NOT NULL, strength INTEGER NOT NULL, session BLOB, recommendation BLOB,
    PRIMARY KEY (tenant, user, time_us, event)
) WITHOUT ROWID;
CREATE UNIQUE INDEX event_ids ON events (tenant, event);
CREATE TABLE pairs (
    tenant INTEGER NOT NULL, user BLOB NOT NULL, item_id TEXT NOT NULL, mask INTEGER NOT NULL,
    PRIMARY KEY (tenant, user, item_id)
) WITHOUT ROWID;
CREATE TABLE tallies (
    tenant INTEGER NOT NULL, item_id TEXT NOT NULL, {", ".join(f"{name} INTEGER NOT NULL" for name in COUNTED)},
    PRIMARY KEY (tenant, item_id)
) WITHOUT ROWID;
CREATE TABLE exposures (
    exposure INTEGER PRIMARY KEY,
    tenant INTEGER NOT NULL, user BLOB NOT NULL, time_us INTEGER NOT NULL, recommendation BLOB NOT NULL,
    experiment TEXT NOT NULL, variant TEXT NOT NULL, model TEXT NOT NULL, shown TEXT NOT NULL
);
CREATE INDEX exposed ON exposures (tenant, user, time_us);
CREATE TABLE introduced (
    tenant INTEGER NOT NULL, item_id TEXT NOT NULL, time_us INTEGER NOT NULL, PRIMARY KEY (tenant, item_id)
) WITHOUT ROWID;
CREATE TABLE receipts (
    digest BLOB PRIMARY KEY, events INTEGER NOT NULL, exposures INTEGER NOT NULL, time_us INTEGER NOT NULL,
    nonce BLOB NOT NULL
) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
COMMIT;
"""


def _number(at: int) -> str:
    return f"CAST(substr(:N, 1 + {WIDTH} * (:k * j.key + {at}), {WIDTH}) AS INTEGER)"


_USER, _EVENT = "substr(:U, 1 + 16 * j.key, 16)", "substr(:E, 1 + 16 * j.key, 16)"
_ITEM = f"CAST(substr(:I, {_number(0)}, {_number(1)}) AS TEXT)"
_ROWS = "WITH RECURSIVE j (key) AS (SELECT 0 UNION ALL SELECT key + 1 FROM j WHERE key + 1 < :n)"

TENANTS = "SELECT tenant, name, salt, events, users, exposures FROM tenants"
NEW_TENANT = "INSERT INTO tenants (name, salt) VALUES (?, ?)"
TOTALS = "UPDATE tenants SET events = events + ?, users = users + ?, exposures = exposures + ? WHERE tenant = ?"
# Which of n events, or users, are there already: numbers with commas between, NULL for none.
KNOWN_EVENTS = f"""
{_ROWS} SELECT group_concat(j.key) FROM j
WHERE EXISTS (SELECT 1 FROM events WHERE tenant = :tenant AND event = {_EVENT})
"""
KNOWN_USERS = f"""
{_ROWS} SELECT group_concat(j.key) FROM j
WHERE EXISTS (SELECT 1 FROM events WHERE tenant = :tenant AND user = {_USER})
"""
# N: start, length, time, kind, strength. S, R: digests of sessions and recommendations, 0 for none.
INSERT = f"""
{_ROWS} INSERT INTO events (tenant, user, time_us, event, item_id, kind, strength, session, recommendation)
SELECT :tenant, {_USER}, {_number(2)}, {_EVENT}, {_ITEM}, {_number(3)}, {_number(4)},
    nullif(substr(:S, 1 + 16 * j.key, 16), zeroblob(16)), nullif(substr(:R, 1 + 16 * j.key, 16), zeroblob(16))
FROM j
"""
# N: start, length, mask. The masks that are there, as "number:mask" with commas between.
MASKS = f"""
{_ROWS} SELECT group_concat(j.key || ':' || pairs.mask) FROM j CROSS JOIN pairs
WHERE pairs.tenant = :tenant AND pairs.user = {_USER} AND pairs.item_id = {_ITEM}
"""
SET_MASKS = f"""
{_ROWS} INSERT OR REPLACE INTO pairs (tenant, user, item_id, mask)
SELECT :tenant, {_USER}, {_ITEM}, {_number(2)} FROM j
"""
# N: start, length, the bits of a mask that are added to the tallies (:sign 1) or taken off (-1).
TALLY = f"""
{_ROWS}, bits (item_id, mask) AS MATERIALIZED (SELECT {_ITEM}, {_number(2)} FROM j)
INSERT INTO tallies (tenant, item_id, {", ".join(COUNTED)})
SELECT :tenant, item_id, {", ".join(f":sign * (mask >> {at} & 1)" for at in range(len(COUNTED)))} FROM bits WHERE true
ON CONFLICT (tenant, item_id) DO UPDATE SET {", ".join(f"{name} = {name} + excluded.{name}" for name in COUNTED)}
"""
# N: start, length. Items that nobody has done anything with by now.
UNTALLY = f"""
{_ROWS} DELETE FROM tallies WHERE tenant = :tenant AND users = 0 AND item_id IN (SELECT {_ITEM} FROM j)
"""
FAVOURED = f"""
{_ROWS} SELECT group_concat(j.key || ':' || favoured) FROM j CROSS JOIN tallies
WHERE tallies.tenant = :tenant AND tallies.item_id = {_ITEM}
"""
# The next :n items of a tenant in the order of their ids, with how many users they speak for.
FAVOURED_AFTER = """
SELECT json_group_array(json_array(item_id, favoured)) FROM (
    SELECT item_id, favoured FROM tallies WHERE tenant = :tenant AND item_id > :after ORDER BY item_id LIMIT :n
)
"""
EXPOSE = """
INSERT INTO exposures (tenant, user, time_us, recommendation, experiment, variant, model, shown)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
INTRODUCE = "INSERT OR IGNORE INTO introduced (tenant, item_id, time_us) VALUES (?, ?, ?)"
INTRODUCED = f"""
{_ROWS} SELECT json_group_array(json_array(j.key, introduced.time_us)) FROM j CROSS JOIN introduced
WHERE introduced.tenant = :tenant AND introduced.item_id = {_ITEM}
"""
# Of n users, everything, in order.
EVENTS_OF = f"""
{_ROWS} SELECT json_group_array(json_array(j.key, e.time_us, hex(e.event), e.item_id, e.kind, e.strength))
FROM j CROSS JOIN events e WHERE e.tenant = :tenant AND e.user = {_USER}
"""
COUNTS = f"""
{_ROWS} SELECT json_group_array(json_array(j.key, {", ".join(COUNTED)})) FROM j CROSS JOIN tallies
WHERE tallies.tenant = :tenant AND tallies.item_id = {_ITEM}
"""
# By the number that is published: the order tells no more than the numbers do.
MOST = f"""
SELECT json_group_array(json_array(item_id, {", ".join(COUNTED)})) FROM (
    SELECT * FROM tallies WHERE tenant = :tenant AND users >= :threshold ORDER BY users / :step DESC, item_id LIMIT :n
)
"""

# What belongs to one user, and how it goes.
ITEMS_OF = "SELECT item_id, mask FROM pairs WHERE tenant = ? AND user = ?"
FORGET = (
    "DELETE FROM events WHERE tenant = ? AND user = ?",
    "DELETE FROM exposures WHERE tenant = ? AND user = ?",
    "DELETE FROM pairs WHERE tenant = ? AND user = ?",
)
RECEIPT = "INSERT INTO receipts (digest, events, exposures, time_us, nonce) VALUES (?, ?, ?, ?, ?)"

# Retention. Of the next :n users of a tenant: the last one, how many there are, and those of whom something is older
# than :before or who have more than :most events (0: any number).
SWEEP = """
WITH RECURSIVE u (user) AS (
    SELECT min(user) FROM events WHERE tenant = :tenant AND user > :after
    UNION ALL
    SELECT (SELECT min(user) FROM events WHERE tenant = :tenant AND user > u.user) FROM u WHERE u.user NOTNULL LIMIT :n
)
SELECT json_array(hex(max(user)), count(user), json_group_array(hex(user)) FILTER (
    WHERE (SELECT min(time_us) FROM events e WHERE e.tenant = :tenant AND e.user = u.user) < :before
    OR :most AND EXISTS (SELECT 1 FROM events e WHERE e.tenant = :tenant AND e.user = u.user LIMIT 1 OFFSET :most)
))
FROM u
"""
EXCESS = """
SELECT time_us, event FROM events WHERE tenant = ? AND user = ? ORDER BY time_us DESC, event DESC LIMIT 1 OFFSET ?
"""
OLD_ITEMS = """
SELECT DISTINCT item_id FROM events WHERE tenant = ? AND user = ? AND (time_us, event) <= (?, ?)
"""
TRIM = "DELETE FROM events WHERE tenant = ? AND user = ? AND (time_us, event) <= (?, ?)"
STAYS = "SELECT item_id, kind, strength > 0 FROM events WHERE tenant = ? AND user = ?"
SET_MASK = "UPDATE pairs SET mask = ? WHERE tenant = ? AND user = ? AND item_id = ?"
DROP_PAIR = "DELETE FROM pairs WHERE tenant = ? AND user = ? AND item_id = ?"
OLD_EXPOSURES = """
DELETE FROM exposures
WHERE time_us < :before AND exposure IN (SELECT exposure FROM exposures ORDER BY exposure LIMIT :n)
RETURNING tenant
"""
