/* The dense part of every row, or of those that a filter lets through: keeps the pairs that may still win. */
#include <string.h>

#include "sieve.h"

#define SAMPLES 128           /* blocks that are looked at first */
#ifndef SAMPLED
#define SAMPLED 32 /* chunks that make it worth while */
#endif
#define FRESH 8               /* seeds that are looked at together, at least */
#define DIRECT (4 * MC_CHUNK) /* rows that are scored directly one after the other, so that each fetches the next */

/* Blocks [from, to) of a chunk for one query, after their products are there; only to lift tau if nothing is kept. */
static int sift(mc_scan *scan, size_t q, uint64_t chunk, size_t from, size_t to, const int32_t *dots, unsigned keep) {
    const mc_queries *of = &scan->queries;
    uint32_t levels = scan->codes.levels;
    size_t place = q * (levels + 1), begin = from * MC_BLOCK;
    const float *scales = (const float *)(const void *)(scan->codes.chunks[chunk] +
                                                        mc_tail_offset(scan->codes.dense, levels));
    const float *tails = scales + MC_CHUNK;
    float base = of->base[q], step = of->step[place], spread = of->spread[place], reach = of->reach[place];
    float slack = of->slack[place];
    board *b = board_of(scan, q);
    sieve *s = scan->sieves + q;
    uint16_t hits[MC_CHUNK];
    const int32_t *low = of->parts == 2 ? dots + MC_CHUNK : NULL;
    mc_bound bound = {step, spread, reach, board_tau(b) - base - slack};
    size_t found = scan->variant->sift(dots + begin, low ? low + begin : NULL, of->radix, scales + begin,
                                       tails + begin, (to - from) * MC_BLOCK, &bound, hits);
    for (size_t at = 0; at < found; ++at) {
        size_t lane = begin + hits[at];
        uint64_t row = chunk * MC_CHUNK + lane;
        if (row >= scan->codes.rows || (scan->eligible && !scan->eligible[row])) continue;
        int32_t dot = low ? of->radix * dots[lane] + low[lane] : dots[lane];
        float part = base + scales[lane] * step * (float)dot;
        float upper = part + scales[lane] * spread + tails[lane] * reach + slack;
        mc_pair pair = {(uint32_t)row, part, upper, tails[lane]};
        scan->counts.survivors += keep;
        if (keep && sieve_keep(s, pair)) return -1;
        if (!levels) {
            if (reached(scan, b, (double)part - (double)scales[lane] * spread - slack, pair.row, (uint32_t)q)) return -1;
        } else if (s->seed_tau == 0 || part >= board_tau(&s->seeds)) {
            if (reached(scan, &s->seeds, part, pair.row, 0)) return -1;
            ++s->fresh;
        }
    }
    int many = s->fresh >= FRESH && 4 * s->fresh >= s->seeds.settled; /* to look takes a sort of all seeds */
    return keep && many ? sieve_look(scan, q) : 0;
}

/* How many of a block's rows are eligible. */
static uint32_t eligible_of(const mc_scan *scan, uint64_t row) {
    uint32_t count = 0;
    if (row + MC_BLOCK <= scan->codes.rows) {
        uint64_t halves[2];
        memcpy(halves, scan->eligible + row, sizeof halves); /* sixteen bytes of 0 or 1: their sum is the top byte */
        return (uint32_t)((halves[0] + halves[1]) * 0x0101010101010101u >> 56);
    }
    for (; row < scan->codes.rows; ++row) count += scan->eligible[row];
    return count;
}

/* Blocks [from, to) of a chunk, by their codes. */
static int scan_blocks(mc_scan *scan, uint64_t chunk, size_t from, size_t to, unsigned keep) {
    const mc_queries *of = &scan->queries;
    uint64_t begin = chunk * MC_CHUNK + from * MC_BLOCK, end = chunk * MC_CHUNK + (uint64_t)to * MC_BLOCK;
    const uint8_t *scales = scan->codes.chunks[chunk] + mc_tail_offset(scan->codes.dense, scan->codes.levels);
    for (size_t block = from; block < to; ++block) { /* so that they are there when the products are */
        __builtin_prefetch(scales + block * 64);
        __builtin_prefetch(scales + MC_CHUNK * sizeof(float) + block * 64);
    }
    scan->variant->dense(scan->codes.chunks[chunk] + from * MC_BLOCK * scan->codes.dense, to - from,
                         scan->codes.dense / 4, of->dense, of->dense_sums, (size_t)of->count * of->parts,
                         scan->dots + from * MC_BLOCK);
    for (size_t q = 0; q < of->count; ++q)
        if (sift(scan, q, chunk, from, to, scan->dots + q * of->parts * MC_CHUNK, keep)) return -1;
    if (keep) scan->counts.scanned += (end < scan->codes.rows ? end : scan->codes.rows) - begin;
    return 0;
}

/* A first look at blocks from everywhere, for a tau to begin with. Rows of a catalogue lie clip by clip, so neighbours
 * are alike: what the first of them reach says little of what others will. */
static int sample(mc_scan *scan) {
    uint64_t chunks = scan->codes.rows / MC_CHUNK; /* the full ones */
    if (chunks < SAMPLED) return 0;
    for (uint64_t at = 0; at < SAMPLES; ++at) {
        uint64_t chunk = at * chunks / SAMPLES;
        size_t block = at * 37 % (MC_CHUNK / MC_BLOCK);
        if (scan->eligible && !eligible_of(scan, chunk * MC_CHUNK + block * MC_BLOCK)) continue;
        if (scan_blocks(scan, chunk, block, block + 1, 0)) return -1;
    }
    for (size_t q = 0; q < scan->queries.count; ++q)
        if (scan->sieves[q].fresh && sieve_look(scan, q)) return -1;
    return 0;
}

/* Rows that are scored without their codes. */
static int scan_directly(mc_scan *scan, const uint32_t *rows, size_t count) {
    for (size_t at = 0; at < count; ++at) {
        if (at + 1 < count) sieve_prefetch(&scan->originals, rows[at + 1]);
        for (size_t q = 0; q < scan->queries.count; ++q) {
            mc_pair pair = {.row = rows[at]};
            if (sieve_product(scan, &scan->originals, q, &pair)) return -1;
            if (pair.upper < board_tau(board_of(scan, q))) continue;
            pair.part = pair.upper;
            ++scan->counts.survivors;
            if (sieve_keep(scan->sieves + q, pair)) return -1;
        }
    }
    scan->counts.scanned += count;
    return 0;
}

void mc_originals(mc_scan *scan, const float *rows, uint64_t dimensions, const float *queries, const double *margin,
                  uint32_t most) {
    scan->originals = (originals){rows, queries, dimensions, margin};
    scan->most_direct = most;
}

int mc_dense(mc_scan *scan, uint64_t first_chunk, uint64_t last_chunk) {
    if (!scan->sampled && sample(scan)) return -1;
    scan->sampled = 1;
    uint32_t direct[DIRECT];
    size_t few = 0; /* rows to score directly */
    for (uint64_t chunk = first_chunk; chunk < last_chunk; ++chunk) {
        uint64_t begin = chunk * MC_CHUNK, rows = scan->codes.rows - begin;
        size_t blocks = (size_t)((rows < MC_CHUNK ? rows : MC_CHUNK) + MC_BLOCK - 1) / MC_BLOCK;
        if (!scan->eligible) {
            if (scan_blocks(scan, chunk, 0, blocks, 1)) return -1;
            continue;
        }
        uint32_t eligible[MC_CHUNK / MC_BLOCK];
        size_t from = 0, some = 0; /* where a run of blocks begins; blocks with any eligible row */
        for (size_t block = 0; block < blocks; ++block) {
            eligible[block] = eligible_of(scan, begin + block * MC_BLOCK);
            some += eligible[block] > 0;
        }
        /* What lies in one piece comes much faster than rows and blocks here and there. */
        if (4 * some > 3 * blocks) {
            if (scan_blocks(scan, chunk, 0, blocks, 1)) return -1;
            continue;
        }
        uint32_t most = 4 * some <= blocks ? scan->most_direct : 0;
        for (size_t block = 0; block < blocks; ++block) {
            if (eligible[block] > most) continue;
            uint64_t row = begin + block * MC_BLOCK, end = row + MC_BLOCK;
            for (; eligible[block] && row < end && row < scan->codes.rows; ++row)
                if (scan->eligible[row]) direct[few++] = (uint32_t)row;
            if (block > from && scan_blocks(scan, chunk, from, block, 1)) return -1;
            from = block + 1;
        }
        if (blocks > from && scan_blocks(scan, chunk, from, blocks, 1)) return -1;
        if (few <= DIRECT - MC_CHUNK) continue;
        if (scan_directly(scan, direct, few)) return -1;
        few = 0;
    }
    return scan_directly(scan, direct, few);
}
