/* AMX: 16 queries x 16 rows a tile of int32, 64 dimensions a product. The dense part already is the B tile; queries
 * are the A tile. What follows the dense part, and up to 3 queries, AVX-512 VNNI does as fast. */
#if defined(__x86_64__)
#define _GNU_SOURCE /* syscall */
#include <string.h>

#include "scan.h"

#ifdef MATCHCUT_AMX_MODEL /* a model of the tile instructions in plain C, for tests on processors without them */
#include MATCHCUT_AMX_MODEL
#define TILES
#else
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#define TILES __attribute__((target("amx-tile,amx-int8")))
#endif

extern const mc_variant mc_avx512vnni;

typedef struct {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} tile_config;

/* Tiles: 0-3 sums of 4 blocks, 4 queries, 5 rows. */
static TILES void some(const uint8_t *blocks, size_t count, size_t quads, const int8_t *queries, const int32_t *sums, size_t b, int32_t *dots) {
    tile_config config = {.palette = 1};
    for (size_t tile = 0; tile < 6; ++tile) {
        config.bytes[tile] = 64;
        config.rows[tile] = (uint8_t)(tile == 5 ? 16 : b);
    }
    _tile_loadconfig(&config);
    size_t width = quads * 4;
    for (size_t block = 0; block < count; block += 4) {
        size_t now = count - block < 4 ? count - block : 4;
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (size_t at = 0; at < width; at += MC_LEVEL) {
            const uint8_t *data = blocks + (block * width + at) * MC_BLOCK;
            _tile_loadd(4, queries + at, width);
#define SUM(n)                                                                                                        \
    if (n < now) {                                                                                                    \
        _tile_loadd(5, data + n * width * MC_BLOCK, 64);                                                              \
        _tile_dpbsud(n, 4, 5);                                                                                        \
    }
            SUM(0) SUM(1) SUM(2) SUM(3)
#undef SUM
        }
        int32_t out[4][16][16];
        _tile_stored(0, out[0], 64);
        _tile_stored(1, out[1], 64);
        _tile_stored(2, out[2], 64);
        _tile_stored(3, out[3], 64);
        for (size_t n = 0; n < now; ++n)
            for (size_t q = 0; q < b; ++q)
                for (size_t r = 0; r < 16; ++r)
                    dots[q * MC_CHUNK + (block + n) * MC_BLOCK + r] = out[n][q][r] - 128 * sums[q];
    }
    _tile_release();
}

static void amx_dense(const uint8_t *blocks, size_t count, size_t quads, const int8_t *queries, const int32_t *sums, size_t b, int32_t *dots) {
    if (b < 4) {
        mc_avx512vnni.dense(blocks, count, quads, queries, sums, b, dots);
        return;
    }
    for (size_t q = 0; q < b; q += 16)
        some(blocks, count, quads, queries + q * quads * 4, sums + q,
             b - q < 16 ? b - q : 16, dots + q * MC_CHUNK);
}

static void amx_sparse(const uint8_t *const *chunks, size_t offset, const mc_pair *pairs, size_t count, size_t ahead,
                       const int8_t *query, int32_t radix, int32_t sum, int32_t *dots) {
    mc_avx512vnni.sparse(chunks, offset, pairs, count, ahead, query, radix, sum, dots);
}

static size_t amx_sift(const int32_t *dots, const int32_t *low, int32_t radix, const float *scale, const float *tail,
                       size_t n, const mc_bound *bound, uint16_t *hits) {
    return mc_avx512vnni.sift(dots, low, radix, scale, tail, n, bound, hits);
}

static double amx_wide(const float *a, const float *b, size_t n) { return mc_avx512vnni.wide(a, b, n); }

static void amx_code(const float *values, float unit, uint8_t *codes, double *error, double *norm) {
    mc_avx512vnni.code(values, unit, codes, error, norm);
}

const mc_variant mc_amx = {"amx", 127, amx_dense, amx_sparse, amx_sift, amx_wide, amx_code};

const char *mc_amx_lacks(void);
#ifdef MATCHCUT_AMX_MODEL
const char *mc_amx_lacks(void) { return __builtin_cpu_supports("avx512vnni") ? NULL : "the model needs AVX-512 VNNI"; }
#elif defined(__linux__)
#include <cpuid.h>

/* Linux lets a process use the tile registers only after it has asked (Documentation/arch/x86/xstate.rst). */
const char *mc_amx_lacks(void) {
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    unsigned a, b, c, d;
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx512vnni") || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 24 & 1) ||
        !(d >> 25 & 1))
        return "the processor has no AMX with int8";
    if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)) return "the system does not grant AMX tiles";
    return NULL;
}
#else
const char *mc_amx_lacks(void) { return "AMX is used on Linux only"; }
#endif
#else
typedef int mc_not_x86;
#endif
