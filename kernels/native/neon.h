/* NEON: 4 rows x 4 dimensions a register. Included by dotprod.c and i8mm.c with TARGET, VARIANT and DOT(acc, rows,
 * query register, lane) set; ROWS(x) is what a loaded register of rows has to go through first. */
#include <arm_neon.h>

#include "portable.h"

/* Q queries, one block. The sums are of 128 + code where BIASED is 128, of the code itself where it is 0. */
static inline __attribute__((always_inline)) TARGET void some(const uint8_t *data, size_t quads, const int8_t *queries,
                                                              const int32_t *sums, int32_t *dots,
                                                              const size_t Q) {
    int32x4_t acc[4][4];
    for (size_t q = 0; q < Q; ++q)
        for (size_t part = 0; part < 4; ++part) acc[q][part] = vdupq_n_s32(-BIASED * sums[q]);
    for (size_t quad = 0; quad < quads; quad += 4) {
        int8x16_t query[4];
        for (size_t q = 0; q < Q; ++q) query[q] = vld1q_s8(queries + (q * quads + quad) * 4);
#define LANE(lane)                                                                                                    \
    for (size_t part = 0; part < 4; ++part) {                                                                         \
        uint8x16_t rows = vld1q_u8(data + (quad + lane) * 64 + part * 16);                                            \
        for (size_t q = 0; q < Q; ++q) acc[q][part] = DOT(acc[q][part], ROWS(rows), query[q], lane);                  \
    }
        LANE(0) LANE(1) LANE(2) LANE(3)
#undef LANE
    }
    for (size_t q = 0; q < Q; ++q)
        for (size_t part = 0; part < 4; ++part) vst1q_s32(dots + q * MC_CHUNK + part * 4, acc[q][part]);
}

TARGET static void VARIANT(dense)(const uint8_t *blocks, size_t count, size_t quads, const int8_t *queries,
                                  const int32_t *sums, size_t b, int32_t *dots) {
    for (size_t block = 0; block < count; ++block) {
        const uint8_t *data = blocks + block * quads * 64;
        size_t q = 0;
#define SOME(Q)                                                                                                       \
    some(data, quads, queries + q * quads * 4, sums + q,                                   \
         dots + q * MC_CHUNK + block * MC_BLOCK, Q);                                                                  \
    q += Q
        while (q + 4 <= b) { SOME(4); }
        while (q < b) { SOME(1); }
#undef SOME
    }
}

TARGET static void VARIANT(sparse)(const uint8_t *const *chunks, size_t offset, const mc_pair *pairs, size_t count, size_t ahead,
                                   const int8_t *query, int32_t radix, int32_t sum, int32_t *dots) {
    for (size_t at = 0; at < count; ++at) {
        if (at + 24 < ahead) {
            uint32_t next = pairs[at + 24].row;
            __builtin_prefetch(chunks[next / MC_CHUNK] + offset + (size_t)(next % MC_CHUNK) * MC_LEVEL);
        }
        uint32_t row = pairs[at].row;
        const uint8_t *piece = chunks[row / MC_CHUNK] + offset + (size_t)(row % MC_CHUNK) * MC_LEVEL;
        int32x4_t high = vdupq_n_s32(0), low = vdupq_n_s32(0);
        for (size_t i = 0; i < MC_LEVEL; i += 16) {
            high = DOTS(high, ROWS(vld1q_u8(piece + i)), vld1q_s8(query + i));
            low = DOTS(low, ROWS(vld1q_u8(piece + i)), vld1q_s8(query + MC_LEVEL + i));
        }
        int32x4_t acc = vmlaq_n_s32(low, high, radix);
        dots[at] = vaddvq_s32(acc) - BIASED * sum;
    }
}

const mc_variant VARIANT(table) = {
    NAME, 127, VARIANT(dense), VARIANT(sparse), VARIANT(sift), VARIANT(wide), VARIANT(code)};
