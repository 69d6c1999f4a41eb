/* The variant that every processor runs: plain C, which the compiler vectorises as far as its baseline goes. */
#define TARGET
#define VARIANT(name) scalar_##name
#include "portable.h"

static void scalar_dense(const uint8_t *blocks, size_t count, size_t quads, const int8_t *queries,
                         const int32_t *sums, size_t b, int32_t *dots) {
    for (size_t block = 0; block < count; ++block) {
        const uint8_t *data = blocks + block * quads * 64;
        for (size_t q = 0; q < b; ++q) {
            const int8_t *query = queries + q * quads * 4;
            int32_t acc[MC_BLOCK];
            for (size_t lane = 0; lane < MC_BLOCK; ++lane) acc[lane] = -128 * sums[q];
            for (size_t quad = 0; quad < quads; ++quad)
                for (size_t lane = 0; lane < MC_BLOCK; ++lane)
                    for (size_t i = 0; i < 4; ++i)
                        acc[lane] += (int32_t)data[quad * 64 + lane * 4 + i] * query[quad * 4 + i];
            memcpy(dots + q * MC_CHUNK + block * MC_BLOCK, acc, sizeof acc);
        }
    }
}

static void scalar_sparse(const uint8_t *const *chunks, size_t offset, const mc_pair *pairs, size_t count, size_t ahead,
                          const int8_t *query, int32_t radix, int32_t sum, int32_t *dots) {
    (void)ahead;
    for (size_t at = 0; at < count; ++at) {
        uint32_t row = pairs[at].row;
        const uint8_t *piece = chunks[row / MC_CHUNK] + offset + (size_t)(row % MC_CHUNK) * MC_LEVEL;
        int32_t acc = -128 * sum;
        for (size_t i = 0; i < MC_LEVEL; ++i) acc += (int32_t)piece[i] * (radix * query[i] + query[MC_LEVEL + i]);
        dots[at] = acc;
    }
}

const mc_variant mc_scalar = {"scalar",    127,         scalar_dense, scalar_sparse,
                              scalar_sift, scalar_wide, scalar_code};
