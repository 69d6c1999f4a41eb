"""Times the exact scan on this machine, beside other ways to rank and a plain read of the same bytes.

`python -m matchcut.kernels.bench` measures in a process of its own, for `matchcut bench scan`; tests/bench/scan.py
uses the parts for more rows, more queries and more libraries.
"""
