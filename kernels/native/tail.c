/* The tail of the pairs that the dense part has left, level by level, each time for those that are left of them. */
#include <string.h>

#include "sieve.h"

#define BATCH 256 /* survivors whose pieces are read at a time */
#define MANY 1024 /* leaders, too many to score in float64 in one go */
#define AHEAD 6   /* levels of a row that are fetched before they are needed */

static const uint8_t *record_of(const mc_scan *scan, uint32_t row) {
    return scan->codes.chunks[row / MC_CHUNK] + mc_records_offset(scan->codes.dense, scan->codes.levels) +
           row % MC_CHUNK * mc_record_bytes(scan->codes.levels);
}

static void scales_of(const uint8_t *record, float *dense, float *tail) {
    memcpy(dense, record, 4);
    memcpy(tail, record + 4, 4);
}

static float tail_of(const mc_scan *scan, uint32_t row) {
    float tail;
    const uint8_t *chunk = scan->codes.chunks[row / MC_CHUNK] + mc_tail_offset(scan->codes.dense, scan->codes.levels);
    memcpy(&tail, chunk + (MC_CHUNK + row % MC_CHUNK) * sizeof tail, sizeof tail);
    return tail;
}

static void prefetch_first(const mc_scan *scan, uint32_t row) {
    const uint8_t *pieces = scan->codes.chunks[row / MC_CHUNK] + (size_t)(row % MC_CHUNK) * MC_LEVEL;
    __builtin_prefetch(record_of(scan, row));
    __builtin_prefetch(scan->groups + row);
    for (uint32_t level = 0; level < scan->codes.levels && level < AHEAD; ++level)
        __builtin_prefetch(pieces + mc_tail_offset(scan->codes.dense, level));
}

/* A look at all of a row's codes, unless it turns out that it cannot win: notes what it reaches at least. */
static int look(mc_scan *scan, size_t q, uint32_t row, double part) {
    uint32_t levels = scan->codes.levels, stride = levels + 1;
    const mc_queries *of = &scan->queries;
    board *b = board_of(scan, q);
    float dense, tail, beyond = tail_of(scan, row), floor = board_tau(b);
    mc_pair pair = {.row = row};
    const uint8_t *pieces = scan->codes.chunks[row / MC_CHUNK] + (size_t)(row % MC_CHUNK) * MC_LEVEL;
    const uint8_t *record = record_of(scan, row);
    scales_of(record, &dense, &tail);
    for (uint32_t level = 0; level < levels; ++level) {
        if (level + AHEAD < levels) __builtin_prefetch(pieces + mc_tail_offset(scan->codes.dense, level + AHEAD));
        size_t place = q * stride + level + 1;
        int32_t dot;
        scan->variant->sparse(scan->codes.chunks, mc_tail_offset(scan->codes.dense, level), &pair, 1, 1,
                              of->tail + (q * levels + level) * 2 * MC_LEVEL, of->radix,
                              of->tail_sums[q * levels + level], &dot);
        ++scan->counts.pieces;
        part += (double)tail * of->step[place] * dot;
        float known = dense * of->spread[q * stride] + tail * of->spread[place] + of->slack[place];
        float rest = beyond * (float)record[8 + level] * of->reach[place] / 255.0f;
        if ((float)part + known + rest < floor) return 0;
    }
    part -= (double)dense * of->spread[q * stride] + (double)tail * of->spread[q * stride + levels] +
            of->slack[q * stride + levels];
    return reached(scan, b, part, row, (uint32_t)q);
}

int sieve_look(mc_scan *scan, size_t q) {
    board *seeds = &scan->sieves[q].seeds;
    if (board_settle(&scan->places, seeds)) return -1;
    scan->sieves[q].fresh = 0;
    size_t fetched = 0;
    for (size_t at = 0; at < seeds->count && fetched < 64; ++at)
        if (!seeds->leaders[at].mark) {
            prefetch_first(scan, seeds->leaders[at].row);
            ++fetched;
        }
    for (size_t at = 0; at < seeds->count; ++at) {
        if (seeds->leaders[at].mark) continue;
        seeds->leaders[at].mark = 1;
        if (look(scan, q, seeds->leaders[at].row, seeds->leaders[at].score)) return -1;
    }
    board *b = board_of(scan, q);
    return b->count - b->settled > b->k / 4 ? board_settle(&scan->places, b) : 0;
}

static size_t few(const mc_scan *scan, size_t q) {
    size_t k = (size_t)board_of(scan, q)->k;
    return k < 22 ? 64 : 3 * k;
}

/* One batch of survivors at the sieve's level. */
static void read_on(mc_scan *scan, size_t q, size_t count) {
    sieve *s = scan->sieves + q;
    const mc_queries *of = &scan->queries;
    uint32_t levels = scan->codes.levels, level = s->level;
    size_t place = q * (levels + 1);
    float step = of->step[place + level + 1], dense_spread = of->spread[place], spread = of->spread[place + level + 1];
    float reach = of->reach[place + level + 1] / 255.0f, slack = of->slack[place + level + 1];
    float floor = board_tau(board_of(scan, q));
    mc_pair *pairs = s->pairs + s->at;
    size_t ahead = s->count - s->at;
    int32_t dots[BATCH];
    scan->variant->sparse(scan->codes.chunks, mc_tail_offset(scan->codes.dense, level), pairs, count, ahead,
                          of->tail + (q * levels + level) * 2 * MC_LEVEL, of->radix,
                          of->tail_sums[q * levels + level], dots);
    for (size_t at = 0; at < count; ++at) {
        if (at + 24 < ahead) __builtin_prefetch(record_of(scan, pairs[at + 24].row));
        mc_pair pair = pairs[at];
        const uint8_t *record = record_of(scan, pair.row);
        float dense, tail;
        scales_of(record, &dense, &tail);
        pair.part += tail * step * (float)dots[at];
        pair.upper = pair.part + dense * dense_spread + tail * spread + pair.tail * (float)record[8 + level] * reach +
                     slack;
        if (pair.upper >= floor) s->pairs[s->kept++] = pair;
    }
    scan->counts.pieces += count;
}

/* Looks at the best groups by the dense part, now that all rows have been seen, and has float64 say what those reach
 * that lead by their codes: tau is then nearly what it is in the end. */
static int look_at_seeds(mc_scan *scan) {
    for (size_t q = 0; q < scan->queries.count; ++q)
        if (sieve_look(scan, q)) return -1;
    for (size_t of = 0; scan->originals.rows && of < scan->boards_count; ++of) {
        board *b = scan->boards + of;
        if (b->k > MANY) continue;
        if (board_settle(&scan->places, b)) return -1;
        for (size_t at = 0, count = b->count; at < count; ++at) {
            mc_pair pair = {.row = b->leaders[at].row};
            if (at + 1 < count) sieve_prefetch(&scan->originals, b->leaders[at + 1].row);
            if (sieve_product(scan, &scan->originals, b->leaders[at].mark, &pair)) return -1;
        }
        if (board_settle(&scan->places, b)) return -1;
    }
    return 0;
}

int mc_tail(mc_scan *scan) {
    size_t budget = STEPS;
    if (scan->codes.levels && !scan->looked) {
        if (look_at_seeds(scan)) return -1;
        scan->looked = 1;
    }
    for (size_t q = 0; q < scan->queries.count; ++q) {
        sieve *s = scan->sieves + q;
        while (s->state == READING) {
            if (!budget) return 1;
            if (s->at == 0) {
                if (sieve_refilter(scan, q)) return -1;
                s->kept = 0;
                if (s->level == scan->codes.levels || s->count <= few(scan, q)) {
                    s->state = NARROWING;
                    break;
                }
            }
            size_t count = s->count - s->at < BATCH ? s->count - s->at : BATCH;
            count = count < budget ? count : budget;
            read_on(scan, q, count);
            s->at += count;
            budget -= count;
            if (s->at < s->count) continue;
            s->count = s->kept;
            s->at = 0;
            ++s->level;
        }
    }
    return 0;
}
