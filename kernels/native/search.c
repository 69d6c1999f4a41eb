/* Opening and closing a scan, and what the other files share of it. */
#include <stdlib.h>

#include "sieve.h"

#define GROUPED 2 /* levels that are read before pairs are compared with the best of their own group */

void mc_close(mc_scan *scan) {
    if (!scan) return;
    for (size_t q = 0; scan->sieves && q < scan->queries.count; ++q) {
        free(scan->sieves[q].pairs);
        free(scan->sieves[q].seeds.leaders);
    }
    for (size_t at = 0; scan->boards && at < scan->boards_count; ++at) free(scan->boards[at].leaders);
    free(scan->sieves);
    free(scan->boards);
    free(scan->dots);
    free(scan->places.table);
    free(scan);
}

mc_scan *mc_open(int variant, const mc_codes *codes, const mc_queries *queries, const int64_t *groups,
                 const uint8_t *eligible, uint64_t k, float minimum, uint32_t *taus, uint64_t seeds) {
    mc_scan *scan = calloc(1, sizeof *scan);
    if (!scan) return NULL;
    scan->variant = mc_variant_at(variant);
    scan->codes = *codes;
    scan->queries = *queries;
    scan->groups = groups;
    scan->eligible = eligible;
    scan->boards_count = queries->joint ? 1 : queries->count;
    scan->sieves = calloc(queries->count, sizeof *scan->sieves);
    scan->boards = calloc(scan->boards_count, sizeof *scan->boards);
    scan->dots = aligned_alloc(64, (size_t)queries->count * queries->parts * sizeof(int32_t) * MC_CHUNK);
    if (!scan->sieves || !scan->boards || !scan->dots) {
        mc_close(scan);
        return NULL;
    }
    for (size_t at = 0; at < scan->boards_count; ++at) {
        scan->boards[at].k = k;
        scan->boards[at].limit = 64;
        scan->boards[at].tau = taus + at;
        board_lift(scan->boards + at, minimum);
    }
    for (size_t q = 0; q < queries->count; ++q)
        scan->sieves[q].seeds = (board){.k = seeds, .limit = 64, .tau = &scan->sieves[q].seed_tau};
    return scan;
}

int sieve_grow(sieve *s) {
    size_t room = s->room ? 2 * s->room : 1024;
    mc_pair *more = realloc(s->pairs, room * sizeof *more);
    if (!more) return -1;
    s->pairs = more;
    s->room = room;
    return 0;
}

int sieve_refilter(mc_scan *scan, size_t q) {
    sieve *s = scan->sieves + q;
    board *b = board_of(scan, q);
    size_t kept = 0;
    /* Groups lie far away in memory: where many pairs are left, and tails to read, most can go without. */
    int own_group = s->state != READING || s->level >= GROUPED || s->level == scan->codes.levels;
    if (board_settle(&scan->places, b)) return -1;
    float floor = board_tau(b);
    for (size_t at = 0; at < s->count; ++at) {
        if (!(s->pairs[at].upper >= floor)) continue;
        if (!own_group) {
            s->pairs[kept++] = s->pairs[at];
            continue;
        }
        if (at + 24 < s->count) __builtin_prefetch(scan->groups + s->pairs[at + 24].row);
        uint32_t own = *board_place(&scan->places, b, scan->groups[s->pairs[at].row]);
        if (!own || s->pairs[at].upper >= b->leaders[own - 1].score) s->pairs[kept++] = s->pairs[at];
    }
    s->count = kept;
    return 0;
}

uint64_t mc_left(const mc_scan *scan, uint32_t query) { return scan->sieves[query].count; }

void mc_take(const mc_scan *scan, uint32_t query, int64_t *rows) {
    for (size_t at = 0; at < scan->sieves[query].count; ++at) rows[at] = scan->sieves[query].pairs[at].row;
}

void mc_count(const mc_scan *scan, mc_counts *counts) { *counts = scan->counts; }

void mc_dots(int variant, const mc_codes *codes, const mc_queries *queries, int32_t *dots) {
    for (uint64_t chunk = 0; chunk * MC_CHUNK < codes->rows; ++chunk) {
        uint64_t rows = codes->rows - chunk * MC_CHUNK;
        size_t blocks = (size_t)((rows < MC_CHUNK ? rows : MC_CHUNK) + MC_BLOCK - 1) / MC_BLOCK;
        mc_variant_at(variant)->dense(codes->chunks[chunk], blocks, codes->dense / 4, queries->dense,
                                      queries->dense_sums, queries->count, dots + chunk * queries->count * MC_CHUNK);
    }
}

void mc_pieces(int variant, const mc_codes *codes, const mc_queries *queries, const uint32_t *rows, uint64_t count,
               int32_t *dots) {
    for (uint64_t at = 0; at < count; ++at) {
        mc_pair pair = {.row = rows[at]};
        mc_variant_at(variant)->sparse(codes->chunks, mc_tail_offset(codes->dense, 0), &pair, 1, 1, queries->tail,
                                       queries->radix, queries->tail_sums[0], dots + at);
    }
}
