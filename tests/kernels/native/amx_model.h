/* The AMX tile instructions that amx.c uses, in plain C, as Intel's Software Developer's Manual (volume 2) describes
 * LDTILECFG, TILELOADD, TILESTORED, TILEZERO, TDPBSUD and TILERELEASE for palette 1.
 *
 * Where a processor would raise an exception the model counts a fault and does nothing. */
#include <stdint.h>
#include <string.h>

enum { MODEL_TILES = 8, MODEL_ROWS = 16, MODEL_BYTES = 64 };

MC_API extern int mc_model_faults, mc_model_products;
int mc_model_faults;   /* what a processor would not have done */
int mc_model_products; /* TDPBSUD so far */

static _Thread_local struct {
    int configured;
    unsigned rows[MODEL_TILES], bytes[MODEL_TILES]; /* bytes: of a row */
    uint8_t data[MODEL_TILES][MODEL_ROWS][MODEL_BYTES];
} model;

static inline int model_valid(int tile) {
    int valid = model.configured && tile >= 0 && tile < MODEL_TILES && model.rows[tile] && model.bytes[tile];
    mc_model_faults += !valid;
    return valid;
}

static inline void _tile_loadconfig(const void *memory) {
    const uint8_t *config = memory;
    memset(&model, 0, sizeof model);
    int wrong = config[0] != 1 || config[1] != 0; /* palette 1, from row 0 on */
    for (int at = 2; at < 16; ++at) wrong |= config[at];
    for (int tile = 0; tile < 16; ++tile) {
        unsigned bytes = config[16 + 2 * tile] | (unsigned)config[17 + 2 * tile] << 8, rows = config[48 + tile];
        if (tile >= MODEL_TILES) {
            wrong |= bytes || rows;
            continue;
        }
        wrong |= bytes > MODEL_BYTES || rows > MODEL_ROWS || !bytes != !rows;
        model.rows[tile] = rows;
        model.bytes[tile] = bytes;
    }
    if (wrong) memset(&model, 0, sizeof model);
    mc_model_faults += wrong != 0;
    model.configured = !wrong;
}

static inline void _tile_release(void) { memset(&model, 0, sizeof model); }

static inline void _tile_zero(int tile) {
    if (model_valid(tile)) memset(model.data[tile], 0, sizeof model.data[tile]);
}

static inline void _tile_loadd(int tile, const void *memory, size_t stride) {
    if (!model_valid(tile)) return;
    memset(model.data[tile], 0, sizeof model.data[tile]); /* what lies beyond its rows and bytes becomes 0 */
    for (size_t row = 0; row < model.rows[tile]; ++row)
        memcpy(model.data[tile][row], (const uint8_t *)memory + row * stride, model.bytes[tile]);
}

static inline void _tile_stored(int tile, void *memory, size_t stride) {
    if (!model_valid(tile)) return;
    for (size_t row = 0; row < model.rows[tile]; ++row)
        memcpy((uint8_t *)memory + row * stride, model.data[tile][row], model.bytes[tile]);
}

/* Signed bytes of a with unsigned bytes of b: four products are added to each number of 32 bits, without saturation. */
static inline void _tile_dpbsud(int sums, int a, int b) {
    if (!model_valid(sums) || !model_valid(a) || !model_valid(b)) return;
    if (sums == a || sums == b || a == b || model.rows[sums] != model.rows[a] || model.bytes[sums] != model.bytes[b] ||
        model.bytes[a] % 4 || model.bytes[b] % 4 || model.bytes[a] / 4 != model.rows[b]) {
        ++mc_model_faults;
        return;
    }
    ++mc_model_products;
    for (size_t m = 0; m < model.rows[sums]; ++m)
        for (size_t k = 0; k < model.bytes[a] / 4; ++k)
            for (size_t n = 0; n < model.bytes[sums] / 4; ++n) {
                uint32_t sum;
                memcpy(&sum, model.data[sums][m] + 4 * n, 4);
                for (size_t i = 0; i < 4; ++i) {
                    int32_t left = (int8_t)model.data[a][m][4 * k + i], right = model.data[b][k][4 * n + i];
                    sum += (uint32_t)(left * right);
                }
                memcpy(model.data[sums][m] + 4 * n, &sum, 4);
            }
    for (size_t m = model.rows[sums]; m < MODEL_ROWS; ++m) memset(model.data[sums][m], 0, MODEL_BYTES);
}
