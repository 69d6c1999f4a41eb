"""The library: which variants it has, which of them may be used, and what is said where there is none."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import numpy as np
import pytest

from matchcut.kernels.native import shared_library as library
from matchcut.kernels.native.shared_library import Absent, Library, load
from matchcut.kernels.sieve import Crew, search_coded
from matchcut.kernels.topk import search
from support.native import LIBRARY, RUNNABLE, basis, coded, compiled, steep

BEST_FIRST = {
    "x86_64": ["amx", "avx512vnni", "avx2", "scalar"],
    "aarch64": ["i8mm", "dotprod", "scalar"],
    "arm64": ["i8mm", "dotprod", "scalar"],
}.get(platform.machine(), ["scalar"])


def test_variants_are_listed_best_first() -> None:
    assert [variant.name for variant in LIBRARY.variants] == BEST_FIRST
    assert [variant.index for variant in LIBRARY.variants] == list(range(len(BEST_FIRST)))
    assert LIBRARY.best == RUNNABLE[0]
    assert RUNNABLE[-1].name == "scalar"  # every processor runs it


@pytest.mark.parametrize("name", BEST_FIRST)
def test_each_variant_ranks_or_says_what_the_processor_lacks(name: str) -> None:
    variant = LIBRARY.variants[BEST_FIRST.index(name)]
    assert variant.limit == (63 if name == "avx2" else 127)
    if variant.lacks:
        with pytest.raises(ValueError, match=re.escape(f"{name}: {variant.lacks}")):
            LIBRARY.variant(name)
        assert re.match("the (processor|system) ", variant.lacks)  # and not that its sums are wrong
        return
    assert LIBRARY.variant(name) is variant
    rows = steep(np.random.default_rng(0), 1500, 200)
    groups = np.arange(1500)
    kept = coded(rows, basis("64", 200), variant)
    found = search_coded(rows[7:9], rows, kept, crew=Crew(LIBRARY, variant), groups=groups, k=5)
    assert (found.scanned, found.variant) == (1500, "")
    assert list(found) == list(search(rows[7:9], rows, groups=groups, k=5))


def test_an_unknown_variant_is_told_the_choices() -> None:
    with pytest.raises(ValueError, match=f"no variant 'sse'; choose one of {', '.join(BEST_FIRST)}"):
        LIBRARY.variant("sse")


def test_it_is_opened_once() -> None:
    assert load() is load()
    assert load() is LIBRARY


def test_without_a_file_it_says_how_to_get_one(tmp_path: Path) -> None:
    assert load(tmp_path / "none.so") == Absent("it was not built: a C compiler is needed when matchcut is installed")


def test_what_is_no_library_is_not_used(tmp_path: Path) -> None:
    broken = tmp_path / "broken.so"
    broken.write_bytes(library.path().read_bytes()[:40] + bytes(4096))
    found = load(broken)
    assert isinstance(found, Absent)
    assert found.why.startswith(f"{broken} cannot be used: ")


def test_a_library_of_something_else_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "other.c").write_text("int other(void);\nint other(void) { return 1; }\n")
    everything = tuple(path.name for path in Path(library.__file__).parent.glob("*.c"))
    found = load(compiled(tmp_path / "other.so", sources=(tmp_path / "other.c",), without=everything))
    assert isinstance(found, Absent)
    assert "mc_variant_count" in found.why


OTHERS = ("variants.c", "amx.c", "avx2.c", "avx512vnni.c")  # all that is not needed
WRONG = """
#include "scan.h"
extern const mc_variant mc_scalar;

static void dense(const uint8_t *blocks, size_t count, size_t quads, const int8_t *queries, const int32_t *sums,
                  size_t b, int32_t *dots) {
    mc_scalar.dense(blocks, count, quads, queries, sums, b, dots);
    if (b > 16) ++dots[16 * MC_CHUNK + 5]; /* right for few queries */
}

static void sparse(const uint8_t *const *chunks, size_t offset, const mc_pair *pairs, size_t count, size_t ahead,
                   const int8_t *query, int32_t radix, int32_t sum, int32_t *dots) {
    mc_scalar.sparse(chunks, offset, pairs, count, ahead, query, radix, sum, dots);
    for (size_t at = 0; at < count; ++at) dots[at] += pairs[at].row == 3;
}

const char *mc_variant_name(int index) { return index == 0 ? "dense" : index == 1 ? "sparse" : "fine"; }
const char *mc_variant_lacks(int index) { return index == 2 ? FINE_LACKS : (const char *)0; }
int32_t mc_variant_limit(int index) { return index < 3 ? 127 : 0; }
int mc_variant_count(void) { return 3; }
const mc_variant *mc_variant_at(int index) {
    static mc_variant variants[3];
    variants[index] = mc_scalar;
    if (index == 0) variants[index].dense = dense;
    if (index == 1) variants[index].sparse = sparse;
    return variants + index;
}
"""


@pytest.mark.parametrize("fine", [True, False])
def test_a_variant_whose_sums_are_wrong_is_refused(tmp_path: Path, fine: bool) -> None:
    """variants.c is replaced by one whose first variants are off by one, each in one sum."""
    (tmp_path / "wrong.c").write_text(WRONG)
    lacks = "(const char *)0" if fine else '"nothing"'
    out = tmp_path / "wrong.so"
    found = load(compiled(out, f"-DFINE_LACKS={lacks}", sources=(tmp_path / "wrong.c",), without=OTHERS))
    differ = "its sums differ from NumPy's on this processor"
    if not fine:
        assert found == Absent(f"{out} cannot be used: dense: {differ}; sparse: {differ}; fine: nothing")
        return
    assert isinstance(found, Library)
    assert [variant.lacks for variant in found.variants] == [differ, differ, ""]
    assert found.best.name == "fine"
    with pytest.raises(ValueError, match=f"dense: {differ}"):
        found.variant("dense")
