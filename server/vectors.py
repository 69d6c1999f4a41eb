"""Vectors that callers bring: which encoder made them, and whether they can be compared at all."""

from __future__ import annotations

import numpy as np

from matchcut.server.errors import EncoderMismatch, InvalidInput
from matchcut.server.records import EncoderIdentity, Floats


def agree(stated: EncoderIdentity | None, own: EncoderIdentity, values: Floats, field: str) -> EncoderIdentity:
    """The encoder that a caller's vector belongs to.

    Args:
        stated: what the caller says; None or all empty: the server's own. A name without a digest is the server's
            own where it has that name, else a digest is made of name and version.
        own: the server's encoder.
        values: (dimensions,) float32, whose length must be the encoder's.
        field: the request's field, for the message.

    Raises:
        EncoderMismatch: the length is another.
    """
    encoder = own
    if stated is not None and (stated.name or stated.digest):
        same = stated.digest == own.digest or (
            not stated.digest and stated.name == own.name and stated.version in ("", own.version)
        )
        if not same:
            digest = stated.digest or f"{stated.name}@{stated.version}"
            encoder = EncoderIdentity(
                stated.name or stated.digest, stated.version, digest, stated.dimensions or len(values)
            )
    if len(values) != encoder.dimensions:
        raise EncoderMismatch(
            f"{field} has {len(values)} values, vectors of {encoder.name!r} have {encoder.dimensions}; "
            "send vectors of that encoder, or name the encoder that made these",
            field=field,
        )
    return encoder


def unit(values: Floats, field: str) -> Floats:
    """The vector at unit length, (dimensions,) float32.

    Raises:
        InvalidInput: it is zero, or holds NaN or infinity.
    """
    wide = values.astype(np.float64)
    norm = float(np.linalg.norm(wide))
    if not np.isfinite(norm) or norm == 0:
        what = "is zero" if norm == 0 else "holds NaN or infinity"
        raise InvalidInput(f"{field} {what} and has no direction; send a finite vector that is not zero", field=field)
    return (wide / norm).astype(np.float32)
