/* What driver.c searches: random rows and queries, and their scores as plain C computes them. */
#ifndef MATCHCUT_WORLD_H
#define MATCHCUT_WORLD_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scan.h"

#define TINY 0x1p-80

static void *take(size_t bytes) {
    void *memory = malloc(bytes ? bytes : 1);
    if (!memory) exit(2);
    return memory;
}

static void *none(size_t bytes) { return memset(take(bytes), 0, bytes); }

static void fail(const char *what, const char *variant, size_t shape) {
    printf("shape %zu, %s: %s\n", shape, variant, what);
    exit(1);
}

static uint64_t state;

static uint64_t bits(void) { /* xorshift64* */
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (state * 0x2545F4914F6CDD1Du) >> 16;
}

static uint64_t below(uint64_t bound) { return bits() % bound; }
static double uniform(void) { return (double)below(1 << 30) / (1 << 29) - 1; }

typedef struct {
    uint32_t dense, levels, queries;
    uint64_t rows, k;
    int filter, joint, threads; /* filter: none, half, hardly any, nobody */
    int64_t groups;
    uint32_t direct; /* see mc_originals; 0: without them */
} shape;

typedef struct {
    shape of;
    size_t width, chunks;
    float *rows, *queries, *gains;
    int64_t *groups;
    uint8_t *eligible;
    double *scores, *stats, *margin; /* scores: [rows][queries] */
    uint8_t **table;
    double span;
} world;

/* Values fall from level to level, as they do behind principal axes; some rows repeat others, are 0 or all alike. */
static void fill(float *vectors, uint64_t count, const shape *of, size_t width) {
    for (uint64_t row = 0; row < count; ++row) {
        float *values = vectors + row * width;
        double size = ldexp(1, (int)below(5) - 2) * (below(40) != 0);
        int even = below(40) == 0; /* all codes are as large as they get */
        for (size_t at = 0; at < width; ++at) {
            double usual = at < of->dense ? 1 : 0.3 / (double)(1 + (at - of->dense) / 64);
            values[at] = (float)(size * usual * (even ? (at % 3 ? 1 : -1) : uniform()));
        }
        if (row && below(9) == 0) memcpy(values, vectors + below(row) * width, width * sizeof *values);
    }
}

static void make(world *w, shape of) {
    w->of = of;
    w->width = of.dense + (size_t)of.levels * MC_LEVEL;
    w->chunks = (size_t)((of.rows + MC_CHUNK - 1) / MC_CHUNK);
    w->rows = take(of.rows * w->width * sizeof *w->rows);
    w->queries = take(of.queries * w->width * sizeof *w->queries);
    w->gains = take(of.levels * sizeof *w->gains);
    w->groups = take(of.rows * sizeof *w->groups);
    w->eligible = of.filter ? take(of.rows) : NULL;
    w->scores = take(of.rows * of.queries * sizeof *w->scores);
    w->stats = none((of.levels + 1) * 2 * sizeof *w->stats);
    w->margin = take(of.queries * sizeof *w->margin);
    w->table = take(w->chunks * sizeof *w->table);
    fill(w->rows, of.rows, &of, w->width);
    fill(w->queries, of.queries, &of, w->width);
    for (uint32_t level = 0; level < of.levels; ++level) w->gains[level] = 1.0f / (float)(1 + level);
    for (uint64_t row = 0; row < of.rows; ++row) {
        w->groups[row] = (int64_t)below((uint64_t)of.groups) - of.groups / 2;
        if (of.filter) w->eligible[row] = (of.filter == 1 && below(2)) || (of.filter == 2 && below(60) == 0);
    }
    w->span = 0;
    for (uint64_t row = 0; row < of.rows; ++row) {
        double norm = 0;
        for (size_t at = 0; at < w->width; ++at) norm += pow((double)w->rows[row * w->width + at], 2);
        w->span = fmax(w->span, sqrt(norm) * (1 + 0x1p-20));
        for (uint32_t q = 0; q < of.queries; ++q) {
            double sum = 0;
            for (size_t at = 0; at < w->width; ++at)
                sum += (double)w->rows[row * w->width + at] * (double)w->queries[q * w->width + at];
            w->scores[row * of.queries + q] = sum;
        }
    }
}

static uint8_t **chunks_of(const world *w) {
    uint8_t **table = take(w->chunks * sizeof *table);
    size_t bytes = mc_chunk_bytes(w->of.dense, w->of.levels);
    for (size_t at = 0; at < w->chunks; ++at) table[at] = memset(take(bytes), 0xff, bytes); /* NaN behind the rows */
    return table;
}

static void drop_chunks(const world *w, uint8_t **table) {
    for (size_t at = 0; at < w->chunks; ++at) free(table[at]);
    free(table);
}

/* -- queries, as codes.py's code_queries makes them -- */

typedef struct {
    mc_queries native;
    void *memory[9];
} asked;

static void piece(const world *w, const asked *a, uint32_t q, uint32_t at, int32_t limit, double *slack) {
    const shape *of = &w->of;
    uint32_t parts = a->native.parts, stride = of->levels + 1;
    size_t size = at ? MC_LEVEL : of->dense, from = at ? of->dense + (size_t)(at - 1) * MC_LEVEL : 0;
    const float *values = w->queries + q * w->width + from;
    double gain = at ? (double)w->gains[at - 1] : 1, most = 0, norm = 0, off = 0, rest = 0;
    int32_t radix = 2 * limit, finest = parts == 1 ? limit : radix * limit + limit - 1, sums[2] = {0, 0};
    for (size_t i = 0; i < size; ++i) most = fmax(most, fabs((double)values[i]));
    double unit = most / finest < TINY ? 0 : most / finest;
    for (size_t i = 0; i < size; ++i) {
        double code = unit > 0 ? fmin(fmax(rint((double)values[i] / unit), -finest), finest) : 0;
        double high = parts == 1 ? code : rint(code / radix), low = parts == 1 ? 0 : code - radix * high;
        norm += pow((double)values[i], 2);
        off += pow((double)values[i] - code * unit, 2);
        int8_t *place = at ? (int8_t *)a->memory[2] + (size_t)(q * of->levels + at - 1) * 2 * MC_LEVEL
                           : (int8_t *)a->memory[0] + (size_t)q * parts * of->dense;
        place[i] = (int8_t)high;
        if (parts == 2) place[size + i] = (int8_t)low;
        sums[0] += (int32_t)(at ? code : high);
        sums[1] += (int32_t)low;
    }
    if (at) ((int32_t *)a->memory[3])[q * of->levels + at - 1] = sums[0];
    for (uint32_t part = 0; !at && part < parts; ++part) ((int32_t *)a->memory[1])[q * parts + part] = sums[part];
    for (size_t i = from + size; i < w->width; ++i) rest += pow((double)w->queries[q * w->width + i], 2);
    float *spreads = (float *)a->memory[5] + q * stride;
    double spread = sqrt(norm) * gain * w->stats[2 * at] + (at > 1 ? (double)spreads[at - 1] : 0);
    *slack += sqrt(off) * w->stats[2 * at + 1];
    ((float *)a->memory[4])[q * stride + at] = (float)(unit * gain);
    spreads[at] = (float)(spread * (1 + 0x1p-20));
    ((float *)a->memory[6])[q * stride + at] = (float)(sqrt(rest) * (1 + 0x1p-20));
    ((float *)a->memory[7])[q * stride + at] = (float)(*slack * (1 + 0x1p-20));
}

static void ask(world *w, asked *a, int32_t limit) {
    const shape *of = &w->of;
    uint32_t parts = of->levels || of->queries < 3 ? 2 : 1, stride = of->levels + 1, b = of->queries;
    size_t bytes[] = {(size_t)b * parts * of->dense,        b * parts * 4, (size_t)b * of->levels * 2 * MC_LEVEL,
                      b * of->levels * 4, b * stride * 4, b * stride * 4, b * stride * 4, b * stride * 4, b * 4};
    for (size_t at = 0; at < 9; ++at) a->memory[at] = none(bytes[at]);
    a->native = (mc_queries){a->memory[0], a->memory[1], a->memory[2], a->memory[3], a->memory[4], a->memory[5],
                             a->memory[6], a->memory[7], a->memory[8], b, parts, 2 * limit, (uint32_t)of->joint};
    for (uint32_t q = 0; q < b; ++q) {
        double norm = 0;
        for (size_t at = 0; at < w->width; ++at) norm += pow((double)w->queries[q * w->width + at], 2);
        double slack = sqrt(norm) * ((8 * of->levels + 32) * 0x1p-24 * w->span * 1.1 + TINY * sqrt((double)w->width));
        w->margin[q] = 4 * 0x1p-53 * (double)w->width * sqrt(norm) * w->span;
        for (uint32_t at = 0; at <= of->levels; ++at) piece(w, a, q, at, limit, &slack);
    }
}

#endif
