"""Measures once, in a process of its own: takes a Spec as JSON, tells progress on stderr, prints a Report as JSON.

A process of its own, because BLAS decides how many threads it has when it is loaded: it looks at the cores that the
process may use, so these are set before NumPy is imported.
"""

from __future__ import annotations

import json
import os
import sys

from matchcut.kernels.bench.spec import Spec


def main() -> None:
    """Measures what the first argument asks for."""
    spec = Spec(**json.loads(sys.argv[1]))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-spec.threads :])
    from matchcut.kernels.bench.measure import measure  # only now, see above

    print(json.dumps(measure(spec, lambda line: print(f"matchcut: {line}", file=sys.stderr, flush=True))))


if __name__ == "__main__":
    main()
