"""Writes an encoder's precision into its ONNX file, and proves on real frames that its vectors stay what they are."""

from __future__ import annotations

from matchcut.server.precision.conversion import PRECISIONS, Converted, Precision, Told, convert
from matchcut.server.precision.folder import copy, write
from matchcut.server.precision.frames import Frames, read
from matchcut.server.precision.gate import GATES, Figures, Gate, judge
from matchcut.server.precision.quantize import METHODS, Method

__all__ = [
    "GATES",
    "METHODS",
    "PRECISIONS",
    "Converted",
    "Figures",
    "Frames",
    "Gate",
    "Method",
    "Precision",
    "Told",
    "convert",
    "copy",
    "judge",
    "read",
    "write",
]
