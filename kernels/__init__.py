"""Array operations: arrays in, arrays out; they know neither video nor the contract.

Each op is one module with its signature and its NumPy reference. `device.open_device()` picks the implementation that
runs; whatever runs, the answers are those of the reference.
"""
