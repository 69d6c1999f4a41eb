"""The variant for AMX, whose instructions are modelled in plain C, as few processors have them.

What is not tiles the variant leaves to AVX-512 VNNI: without that the model cannot run, and says so.
"""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path

import numpy as np
import pytest

from matchcut.kernels.codes import Codes
from matchcut.kernels.native import shared_library as module
from matchcut.kernels.native.shared_library import Library, Variant, load
from matchcut.kernels.sieve import Crew
from support.native import TESTS, WARNINGS, basis, compiled, ranked, ranked_each, steep


@pytest.fixture(scope="module")
def modelled(tmp_path_factory: pytest.TempPathFactory) -> Library:
    out = tmp_path_factory.mktemp("amx") / "amx.so"
    found = load(compiled(out, "-O1", *WARNINGS, f'-DMATCHCUT_AMX_MODEL="{TESTS / "amx_model.h"}"'))
    assert isinstance(found, Library), found.why
    return found


def amx(modelled: Library) -> Variant | None:
    """The variant; None where it cannot run, for the one reason that there may be."""
    names = [variant.name for variant in modelled.variants]
    if platform.machine() != "x86_64":
        assert "amx" not in names
        return None
    found = modelled.variants[names.index("amx")]
    vnni = modelled.variants[names.index("avx512vnni")]
    assert found.lacks == ("the model needs AVX-512 VNNI" if vnni.lacks else "")
    return None if found.lacks else found


def counted(modelled: Library, name: str) -> int:
    return ctypes.c_int.in_dll(modelled.functions, f"mc_model_{name}").value


def test_its_sums_are_those_of_numpy(modelled: Library) -> None:
    variant = amx(modelled)
    if variant is None:
        return
    before = counted(modelled, "products")
    assert module._agrees(modelled.functions, variant.index)
    # 7 blocks of 2 x 64 dimensions for 4, for 7, and for 16 + 5 queries; 3 and fewer are not worth tiles.
    assert counted(modelled, "products") - before == 7 * 2 * (1 + 1 + 2)
    assert counted(modelled, "faults") == 0


@pytest.mark.parametrize("name", ["plain", "64"])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 16, 17, 33])
def test_its_rankings_are_those_of_the_reference(modelled: Library, name: str, count: int) -> None:
    variant = amx(modelled)
    if variant is None:
        return
    random = np.random.default_rng(count)
    rows, queries = steep(random, 1100, 200), steep(random, count, 200)
    codes, crew = Codes(basis(name, 200), modelled, variant), Crew(modelled, variant)
    codes.extend(rows)
    before = counted(modelled, "products")
    for eligible in (None, random.random(1100) < 0.02):
        for search in (ranked, ranked_each):
            search(queries, rows, codes.view(), crew=crew, groups=np.arange(1100) // 2, k=6, eligible=eligible)
    vectors = count * (2 if name.isdigit() or count <= 2 else 1)  # codes of few queries, and before tails, are fine
    assert (counted(modelled, "products") > before) == (vectors >= 4)
    assert counted(modelled, "faults") == 0


def test_the_model_faults_where_a_processor_would(tmp_path: Path) -> None:
    """Tiles that were not configured, or do not fit each other, or are too large."""
    (tmp_path / "faults.c").write_text(
        """
#include "scan.h"
#include "amx_model.h"
static int64_t product(uint8_t rows_of_a, uint8_t bytes_of_a, uint8_t rows_of_b) {
    uint8_t config[64] = {1}, bytes[16 * 64];
    int32_t sums[16 * 16] = {0};
    for (int tile = 0; tile < 3; ++tile) config[16 + 2 * tile] = 64;
    config[16 + 2] = bytes_of_a, config[48] = 2, config[49] = rows_of_a, config[50] = rows_of_b;
    memset(bytes, 0xff, sizeof bytes); /* signed: -1, unsigned: 255 */
    _tile_loadconfig(config);
    _tile_zero(0);
    _tile_loadd(1, bytes, 64);
    _tile_loadd(2, bytes, 64);
    _tile_dpbsud(0, 1, 2);
    _tile_stored(0, sums, 64);
    _tile_release();
    int64_t total = 0;
    for (int at = 0; at < 16 * 16; ++at) total += sums[at];
    return total;
}
MC_API int64_t total(int rows_of_a, int bytes_of_a, int rows_of_b);
int64_t total(int rows_of_a, int bytes_of_a, int rows_of_b) {
    return product((uint8_t)rows_of_a, (uint8_t)bytes_of_a, (uint8_t)rows_of_b);
}
"""
    )
    everything = tuple(path.name for path in Path(module.__file__).parent.glob("*.c"))
    sources = (tmp_path / "faults.c",)
    functions = ctypes.CDLL(str(compiled(tmp_path / "faults.so", f"-I{TESTS}", sources=sources, without=everything)))
    functions.total.restype = ctypes.c_int64

    def faults(rows_of_a: int, bytes_of_a: int, rows_of_b: int) -> tuple[int, int]:
        total = functions.total(rows_of_a, bytes_of_a, rows_of_b)
        number = ctypes.c_int.in_dll(functions, "mc_model_faults")
        found, number.value = number.value, 0
        return total, found

    assert faults(2, 64, 16) == (2 * 16 * 64 * -255, 0)
    assert faults(2, 8, 2) == (2 * 16 * 8 * -255, 0)
    assert faults(3, 64, 16) == (0, 1)  # other rows than the sums have
    assert faults(2, 64, 15) == (0, 1)  # not as many rows as there are fours of bytes
    assert faults(2, 65, 16) == (0, 6)  # no such tile: the configuration, and all that follows
    assert faults(0, 64, 16) == (0, 6)
