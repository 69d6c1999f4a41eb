/* AVX-512 VNNI: 16 rows x 4 dimensions a register, vpdpbusd adds four products of unsigned rows and signed queries. */
#if defined(__x86_64__)
#include <immintrin.h>
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma,prefer-vector-width=512")))
#define VARIANT(name) avx512vnni_##name
#define OWN_SIFT
#include "portable.h"

static inline TARGET __m512i spread_four(const int8_t *query) {
    int32_t four;
    memcpy(&four, query, 4);
    return _mm512_set1_epi32(four);
}

/* R blocks, Q queries: R * Q accumulators, R + Q loads for as many products. Both are constants in each call. Other
 * queries want the blocks, too, so that those to come next are fetched meanwhile, unless that is NULL. */
static inline __attribute__((always_inline)) TARGET void some(const uint8_t *data, size_t quads, const int8_t *queries,
                                                              const int32_t *sums, int32_t *dots,
                                                              const uint8_t *next, const size_t R, const size_t Q) {
    __m512i acc[6][4];
#pragma GCC unroll 6
    for (size_t q = 0; q < Q; ++q)
#pragma GCC unroll 4
        for (size_t r = 0; r < R; ++r) acc[q][r] = _mm512_set1_epi32(-128 * sums[q]);
    for (size_t quad = 0; quad < quads; ++quad) {
        __m512i rows[4];
#pragma GCC unroll 4
        for (size_t r = 0; r < R; ++r) rows[r] = _mm512_loadu_si512(data + (r * quads + quad) * 64);
        if (next)
#pragma GCC unroll 4
            for (size_t r = 0; r < R; ++r) _mm_prefetch((const char *)(next + (r * quads + quad) * 64), _MM_HINT_T1);
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

/* Q queries, one block: read in order, which the prefetcher likes; even and odd quads apart, which hides latency. */
static inline __attribute__((always_inline)) TARGET void in_order(const uint8_t *data, size_t quads,
                                                                  const int8_t *queries, const int32_t *sums,
                                                                  int32_t *dots, const size_t Q) {
    __m512i even[8], odd[8];
#pragma GCC unroll 8
    for (size_t q = 0; q < Q; ++q) {
        even[q] = _mm512_set1_epi32(-128 * sums[q]);
        odd[q] = _mm512_setzero_si512();
    }
    for (size_t quad = 0; quad < quads; quad += 2) {
        __m512i a = _mm512_loadu_si512(data + quad * 64), b = _mm512_loadu_si512(data + quad * 64 + 64);
#pragma GCC unroll 8
        for (size_t q = 0; q < Q; ++q) {
            even[q] = _mm512_dpbusd_epi32(even[q], a, spread_four(queries + (q * quads + quad) * 4));
            odd[q] = _mm512_dpbusd_epi32(odd[q], b, spread_four(queries + (q * quads + quad + 1) * 4));
        }
    }
#pragma GCC unroll 8
    for (size_t q = 0; q < Q; ++q) _mm512_storeu_si512(dots + q * MC_CHUNK, _mm512_add_epi32(even[q], odd[q]));
}

TARGET static void avx512vnni_dense(const uint8_t *blocks, size_t count, size_t quads, const int8_t *queries,
                                    const int32_t *sums, size_t b, int32_t *dots) {
    size_t block = 0;
    if (b <= 8) { /* memory is the limit */
        for (; block < count; ++block) {
            const uint8_t *data = blocks + block * quads * 64;
            int32_t *out = dots + block * MC_BLOCK;
            switch (b) {
#define CASE(Q)                                                                                                       \
    case Q: in_order(data, quads, queries, sums, out, Q); break
                CASE(1);
                CASE(2);
                CASE(3);
                CASE(4);
                CASE(5);
                CASE(6);
                CASE(7);
                CASE(8);
#undef CASE
                default: break;
            }
        }
        return;
    }
#define SOME(R, Q)                                                                                                    \
    some(data, quads, queries + q * quads * 4, sums + q, dots + q * MC_CHUNK + block * MC_BLOCK, next, R, Q);         \
    next = NULL;                                                                                                      \
    q += Q
    for (; block + 4 <= count; block += 4) {
        const uint8_t *data = blocks + block * quads * 64, *next = block + 8 <= count ? data + quads * 256 : NULL;
        size_t q = 0;
        while (q + 6 <= b) { SOME(4, 6); }
        while (q + 2 <= b) { SOME(4, 2); }
        while (q < b) { SOME(4, 1); }
    }
    for (; block < count; ++block) {
        const uint8_t *data = blocks + block * quads * 64, *next = NULL;
        size_t q = 0;
        while (q + 4 <= b) { SOME(1, 4); }
        while (q < b) { SOME(1, 1); }
    }
#undef SOME
}

TARGET static void avx512vnni_sparse(const uint8_t *const *chunks, size_t offset, const mc_pair *pairs, size_t count, size_t ahead,
                                     const int8_t *query, int32_t radix, int32_t sum, int32_t *dots) {
    __m512i high = _mm512_loadu_si512(query), low = _mm512_loadu_si512(query + MC_LEVEL);
    for (size_t at = 0; at < count; ++at) {
        if (at + 24 < ahead) {
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

TARGET static size_t avx512vnni_sift(const int32_t *dots, const int32_t *low, int32_t radix, const float *scale,
                                     const float *tail, size_t n, const mc_bound *bound, uint16_t *hits) {
    __m512 step = _mm512_set1_ps(bound->step), spread = _mm512_set1_ps(bound->spread);
    __m512 reach = _mm512_set1_ps(bound->reach), threshold = _mm512_set1_ps(bound->threshold);
    __m512i radices = _mm512_set1_epi32(radix);
    size_t found = 0;
    for (size_t at = 0; at < n; at += MC_BLOCK) {
        __m512i dot = _mm512_loadu_si512(dots + at);
        if (low) dot = _mm512_add_epi32(_mm512_mullo_epi32(dot, radices), _mm512_loadu_si512(low + at));
        __m512 upper = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), step, spread);
        upper = _mm512_fmadd_ps(_mm512_loadu_ps(scale + at), upper, _mm512_mul_ps(_mm512_loadu_ps(tail + at), reach));
        for (unsigned mask = _mm512_cmp_ps_mask(upper, threshold, _CMP_GE_OQ); mask; mask &= mask - 1)
            hits[found++] = (uint16_t)(at + (size_t)__builtin_ctz(mask));
    }
    return found;
}

const mc_variant mc_avx512vnni = {"avx512vnni",    127,
                                  avx512vnni_dense, avx512vnni_sparse,
                                  avx512vnni_sift,  avx512vnni_wide,
                                  avx512vnni_code};
#else
typedef int mc_not_x86;
#endif
