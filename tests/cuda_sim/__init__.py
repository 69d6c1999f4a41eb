"""A simulation of a CUDA driver, so that the real launcher and the real PyCUDA run where there is no GPU.

driver.c, kernels.c, memory.c, streams.c: libcuda.so.1, with device memory in host memory. build.py: compiles it, and
generates what PyCUDA imports and never calls. simulation.py: loads it, injects failures, checks launches and runs
kernels, by Triton's interpreter or a stand-in. contexts.py: a launcher's context on it, as tests want one.

It is a simulation by name wherever it shows. It is not in the wheel, and says nothing about the speed of anything.
Once loaded, a process has a GPU: only tests/kernels/cuda loads it, in a process of its own.
"""
