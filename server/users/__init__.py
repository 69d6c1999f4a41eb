"""What is known of users, and the items that it is compared with.

    catalogue -> gallery.py (a thread) -> mirror.py: items in the session model's space
    events -> the log -> states.py -> cache.py: each user's fold (fold.py) of its events
                         rebuilding.py (a thread): all of them after another model has taken over (served.py)

The log is the record; all of this is in memory and is made of log and catalogue anew.
"""

from matchcut.server.users.contract import Gallery, Taste
from matchcut.server.users.gallery import Galleries
from matchcut.server.users.states import RING, Users, UserSizes

__all__ = ["RING", "Galleries", "Gallery", "Taste", "UserSizes", "Users"]
