"""What lists for users tell Prometheus."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from matchcut.server.records import UserNumbers

__all__ = ["UserGauges"]

log = logging.getLogger("matchcut")


class UserGauges(Collector):
    """The numbers, looked up once for all of them.

    numbers: looks them up; None before it is set.
    """

    def __init__(self) -> None:
        self.numbers: Callable[[], UserNumbers | None] = lambda: None

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """See Collector."""
        try:
            now = self.numbers()
        except Exception:  # what else there is to tell is told all the same
            log.exception("cannot tell how much there is of users")
            return
        if now is None:
            return
        yield GaugeMetricFamily("matchcut_events", "events in the log", now.events)
        yield GaugeMetricFamily("matchcut_event_users", "users in the log, rounded down", now.users)
        yield GaugeMetricFamily("matchcut_exposures", "lists in the log that were shown", now.exposures)
        yield GaugeMetricFamily("matchcut_event_log_bytes", "size of the log", now.log_bytes)
        yield GaugeMetricFamily("matchcut_user_states", "users' states in memory, rounded down", now.states)
        yield GaugeMetricFamily("matchcut_user_state_bytes", "what they take, about", now.state_bytes)
        yield CounterMetricFamily("matchcut_user_states_evicted", "states that had to leave memory", now.evicted)
        yield CounterMetricFamily("matchcut_user_states_replayed", "states made anew from the log", now.replayed)
        yield CounterMetricFamily("matchcut_user_lists", "lists made for users", now.lists)
        yield CounterMetricFamily("matchcut_user_lists_cold", "those for whom nothing was known", now.cold)
        model = GaugeMetricFamily("matchcut_session_model", "1: what lists are made with", labels=["model", "version"])
        model.add_metric([now.model, now.version], 1)
        yield model
        yield GaugeMetricFamily("matchcut_session_model_fault", "1: the one deployed cannot be served", now.fault)
        yield GaugeMetricFamily("matchcut_items_ready", "1: all items can be recommended", now.ready)
