"""The scan of coded rows in C, behind ctypes. `shared_library.load` says why where there is none."""
