/* One thread's part of a search, as the files that work on it see it: search.c opens and closes it, dense.c scans the
 * dense part of every row, tail.c reads on for the rows that may still win, exact.c has the word of float64. */
#ifndef MATCHCUT_SIEVE_H
#define MATCHCUT_SIEVE_H

#include "board.h"
#include "scan.h"

#define STEPS 65536 /* survivors that one call of mc_tail or mc_narrow works on */

/* What is left for one query. */
typedef struct {
    mc_pair *pairs;
    size_t count, room;
    board seeds; /* the best groups by the dense part alone: worth a full look at once, as they may lift tau */
    uint32_t seed_tau;
    size_t fresh; /* seeds that came since those before were looked at */
    uint32_t level;
    size_t at, kept; /* how far the step under way has come */
    enum { READING, NARROWING, DONE } state;
} sieve;

/* The rows as they came, for float64. */
typedef struct {
    const float *rows, *queries;
    uint64_t dimensions;
    const double *margin; /* how far a product may be off, for each query */
} originals;

struct mc_scan {
    const mc_variant *variant;
    mc_codes codes;
    mc_queries queries;
    const int64_t *groups;
    const uint8_t *eligible;
    sieve *sieves;
    board *boards;
    size_t boards_count;
    int32_t *dots;
    places places;
    mc_counts counts;
    originals originals; /* see mc_originals */
    uint32_t most_direct;
    int sampled; /* whether mc_dense has looked at a few rows from everywhere */
    int looked;  /* whether mc_tail has looked at the seeds */
};

/* exact.c: a pair's float64 product: what its group reaches at least, and what the pair cannot exceed. */
int sieve_product(mc_scan *scan, const originals *of, size_t q, mc_pair *pair);
void sieve_prefetch(const originals *of, uint32_t row);
/* tail.c: looks at all codes of the seeds that it has not looked at: notes what those reach at least. */
int sieve_look(mc_scan *scan, size_t q);
/* search.c: drops what can reach neither tau nor the best of its own group. */
int sieve_refilter(mc_scan *scan, size_t q);
/* search.c: makes room for more pairs. */
int sieve_grow(sieve *s);

static inline board *board_of(const mc_scan *scan, size_t query) {
    return scan->boards + (scan->queries.joint ? 0 : query);
}

static inline int sieve_keep(sieve *s, mc_pair pair) {
    if (s->count == s->room && sieve_grow(s)) return -1;
    s->pairs[s->count++] = pair;
    return 0;
}

/* What a row's group reaches at least. Its group is only looked up, far away in memory, if that is news. */
static inline int reached(mc_scan *scan, board *b, double score, uint32_t row, uint32_t mark) {
    if (score < (double)board_tau(b)) return 0; /* not NaN: 0 bits of tau, as yet nothing, read as one */
    return board_add(&scan->places, b, (leader){score, scan->groups[row], row, mark});
}

#endif
