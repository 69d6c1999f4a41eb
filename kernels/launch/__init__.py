"""What to launch for an op, in numbers: the kernel's name, the grid and the arguments, for whoever has the buffers.

Plans are NumPy and Python only, so that the home on a GPU and the interpreter of the tests launch the very same. A
kernel's source is in kernels/gpu/<op>.py, the plan for it in kernels/launch/<op>.py.
"""

from matchcut.kernels.launch.plan import Argument, Launch, Plan, Slot

__all__ = ["Argument", "Launch", "Plan", "Slot"]
