"""Which encoder answers, and which one is to take over from it."""

from __future__ import annotations

import logging
from threading import Lock

from matchcut.server.catalog import Catalog, Switched
from matchcut.server.errors import EncoderMismatch
from matchcut.server.pipeline import Pipeline
from matchcut.server.records import EncoderIdentity

__all__ = ["Pipelines", "taken_over", "warn_of_others"]

log = logging.getLogger("matchcut")


class Pipelines:
    """The pipeline of the encoder that answers, and that of the one that is to take over.

    A request takes `now` once, when it begins, and stays with it: a pipeline reads from the edition of the catalogue
    that its encoder belongs to, which a switch leaves as it is. So none meets the vectors of two encoders.

    now: what answers requests that begin. next: what makes the vectors that are kept aside; None: nothing does.
    """

    def __init__(self, catalog: Catalog, now: Pipeline, following: Pipeline | None = None) -> None:
        self.catalog = catalog
        self.now = now
        self.next = following
        self._lock = Lock()

    def following(self) -> Pipeline:
        """What is to take over.

        Raises:
            EncoderMismatch: there is none (reason NO_NEXT_ENCODER).
        """
        following = self.next
        if following is None:
            raise EncoderMismatch(
                f"this server has no encoder that could take over from {self.now.encoder.name!r}; start it with "
                "--next-encoder",
                reason="NO_NEXT_ENCODER",
            )
        return following

    def switch(self, *, force: bool = False) -> Switched:
        """Lets the next encoder take over, for every request that begins from now on.

        Raises:
            EncoderMismatch: there is none, or items lack its vectors (see Catalog.switch).
            StoreFailed: the disk failed; nothing was changed.
        """
        with self._lock:
            following = self.following()
            done = self.catalog.switch(following.encoder, force=force)
            following.catalog = done.edition  # before anybody ranks with it
            self.now, self.next = following, None
        return done


def taken_over(catalog: Catalog, encoder: EncoderIdentity, following: EncoderIdentity) -> bool:
    """Whether the next encoder is to answer from the start, since the catalogue is its own already.

    So a server that is started again with the options that it had before a switch goes on as it was after it.
    """
    if following.digest == encoder.digest:
        log.info("%r is the encoder and the next one, too: --next-encoder is not needed any more", encoder.name)
        return True
    if catalog.own is None or catalog.own.digest != following.digest:
        return False
    log.info(
        "%r has taken over from %r and answers: name it with --encoder, and leave --next-encoder out",
        *(following.name, encoder.name),
    )
    return True


def warn_of_others(catalog: Catalog, encoder: EncoderIdentity) -> None:
    """Warns where the catalogue holds what the encoder cannot be compared with."""
    found, own = catalog.readiness(encoder), catalog.own
    if found.ready < found.items:
        foreign = own is not None and own.digest != encoder.digest
        owned = f"; the catalogue is {own.name!r}'s, version {own.version}" if own is not None and foreign else ""
        log.warning(
            "%d of %d items have vectors of other encoders than %r, version %s, and are not ranked with its own%s: put "
            "them in again, or run the encoder that made them, and this one as --next-encoder with `matchcut reindex`",
            *(found.items - found.ready, found.items, encoder.name, encoder.version, owned),
        )
