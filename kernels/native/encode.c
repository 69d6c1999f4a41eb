/* Codes float32 rows; the proof of what the stored norms bound is in ../codes.py. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "scan.h"

size_t mc_chunk_bytes(uint32_t dense, uint32_t levels) {
    size_t bytes = mc_records_offset(dense, levels) + MC_CHUNK * mc_record_bytes(levels);
    return (bytes + 4095) / 4096 * 4096;
}

/* The next float32 at or above a non-negative double. */
static float above(double value) {
    float rounded = (float)value;
    return rounded < value ? nextafterf(rounded, INFINITY) : rounded;
}

/* The largest magnitude; compared as integers, which order alike and vectorise. */
static float largest(const float *values, size_t n) {
    int32_t most = 0;
    for (size_t at = 0; at < n; ++at) {
        int32_t bits;
        memcpy(&bits, values + at, sizeof bits);
        bits &= INT32_MAX;
        most = bits > most ? bits : most;
    }
    float value;
    memcpy(&value, &most, sizeof value);
    return value;
}

/* Below this a value counts as 0; codes.py's slack covers it. Keeps scales and their inverses normal numbers. */
#define TINY 0x1p-80f

typedef struct {
    double error, norm; /* squared: of value - decoded, and of decoded */
} sums;

/* Keeps the maxima of error / unit and of the decoded norm. */
static void note(double *stats, sums of, float unit) {
    double error = unit > 0 ? sqrt(of.error) / (double)unit : 0, norm = sqrt(of.norm);
    if (error > stats[0]) stats[0] = error;
    if (norm > stats[1]) stats[1] = norm;
}

void mc_encode(int index, uint8_t *const *chunks, uint32_t dense, uint32_t levels, const float *rows, uint64_t first,
               uint64_t n, const float *gains, double *stats) {
    const mc_variant *variant = mc_variant_at(index);
    size_t width = dense + (size_t)levels * MC_LEVEL;
    for (uint64_t at = 0; at < n; ++at) {
        const float *values = rows + at * width;
        uint8_t *chunk = chunks[(first + at) / MC_CHUNK];
        size_t place = (size_t)((first + at) % MC_CHUNK);
        float *scales = (float *)(void *)(chunk + mc_tail_offset(dense, levels));

        float peak = largest(values, dense);
        float unit = peak < TINY ? 0 : peak / 127.0f;
        uint8_t *block = chunk + place / MC_BLOCK * MC_BLOCK * dense + place % MC_BLOCK * 4;
        sums of = {0, 0};
        for (size_t from = 0; from < dense; from += MC_LEVEL) {
            uint8_t codes[MC_LEVEL];
            variant->code(values + from, unit, codes, &of.error, &of.norm);
            for (size_t quad = 0; quad < MC_LEVEL / 4; ++quad)
                memcpy(block + (from / 4 + quad) * 64, codes + quad * 4, 4);
        }
        note(stats, of, unit);
        scales[place] = unit;
        if (!levels) {
            scales[MC_CHUNK + place] = 0;
            continue;
        }

        float tail_unit = 0;
        for (size_t level = 0; level < levels; ++level) {
            float most = largest(values + dense + level * MC_LEVEL, MC_LEVEL) / gains[level];
            tail_unit = most > tail_unit ? most : tail_unit;
        }
        tail_unit = tail_unit < TINY ? 0 : tail_unit / 126.9f; /* the rounding of unit * gain must not pass 127 */
        double beyond[MC_LEVELS], sum = 0; /* tail norm from each level on */
        for (size_t level = levels; level-- > 0;) {
            const float *part = values + dense + level * MC_LEVEL;
            for (size_t i = 0; i < MC_LEVEL; ++i) sum += (double)part[i] * part[i];
            beyond[level] = sqrt(sum) * (1 + 1e-12);
            sums of_part = {0, 0};
            uint8_t *codes = chunk + mc_tail_offset(dense, (uint32_t)level) + place * MC_LEVEL;
            variant->code(part, tail_unit * gains[level], codes, &of_part.error, &of_part.norm);
            note(stats + 2 * (level + 1), of_part, tail_unit * gains[level]);
        }
        float tail = above(beyond[0]);
        scales[MC_CHUNK + place] = tail;
        uint8_t *record = chunk + mc_records_offset(dense, levels) + place * mc_record_bytes(levels);
        memcpy(record, &unit, 4);
        memcpy(record + 4, &tail_unit, 4);
        for (size_t level = 0; level < levels; ++level) {
            double left = level + 1 < levels ? beyond[level + 1] : 0;
            record[8 + level] = tail > 0 ? (uint8_t)ceil(left / tail * 255) : 0;
        }
    }
}

void mc_copy(const uint8_t *const *from, uint8_t *const *to, uint32_t dense, uint32_t levels, const int64_t *rows,
             uint64_t first, uint64_t n) {
    size_t record = mc_record_bytes(levels), records = mc_records_offset(dense, levels);
    for (uint64_t at = 0; at < n; ++at) {
        uint64_t row = (uint64_t)rows[at], new_row = first + at;
        const uint8_t *old = from[row / MC_CHUNK];
        uint8_t *new = to[new_row / MC_CHUNK];
        size_t place = (size_t)(row % MC_CHUNK), new_place = (size_t)(new_row % MC_CHUNK);
        const uint8_t *block = old + place / MC_BLOCK * MC_BLOCK * dense + place % MC_BLOCK * 4;
        uint8_t *new_block = new + new_place / MC_BLOCK * MC_BLOCK * dense + new_place % MC_BLOCK * 4;
        for (size_t quad = 0; quad < dense / 4; ++quad) memcpy(new_block + quad * 64, block + quad * 64, 4);
        for (uint32_t level = 0; level < levels; ++level) {
            size_t offset = mc_tail_offset(dense, level);
            memcpy(new + offset + new_place * MC_LEVEL, old + offset + place * MC_LEVEL, MC_LEVEL);
        }
        size_t scales = mc_tail_offset(dense, levels);
        for (size_t column = 0; column < 2; ++column)
            memcpy(new + scales + (column * MC_CHUNK + new_place) * 4, old + scales + (column * MC_CHUNK + place) * 4, 4);
        memcpy(new + records + new_place * record, old + records + place * record, record);
    }
}
