"""Pure functions that make a user's list of what is relevant: the query, the order, what is left to chance, and why.

combine -> (the catalogue is ranked with it, elsewhere) -> arrange -> nearest; experiments say with which options.
"""

from matchcut.server.blend.arrange import arrange
from matchcut.server.blend.choices import checked
from matchcut.server.blend.contract import Arranged, Candidates
from matchcut.server.blend.experiments import Experiments, load, parse
from matchcut.server.blend.query import combine, nearest

__all__ = ["Arranged", "Candidates", "Experiments", "arrange", "checked", "combine", "load", "nearest", "parse"]
