"""Puts together what lists for users need, and takes it apart again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from matchcut.kernels.device import Device
from matchcut.server import blend
from matchcut.server.config import NOT_GIVEN, Config
from matchcut.server.events import FILE, open_log
from matchcut.server.ingest import Pipelines
from matchcut.server.personal.following import Choosing, Following
from matchcut.server.personal.personal import Personal
from matchcut.server.records import UserKey
from matchcut.server.session import SessionModel
from matchcut.server.users import Galleries, Users

__all__ = ["opened"]

DAY_US = 24 * 3600 * 1_000_000
LOOK_S = 1.0  # between two looks for another session model, or another encoder


@contextmanager
def opened(
    config: Config, pipelines: Pipelines, device: Device, *, gone: Callable[[], None] = lambda: None
) -> Iterator[Personal]:
    """Lists for users, for as long as the block runs; the catalogue's folder is held by this process.

    Args:
        gone: called, by any thread, once the log of events is gone from the disk.

    Raises:
        StoreFailed: the log of events cannot be used.
        EngineFailed: the session model that is deployed is broken.
        InvalidInput: the experiments are malformed.
    """
    running = blend.Experiments() if config.experiments == NOT_GIVEN else blend.load(config.experiments)
    memory = config.data == Path(":memory:") or config.users == "off"
    trimmed: list[Users] = []  # whom the log tells, once they are there

    def tell(keys: Sequence[UserKey]) -> None:
        for users in trimmed:
            users.trimmed(keys)

    with ExitStack() as stack:
        log = open_log(
            None if memory else config.data / FILE,
            days=config.event_days,
            user_events=config.user_events,
            threshold=config.anonymity,
            clock_us=now_us,
            trimmed=tell,
            gone=gone,
        )
        stack.callback(log.close)
        choosing = Choosing(None if config.session == NOT_GIVEN else config.session, config.session_half_life)
        seen = partial(
            Galleries,
            pipelines.catalog,
            log,
            clock_us=now_us,
            coding=device,
            scan_from=config.scan_from,
            ahead=config.users_ahead == "on",
        )
        served: list[SessionModel] = [choosing.first(pipelines.now.encoder)]
        users = Users(log, seen(served[0]), cache_bytes=config.user_memory)
        stack.callback(users.close)
        trimmed.append(users)

        filling: list[Galleries] = []  # what the next model is waited for with

        def look() -> None:
            model = choosing.another(pipelines.now.encoder, served[0])
            if model is not None:
                filling[:] = [seen(model, unheard_us=now_us())]
                users.swap(filling[0])
                served[0] = model

        def stop() -> None:
            for galleries in filling:
                galleries.close()  # nobody waits for the rest of them
            following.close()

        following = Following(look, LOOK_S)
        stack.callback(stop)
        yield Personal(
            pipelines,
            users,
            None if config.users == "off" else log,
            device,
            running,
            candidates=config.candidates,
            threshold=config.anonymity,
            fault=lambda: bool(choosing.fault),
            keeps_us=config.event_days * DAY_US,
        )


def now_us() -> int:
    """Microseconds since the Unix epoch."""
    return time.time_ns() // 1000
