"""Small encoders for tests, beside the one in conftest.py."""

from __future__ import annotations

from pathlib import Path

from support import onnx_models

COARSE = """\
name = "coarse"
version = "1"
dimensions = 12

[input]
width = 32
height = 32
fit = "stretch"
layout = "NCHW"
mean = [127.0, 127.0, 127.0]
std = [128.0, 128.0, 128.0]
"""


def write_coarse(folder: Path) -> Path:
    """An encoder of 32x32 pictures to their 2x2 colour layout, 12-d."""
    pooled = onnx_models.node("AveragePool", ["pixels"], ["cells"], kernel_shape=[16, 16], strides=[16, 16])
    flat = onnx_models.node("Flatten", ["cells"], ["embedding"])
    proto = onnx_models.model(
        [pooled, flat], {"pixels": ("FP32", ("n", 3, 32, 32))}, {"embedding": ("FP32", ("n", 12))}
    )
    return onnx_models.write(folder, proto, toml=COARSE, file="coarse.onnx")
