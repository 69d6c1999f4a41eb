/* AVX-512 VNNI: 16 rows x 4 dimensions a register, vpdpbusd adds four products of unsigned rows and signed queries. */
#if defined(__x86_64__)
#include <immintrin.h>
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma,prefer-vector-width=512")))
#define VARIANT(name) avx512vnni_##name
#include "portable.h"

static inline TARGET __m512i spread_four(const int8_t *query) {
    int32_t four;
    memcpy(&four, query, 4);
    return _mm512_set1_epi32(four);
}

/* R blocks, Q queries: R * Q accumulators, R + Q loads for as many products. Both are constants in each call. */
static inline __attribute__((always_inline)) TARGET void some(const uint8_t *data, size_t quads, const int8_t *queries,
                                                              const int32_t *sums, int32_t *dots,
                                                              const size_t R, const size_t Q) {
    __m512i acc[6][4];
#pragma GCC unroll 6
    for (size_t q = 0; q < Q; ++q)
#pragma GCC unroll 4
        for (size_t r = 0; r < R; ++r) acc[q][r] = _mm512_set1_epi32(-128 * sums[q]);
    for (size_t quad = 0; quad < quads; ++quad) {
        __m512i rows[4];
#pragma GCC unroll 4
        for (size_t r = 0; r < R; ++r) rows[r] = _mm512_loadu_si512(data + (r * quads + quad) * 64);
#pragma GCC unroll 6
        for (size_t q = 0; q < Q; ++q) {
            __m512i query = spread_four(queries + (q * quads + quad) * 4);
#pragma GCC unroll 4
            for (size_t r = 0; r < R; ++r) acc[q][r] = _mm512_dpbusd_epi32(acc[q][r], rows[r], query);
        }
    }
#pragma GCC unroll 6
    for (size_t q = 0; q < Q; ++q)
#pragma GCC unroll 4
        for (size_t r = 0; r < R; ++r) _mm512_storeu_si512(dots + q * MC_CHUNK + r * MC_BLOCK, acc[q][r]);
}

TARGET static void avx512vnni_dense(const uint8_t *blocks, size_t count, size_t quads, const int8_t *queries,
                                    const int32_t *sums, size_t b, int32_t *dots) {
    size_t block = 0;
#define SOME(R, Q)                                                                                                    \
    some(data, quads, queries + q * quads * 4, sums + q,                                   \
         dots + q * MC_CHUNK + block * MC_BLOCK, R, Q);                                                               \
    q += Q
    for (; block + 4 <= count; block += 4) {
        const uint8_t *data = blocks + block * quads * 64;
        size_t q = 0;
        while (q + 6 <= b) { SOME(4, 6); }
        while (q + 2 <= b) { SOME(4, 2); }
        while (q < b) { SOME(4, 1); }
    }
    for (; block < count; ++block) {
        const uint8_t *data = blocks + block * quads * 64;
        size_t q = 0;
        while (q + 4 <= b) { SOME(1, 4); }
        while (q < b) { SOME(1, 1); }
    }
#undef SOME
}

TARGET static void avx512vnni_sparse(const uint8_t *const *chunks, size_t offset, const mc_pair *pairs, size_t count,
                                     const int8_t *query, int32_t radix, int32_t sum, int32_t *dots) {
    __m512i high = _mm512_loadu_si512(query), low = _mm512_loadu_si512(query + MC_LEVEL);
    for (size_t at = 0; at < count; ++at) {
        if (at + 24 < count) {
            uint32_t next = pairs[at + 24].row;
            _mm_prefetch((const char *)(chunks[next / MC_CHUNK] + offset + (size_t)(next % MC_CHUNK) * MC_LEVEL),
                         _MM_HINT_T0);
        }
        uint32_t row = pairs[at].row;
        const uint8_t *piece = chunks[row / MC_CHUNK] + offset + (size_t)(row % MC_CHUNK) * MC_LEVEL;
        __m512i codes = _mm512_loadu_si512(piece);
        __m512i acc = _mm512_dpbusd_epi32(_mm512_setzero_si512(), codes, high);
        acc = _mm512_dpbusd_epi32(_mm512_mullo_epi32(acc, _mm512_set1_epi32(radix)), codes, low);
        dots[at] = _mm512_reduce_add_epi32(acc) - 128 * sum;
    }
}

const mc_variant mc_avx512vnni = {"avx512vnni",    127,
                                  avx512vnni_dense, avx512vnni_sparse,
                                  avx512vnni_sift,  avx512vnni_wide,
                                  avx512vnni_code};
#else
typedef int mc_not_x86;
#endif
