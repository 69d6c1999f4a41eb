/* The word of float64, within the margin that codes.py proves. */
#include <math.h>
#include <stdlib.h>

#include "sieve.h"

/* The float32 at or above. */
static float above(double value) {
    float rounded = (float)value;
    return rounded < value ? nextafterf(rounded, INFINITY) : rounded;
}

int sieve_product(mc_scan *scan, const originals *of, size_t q, mc_pair *pair) {
    double score = scan->variant->wide(of->queries + q * of->dimensions, of->rows + pair->row * of->dimensions,
                                       of->dimensions);
    pair->upper = above(score + of->margin[q]);
    return reached(scan, board_of(scan, q), score - of->margin[q], pair->row, (uint32_t)q);
}

void sieve_prefetch(const originals *of, uint32_t row) {
    const float *values = of->rows + row * of->dimensions;
    for (size_t at = 0; at < of->dimensions; at += 16) __builtin_prefetch(values + at);
}

static int falling_part(const void *a, const void *b) {
    float x = ((const mc_pair *)a)->part, y = ((const mc_pair *)b)->part;
    return (x < y) - (x > y);
}

int mc_narrow(mc_scan *scan, const float *rows, uint64_t dimensions, const float *queries, const double *margin) {
    originals of = {rows, queries, dimensions, margin};
    size_t budget = STEPS / 16;
    for (size_t q = 0; q < scan->queries.count; ++q) {
        sieve *s = scan->sieves + q;
        board *b = board_of(scan, q);
        if (s->state == DONE) continue;
        if (s->at == 0) {
            if (sieve_refilter(scan, q)) return -1;
            if (s->count) qsort(s->pairs, s->count, sizeof *s->pairs, falling_part); /* the best lift tau early */
            s->kept = 0;
        }
        for (; s->at < s->count; ++s->at) {
            mc_pair pair = s->pairs[s->at];
            if (pair.upper < board_tau(b)) continue;
            if (!budget) return 1;
            --budget;
            if (s->at + 1 < s->count) sieve_prefetch(&of, s->pairs[s->at + 1].row);
            if (sieve_product(scan, &of, q, &pair)) return -1;
            s->pairs[s->kept++] = pair;
        }
        s->count = s->kept;
        s->state = DONE;
    }
    for (size_t q = 0; q < scan->queries.count; ++q)
        if (sieve_refilter(scan, q)) return -1;
    return 0;
}
