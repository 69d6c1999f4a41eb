"""Launches the compiled kernels of kernels/gpu on an NVIDIA GPU, through PyCUDA, with neither Triton nor a compiler.

Importing it needs neither a GPU nor PyCUDA: what is missing is said, as CudaAbsent, by what needs it.
"""

from matchcut.kernels.cuda.errors import CudaAbsent, CudaError, DeviceLost, LaunchRefused, OutOfDeviceMemory
from matchcut.kernels.cuda.launcher import Context, Lane
from matchcut.kernels.cuda.manifest import Manifest
from matchcut.kernels.cuda.memory import Buffer, Pending

__all__ = [
    "Buffer",
    "Context",
    "CudaAbsent",
    "CudaError",
    "DeviceLost",
    "Lane",
    "LaunchRefused",
    "Manifest",
    "OutOfDeviceMemory",
    "Pending",
]
