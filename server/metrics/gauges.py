"""What is looked up each time that somebody asks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from matchcut.server.catalog import Sizes

__all__ = ["CatalogGauges", "ModelGauges", "Models"]

Models = Callable[[], Iterable[tuple[str, str, bool]]]  # name, version, whether it can be used
log = logging.getLogger("matchcut")


class CatalogGauges(Collector):
    """The catalogue's sizes, looked up once for all of them."""

    def __init__(self, sizes: Callable[[], Sizes]) -> None:
        self._sizes = sizes

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """See Collector."""
        sizes = self._sizes()
        yield GaugeMetricFamily("matchcut_catalog_segments", "segments in the catalogue", sizes.segments)
        yield GaugeMetricFamily("matchcut_catalog_coded_segments", "those coded for the scan", sizes.coded)
        yield GaugeMetricFamily("matchcut_catalog_items", "items in the catalogue", sizes.items)
        yield GaugeMetricFamily("matchcut_catalog_staged_items", "those with vectors of the next encoder", sizes.staged)
        yield GaugeMetricFamily(
            "matchcut_scan_epoch_age_rows", "rows coded in a way chosen before they came", sizes.unplanned
        )


class ModelGauges(Collector):
    """Which versions of models can be used.

    models: lists them; none before it is set.
    """

    def __init__(self) -> None:
        self.models: Models = tuple

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """See Collector."""
        family = GaugeMetricFamily("matchcut_model_ready", "whether a version can be used", labels=["model", "version"])
        try:
            for name, version, ready in self.models():
                family.add_metric([name, version], ready)
        except Exception:  # what else there is to tell is told all the same
            log.exception("cannot tell which models are ready")
        yield family
