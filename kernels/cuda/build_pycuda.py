"""Builds PyCUDA's wheel where there is no CUDA toolkit; with one, `pip install pycuda` does.

PyCUDA comes as source only, and asks its builder for CUDA's headers and for a libcuda to link with. The headers are in
NVIDIA's wheels; for the library a stub with its name and symbols is enough, as the driver brings the real one. Needs
g++, Python's headers, and setuptools and NumPy in the Python that runs this; it uses nothing of matchcut. Takes
90 to 150 seconds of CPU time, on all cores.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from pathlib import Path

VERSION = "2026.1"
SHA256 = "759516160628ba06f32ce7e563e3f5b9214691dc9528a03ea99ea1073f4e14ba"
# The headers decide which driver the wheel needs: one of CUDA 13.0 or newer.
HEADERS = ("nvidia-cuda-runtime==13.0.*", "nvidia-cuda-profiler-api==13.0.*")

# setuptools compiles one file after another; PyCUDA has 42 of them, each on its own.
PARALLEL = """
import concurrent.futures, os
from distutils.ccompiler import CCompiler
def _compile(self, sources, output_dir=None, macros=None, include_dirs=None, debug=0, extra_preargs=None,
             extra_postargs=None, depends=None):
    macros, objects, extra, preprocess, build = self._setup_compile(
        output_dir, macros, include_dirs, sources, depends, extra_postargs)
    arguments = self._get_cc_args(preprocess, debug, extra_preargs)
    def one(item):
        self._compile(item[0], *item[1], arguments, extra, preprocess)
    # The slowest first, or the others wait for it at the end.
    order = sorted(build.items(), key=lambda item: not item[1][0].startswith("src/"))
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(one, order))
    return objects
CCompiler.compile = _compile
"""


def build(out: Path, *, sdist: Path | None = None, include: Path | None = None) -> Path:
    """Makes the wheel of PyCUDA for this Python, or takes the one that is there.

    Args:
        out: a folder, made if it is missing.
        sdist: PyCUDA's source; None: fetched by pip.
        include: a folder with cuda.h and cudaProfiler.h; None: fetched by pip.

    Raises:
        SystemExit: it cannot be built; the message says why.
    """
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    out.mkdir(parents=True, exist_ok=True)
    for made in out.glob(f"pycuda-{VERSION}-{tag}-*.whl"):
        return made
    if shutil.which("g++") is None:
        raise SystemExit("PyCUDA needs a C++ compiler (Debian, Ubuntu: apt-get install g++)")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        source = _unpack(sdist or _fetch(f"pycuda=={VERSION}", work / "sdist"), work)
        headers = include or _headers(work)
        _stub(headers / "cuda.h", headers / "cudaProfiler.h", work / "stub")
        setup = (source / "setup.py").read_text()
        # After the __future__ import, which has to be the first.
        (source / "setup.py").write_text(setup.replace("annotations\n", "annotations\n" + PARALLEL, 1))
        configure = [
            *(sys.executable, "configure.py", f"--cuda-root={headers.parent}", f"--cuda-inc-dir={headers}"),
            *("--no-cuda-enable-curand", f"--cudadrv-lib-dir={work / 'stub'}"),
        ]
        _run(configure, source)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-build-isolation", "--no-deps"]
        _run([*pip, "--no-index", "-w", str(out), "."], source)
    (made,) = out.glob(f"pycuda-{VERSION}-{tag}-*.whl")
    return made


def _fetch(requirement: str, folder: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "-d", str(folder)]
    kind = ["--no-binary", "pycuda"] if requirement.startswith("pycuda") else ["--only-binary", ":all:"]
    # Not even to learn its metadata should pip run PyCUDA's setup.py in an environment that it fetches.
    _run([*pip, *kind, "--no-build-isolation", requirement], folder.parent)
    (got,) = folder.iterdir()
    return got


def _unpack(sdist: Path, work: Path) -> Path:
    found = hashlib.sha256(sdist.read_bytes()).hexdigest()
    if found != SHA256:
        raise SystemExit(f"{sdist} is not the source of PyCUDA {VERSION}: its SHA-256 is {found}")
    with tarfile.open(sdist) as archive:
        archive.extractall(work, filter="data")
    return work / f"pycuda-{VERSION}"


def _headers(work: Path) -> Path:
    for number, requirement in enumerate(HEADERS):
        with zipfile.ZipFile(_fetch(requirement, work / f"headers{number}")) as archive:
            archive.extractall(work / "headers")
    return work / "headers" / "nvidia" / "cu13" / "include"


def _stub(cuda: Path, profiler: Path, folder: Path) -> None:
    """A libcuda.so.1 with every function that the headers declare, under the names that their macros give them."""
    text = cuda.read_text() + profiler.read_text()
    names = set(re.findall(r"\bCUDAAPI\s+(cu\w+)\s*\(", text)) | set(re.findall(r"#define\s+cu\w+\s+(cu\w+)", text))
    if "cuLaunchKernel" not in names:
        raise SystemExit(f"{cuda} does not look like CUDA's header")
    folder.mkdir()
    (folder / "stub.c").write_text("".join(f"int {name}(void) {{ return 999; }}\n" for name in sorted(names)))
    command = ["gcc", "-w", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", "libcuda.so", "stub.c"]
    _run(command, folder)


def _run(command: list[str], folder: Path) -> None:
    # Without what Python was built with: debugging information, which doubles the time, and all warnings.
    command = ["env", "CFLAGS=-O2 -g0 -w", *command]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.stderr.write(done.stdout[-8000:])
        raise SystemExit(f"failed, see above: {' '.join(command)}")


def main() -> None:
    """Prints the wheel's path."""
    parser = argparse.ArgumentParser(description="builds PyCUDA's wheel where there is no CUDA toolkit")
    parser.add_argument("out", type=Path, help="folder for the wheel")
    parser.add_argument("--sdist", type=Path, help=f"pycuda-{VERSION}.tar.gz; otherwise pip fetches it")
    parser.add_argument("--include", type=Path, help="folder with cuda.h; otherwise pip fetches NVIDIA's wheels")
    options = parser.parse_args()
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        raise SystemExit("PyCUDA needs Python's headers (Debian, Ubuntu: apt-get install python3-dev)")
    print(build(options.out.resolve(), sdist=options.sdist, include=options.include))


if __name__ == "__main__":
    main()
