"""Items into the catalogue, by the encoder that answers or aside by the one that is to take over from it."""

from matchcut.server.ingest.ingest import Ingest
from matchcut.server.ingest.recipe import VECTORS, Recipe
from matchcut.server.ingest.takeover import Pipelines, taken_over, warn_of_others

__all__ = ["VECTORS", "Ingest", "Pipelines", "Recipe", "taken_over", "warn_of_others"]
