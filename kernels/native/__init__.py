"""The scan of coded rows in C: ctypes over a plain shared library. `library.load` says why where there is none."""
