"""What proves that something was deleted, without saying whose it was."""

from __future__ import annotations

from hashlib import sha256

from matchcut.server.records import Receipt


def receipt(events: int, exposures: int, time_us: int, nonce: bytes) -> Receipt:
    """The digest is SHA-256 over "events exposures time_us " in decimal and a nonce of random bytes that stays here."""
    made = sha256(f"{events} {exposures} {time_us} ".encode() + nonce)
    return Receipt(events, exposures, time_us, made.hexdigest())
