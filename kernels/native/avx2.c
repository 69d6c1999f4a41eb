/* AVX2: 8 rows x 4 dimensions a register. vpmaddubsw adds two products in 16 bits, which saturates above 32767:
 * row codes go up to 255, so query codes stop at 63 (2 * 255 * 63 = 32130). */
#if defined(__x86_64__)
#include <immintrin.h>
#define TARGET __attribute__((target("avx2,fma")))
#define VARIANT(name) avx2_##name
#define OWN_SIFT
#include "portable.h"

static inline TARGET __m256i fours(__m256i acc, __m256i rows, __m256i query) {
    return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(rows, query), _mm256_set1_epi16(1)));
}

/* Q queries, one block: 2 Q accumulators. Q is a constant in each call, so that the loops unroll. */
static inline __attribute__((always_inline)) TARGET void some(const uint8_t *data, size_t quads, const int8_t *queries,
                                                              const int32_t *sums, int32_t *dots,
                                                              const size_t Q) {
    __m256i low[6], high[6];
    for (size_t q = 0; q < Q; ++q) low[q] = high[q] = _mm256_set1_epi32(-128 * sums[q]);
    for (size_t quad = 0; quad < quads; ++quad) {
        __m256i a = _mm256_loadu_si256((const __m256i *)(data + quad * 64));
        __m256i b = _mm256_loadu_si256((const __m256i *)(data + quad * 64 + 32));
        for (size_t q = 0; q < Q; ++q) {
            int32_t four;
            memcpy(&four, queries + (q * quads + quad) * 4, 4);
            __m256i query = _mm256_set1_epi32(four);
            low[q] = fours(low[q], a, query);
            high[q] = fours(high[q], b, query);
        }
    }
    for (size_t q = 0; q < Q; ++q) {
        _mm256_storeu_si256((__m256i *)(dots + q * MC_CHUNK), low[q]);
        _mm256_storeu_si256((__m256i *)(dots + q * MC_CHUNK + 8), high[q]);
    }
}

TARGET static void avx2_dense(const uint8_t *blocks, size_t count, size_t quads, const int8_t *queries,
                              const int32_t *sums, size_t b, int32_t *dots) {
    for (size_t block = 0; block < count; ++block) {
        const uint8_t *data = blocks + block * quads * 64;
        size_t q = 0;
#define SOME(Q)                                                                                                       \
    some(data, quads, queries + q * quads * 4, sums + q,                                   \
         dots + q * MC_CHUNK + block * MC_BLOCK, Q);                                                                  \
    q += Q
        while (q + 4 <= b) { SOME(4); }
        while (q + 2 <= b) { SOME(2); }
        while (q < b) { SOME(1); }
#undef SOME
    }
}

TARGET static void avx2_sparse(const uint8_t *const *chunks, size_t offset, const mc_pair *pairs, size_t count, size_t ahead,
                               const int8_t *query, int32_t radix, int32_t sum, int32_t *dots) {
    const __m256i *halves = (const __m256i *)query, none = _mm256_setzero_si256();
    __m256i q0 = _mm256_loadu_si256(halves), q1 = _mm256_loadu_si256(halves + 1);
    __m256i q2 = _mm256_loadu_si256(halves + 2), q3 = _mm256_loadu_si256(halves + 3);
    for (size_t at = 0; at < count; ++at) {
        if (at + 24 < ahead) {
            uint32_t next = pairs[at + 24].row;
            _mm_prefetch((const char *)(chunks[next / MC_CHUNK] + offset + (size_t)(next % MC_CHUNK) * MC_LEVEL),
                         _MM_HINT_T0);
        }
        uint32_t row = pairs[at].row;
        const uint8_t *piece = chunks[row / MC_CHUNK] + offset + (size_t)(row % MC_CHUNK) * MC_LEVEL;
        __m256i a = _mm256_loadu_si256((const __m256i *)piece);
        __m256i b = _mm256_loadu_si256((const __m256i *)(piece + 32));
        __m256i acc = _mm256_mullo_epi32(fours(fours(none, a, q0), b, q1), _mm256_set1_epi32(radix));
        acc = fours(fours(acc, a, q2), b, q3);
        __m128i half = _mm_add_epi32(_mm256_castsi256_si128(acc), _mm256_extracti128_si256(acc, 1));
        half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
        half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1));
        dots[at] = _mm_cvtsi128_si32(half) - 128 * sum;
    }
}

TARGET static size_t avx2_sift(const int32_t *dots, const int32_t *low, int32_t radix, const float *scale,
                               const float *tail, size_t n, const mc_bound *bound, uint16_t *hits) {
    __m256 step = _mm256_set1_ps(bound->step), spread = _mm256_set1_ps(bound->spread);
    __m256 reach = _mm256_set1_ps(bound->reach), threshold = _mm256_set1_ps(bound->threshold);
    __m256i radices = _mm256_set1_epi32(radix);
    size_t found = 0;
    for (size_t at = 0; at < n; at += 8) {
        __m256i dot = _mm256_loadu_si256((const __m256i *)(dots + at));
        if (low)
            dot = _mm256_add_epi32(_mm256_mullo_epi32(dot, radices), _mm256_loadu_si256((const __m256i *)(low + at)));
        __m256 upper = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), step, spread);
        upper = _mm256_fmadd_ps(_mm256_loadu_ps(scale + at), upper, _mm256_mul_ps(_mm256_loadu_ps(tail + at), reach));
        unsigned mask = (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(upper, threshold, _CMP_GE_OQ));
        for (; mask; mask &= mask - 1) hits[found++] = (uint16_t)(at + (size_t)__builtin_ctz(mask));
    }
    return found;
}

const mc_variant mc_avx2 = {"avx2", 63, avx2_dense, avx2_sparse, avx2_sift, avx2_wide, avx2_code};
#else
typedef int mc_not_x86;
#endif
