"""Where one shot ends and the next begins, and which pictures of the media are used.

`ShotDetector` judges every picture (exact), `CoarseDetector` only those that are used anyway; `watch` runs the one or
the other over decoded pictures. Both judge looks: 48 x 48 area means in YCbCr. A difference is the mean of the absolute
differences of all values, in levels of 255.
"""

from matchcut.server.shots.coarse import CoarseDetector
from matchcut.server.shots.exact import SHORTEST_SHOT, ShotDetector
from matchcut.server.shots.watch import watch

__all__ = ["SHORTEST_SHOT", "CoarseDetector", "ShotDetector", "watch"]
