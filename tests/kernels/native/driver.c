/* Searches random codes with every variant that runs here, and compares what is left with brute force.
 *
 * Compiled with the sources of kernels/native, by itself: so that sanitizers see all of it, and so that it runs under an
 * emulator. board.c and search.c have to be compiled with calloc, realloc and aligned_alloc renamed to those below. Every buffer has
 * exactly the size that scan.h asks for. Prints what ran; ends with 1 where a winner is missing.
 */
#include <inttypes.h>
#include <pthread.h>

#include "world.h"

/* -- memory that runs out when it is told to -- */

static int64_t until_none = -1; /* allocations until there is no memory; negative: there always is */

static int none_left(void) {
    if (until_none < 0) return 0;
    if (until_none == 0) return 1;
    --until_none;
    return 0;
}

void *test_calloc(size_t count, size_t size);
void *test_realloc(void *old, size_t size);
void *test_aligned_alloc(size_t alignment, size_t size);
void *test_calloc(size_t count, size_t size) { return none_left() ? NULL : calloc(count, size); }
void *test_realloc(void *old, size_t size) { return none_left() ? NULL : realloc(old, size); }
void *test_aligned_alloc(size_t alignment, size_t size) {
    return none_left() ? NULL : aligned_alloc(alignment, size);
}

/* -- searching -- */

typedef struct {
    const world *w;
    const asked *a;
    mc_scan *scan;
    uint64_t first, last;
    int code;
} part;

static void *work(void *of) {
    part *p = of;
    int code = mc_dense(p->scan, p->first, p->last);
    while (code >= 0 && (code = mc_tail(p->scan)) == 1) continue;
    while (code >= 0 && (code = mc_narrow(p->scan, p->w->rows, p->w->width, p->w->queries, p->w->margin)) == 1) continue;
    p->code = code;
    return NULL;
}

/* Marks the pairs that are left, [rows][queries]; 0 where memory ran out. */
static int search(const world *w, const asked *a, int variant, uint8_t *left, mc_counts *counts) {
    const shape *of = &w->of;
    mc_codes codes = {(const uint8_t *const *)w->table, of->rows, of->dense, of->levels};
    size_t boards = of->joint ? 1 : of->queries, threads = (size_t)of->threads;
    uint32_t *taus = none(boards * sizeof *taus);
    part parts[2];
    pthread_t others[2];
    int fine = 1;
    for (size_t at = 0; at < threads; ++at) {
        mc_scan *scan = mc_open(variant, &codes, &a->native, w->groups, w->eligible, of->k, -INFINITY, taus, 8);
        if (scan && of->direct) mc_originals(scan, w->rows, w->width, w->queries, w->margin, of->direct);
        parts[at] = (part){w, a, scan, w->chunks * at / threads, w->chunks * (at + 1) / threads, scan ? 0 : -1};
    }
    for (size_t at = 0; at < threads; ++at)
        if (parts[at].scan && pthread_create(others + at, NULL, work, parts + at)) exit(2);
    *counts = (mc_counts){0, 0, 0};
    for (size_t at = 0; at < threads; ++at) {
        if (parts[at].scan) pthread_join(others[at], NULL);
        fine = fine && parts[at].code == 0;
        for (uint32_t q = 0; fine && q < of->queries; ++q) {
            uint64_t found = mc_left(parts[at].scan, q);
            int64_t *rows = take(found * sizeof *rows);
            mc_take(parts[at].scan, q, rows);
            for (uint64_t i = 0; i < found; ++i) ++left[(uint64_t)rows[i] * of->queries + q];
            free(rows);
        }
        mc_counts more;
        if (parts[at].scan) {
            mc_count(parts[at].scan, &more);
            counts->scanned += more.scanned;
            counts->pieces += more.pieces;
        }
    }
    for (size_t at = 0; at < threads; ++at) mc_close(parts[at].scan);
    free(taus);
    return fine;
}

/* Whether no pair that decides is missing: one that is its group's best, where fewer than k groups are better. */
static const char *missing(const world *w, const uint8_t *left) {
    const shape *of = &w->of;
    double *best = take((size_t)of->groups * sizeof *best);
    const char *wrong = NULL;
    for (uint32_t first = 0; first < (of->joint ? 1 : of->queries); ++first) {
        uint32_t last = of->joint ? of->queries : first + 1;
        for (int64_t group = 0; group < of->groups; ++group) best[group] = -INFINITY;
        for (int pass = 0; pass < 2; ++pass)
            for (uint64_t row = 0; row < of->rows; ++row)
                for (uint32_t q = first; q < last; ++q) {
                    double score = w->scores[row * of->queries + q], *own = best + w->groups[row] + of->groups / 2;
                    uint8_t seen = left[row * of->queries + q];
                    if (w->eligible && !w->eligible[row]) {
                        if (seen) wrong = "a row is left that is not eligible";
                    } else if (pass == 0) {
                        *own = fmax(*own, score);
                    } else if (score == *own) {
                        uint64_t better = 0;
                        for (int64_t group = 0; group < of->groups; ++group) better += best[group] > score;
                        if (better < of->k && seen != 1) wrong = "a winner is missing, or is there twice";
                    }
                }
    }
    free(best);
    return wrong;
}

/* Copies all rows in another order and back. */
static const char *copied(const world *w) {
    const shape *of = &w->of;
    const char *wrong = NULL;
    uint8_t **there = chunks_of(w), **back = chunks_of(w);
    int64_t *order = take(of->rows * sizeof *order), *inverse = take(of->rows * sizeof *inverse);
    for (uint64_t at = 0; at < of->rows; ++at) order[at] = (int64_t)at;
    for (uint64_t at = of->rows; at-- > 1;) {
        uint64_t other = below(at + 1);
        int64_t kept = order[at];
        order[at] = order[other];
        order[other] = kept;
    }
    for (uint64_t at = 0; at < of->rows; ++at) inverse[order[at]] = (int64_t)at;
    mc_copy((const uint8_t *const *)w->table, there, of->dense, of->levels, order, 0, of->rows);
    mc_copy((const uint8_t *const *)there, back, of->dense, of->levels, inverse, 0, of->rows);
    size_t used = mc_records_offset(of->dense, of->levels) + MC_CHUNK * mc_record_bytes(of->levels);
    for (size_t at = 0; at < w->chunks; ++at)
        if (memcmp(w->table[at], back[at], used)) wrong = "a copy of a copy differs";
    free(order);
    free(inverse);
    drop_chunks(w, there);
    drop_chunks(w, back);
    return wrong;
}

/* The products of codes with the first queries, one by one, by what scan.h says of where they lie. */
static const char *dots(const world *w, const asked *a, int variant) {
    const shape *of = &w->of;
    mc_codes codes = {(const uint8_t *const *)w->table, of->rows, of->dense, of->levels};
    size_t vectors = (size_t)a->native.count * a->native.parts;
    mc_queries flat = a->native;
    flat.count = (uint32_t)vectors;
    int32_t *sums = none(w->chunks * vectors * MC_CHUNK * sizeof *sums), sum;
    const char *wrong = NULL;
    mc_dots(variant, &codes, &flat, sums);
    for (uint64_t row = 0; row < of->rows; row += 1 + below(20)) {
        uint64_t place = row % MC_CHUNK;
        const uint8_t *chunk = w->table[row / MC_CHUNK];
        for (size_t v = 0; v < vectors; ++v) {
            sum = 0;
            for (size_t i = 0; i < of->dense; ++i) {
                size_t at = place / MC_BLOCK * MC_BLOCK * of->dense + i / 4 * 64 + place % MC_BLOCK * 4 + i % 4;
                sum += (chunk[at] - 128) * flat.dense[v * of->dense + i];
            }
            if (sum != sums[(row / MC_CHUNK * vectors + v) * MC_CHUNK + place]) wrong = "a product of the dense part";
        }
        if (!of->levels) continue;
        uint32_t one = (uint32_t)row;
        int32_t found, expected = 0;
        mc_pieces(variant, &codes, &flat, &one, 1, &found);
        for (size_t i = 0; i < MC_LEVEL; ++i)
            expected += (chunk[mc_tail_offset(of->dense, 0) + place * MC_LEVEL + i] - 128) *
                        (flat.radix * flat.tail[i] + flat.tail[MC_LEVEL + i]);
        if (found != expected) wrong = "a product of the tail";
    }
    free(sums);
    return wrong;
}

static void run(world *w, int variant, size_t number, int starve, uint64_t *pieces) {
    const shape *of = &w->of;
    const char *name = mc_variant_name(variant), *wrong;
    asked a;
    mc_counts counts;
    w->table = chunks_of(w);
    memset(w->stats, 0, (of->levels + 1) * 2 * sizeof *w->stats);
    mc_encode(variant, w->table, of->dense, of->levels, w->rows, 0, of->rows / 3, w->gains, w->stats);
    mc_encode(variant, w->table, of->dense, of->levels, w->rows + of->rows / 3 * w->width, of->rows / 3,
              of->rows - of->rows / 3, w->gains, w->stats);
    ask(w, &a, mc_variant_limit(variant));
    uint8_t *left = none(of->rows * of->queries);
    for (int64_t allowed = 0; starve && of->threads == 1; ++allowed) {
        until_none = allowed;
        int fine = search(w, &a, variant, left, &counts), ended = until_none == 0 && !fine;
        until_none = -1;
        memset(left, 0, of->rows * of->queries);
        if (fine) break;
        if (!ended) fail("it failed though there was memory", name, number);
    }
    if (!search(w, &a, variant, left, &counts)) fail("no memory", name, number);
    *pieces += counts.pieces;
    if (!of->filter && counts.scanned != of->rows) fail("not every row was scanned once", name, number);
    if ((wrong = missing(w, left)) || (wrong = copied(w)) || (wrong = dots(w, &a, variant))) fail(wrong, name, number);
    free(left);
    for (size_t at = 0; at < 9; ++at) free(a.memory[at]);
    drop_chunks(w, w->table);
}

int main(int count, char **arguments) {
    static const uint32_t denses[] = {64, 128, 192}, levels[] = {0, 1, 5}, queries[] = {1, 2, 3, 4, 5, 7, 8, 17};
    static const uint64_t rows[] = {0, 1, 15, 16, 17, 1023, 1024, 1025, 2100}, most[] = {1, 4, 50, 5000};
    static const int64_t groups[] = {1, 30, 4000};
    size_t shapes = count > 1 ? strtoul(arguments[1], NULL, 10) : 48, starved = 0;
    uint64_t pieces = 0;
    for (size_t at = 0; at < shapes; ++at) {
        state = at + 1;
        for (int turn = 0; turn < 9; ++turn) bits(); /* small seeds begin with alike numbers */
        shape of = {denses[below(3)], levels[at % 3], queries[at % 8], rows[at % 9], most[below(4)],
                    (int)below(4),    at % 2 == 0,    1 + (int)below(2), groups[below(3)],
                    at % 3 ? 0 : (uint32_t)below(17)}; /* only where there is no tail */
        world w;
        make(&w, of);
        free(w.table);
        for (int variant = 0; variant < mc_variant_count(); ++variant)
            if (!mc_variant_lacks(variant)) run(&w, variant, at, at < 12, &pieces);
        starved += at < 12 && of.threads == 1;
        void *memory[] = {w.rows, w.queries, w.gains, w.groups, w.eligible, w.scores, w.stats, w.margin};
        for (size_t i = 0; i < sizeof memory / sizeof *memory; ++i) free(memory[i]);
    }
    for (int variant = 0; variant < mc_variant_count(); ++variant)
        if (mc_variant_lacks(variant))
            printf("lacks %s: %s\n", mc_variant_name(variant), mc_variant_lacks(variant));
        else
            printf("ran %s\n", mc_variant_name(variant));
    printf("shapes %zu\nstarved %zu\npieces %" PRIu64 "\n", shapes, starved, pieces);
    return 0;
}
