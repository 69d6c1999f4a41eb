/* One thread's part of a search: scans chunks, keeps the rows that may still win, reads on for those alone.
 *
 * `tau` is a score that k groups are known to reach, so whatever cannot reach it is out. It only rises. All scans of a
 * search share the best that any of them knows. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "scan.h"

#define BATCH 256     /* survivors whose pieces are read at a time */
#define STEPS 65536   /* survivors that one call of mc_tail or mc_narrow works on */

typedef struct {
    double score;
    int64_t group;
    uint32_t row;
} leader;

/* The k best groups by what they are known to reach, and others that wait to be compared with them. */
typedef struct {
    leader *leaders;
    size_t count, limit, room;
    uint64_t k;
    uint32_t *tau; /* what the k-th reaches */
} board;

/* What is left for one query. */
typedef struct {
    mc_pair *pairs;
    size_t count, room;
    board seeds; /* the best groups by the dense part alone: worth a full look at once, as they may lift tau */
    uint32_t seed_tau;
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
    uint32_t *table; /* by group: 1 + the place of its leader on the board that was settled last; 0: none */
    size_t table_size, table_room;
    unsigned table_shift; /* 64 less the bits of table_size */
    mc_counts counts;
    originals direct; /* see mc_direct */
    uint32_t most_direct;
};

/* -- tau, as an integer that orders like the float -- */

static uint32_t ordered(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

static float unordered(uint32_t bits) {
    float value;
    bits = bits >> 31 ? bits & 0x7fffffffu : ~bits;
    memcpy(&value, &bits, 4);
    return value;
}

static float tau(const board *b) { return unordered(__atomic_load_n(b->tau, __ATOMIC_RELAXED)); }

/* The float32 at or above. */
static float above(double value) {
    float rounded = (float)value;
    return rounded < value ? nextafterf(rounded, INFINITY) : rounded;
}

static void lift(board *b, double score) {
    float below = (float)score;
    if (below > score) below = nextafterf(below, -INFINITY);
    uint32_t wanted = ordered(below), now = __atomic_load_n(b->tau, __ATOMIC_RELAXED);
    while (now < wanted &&
           !__atomic_compare_exchange_n(b->tau, &now, wanted, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
}

/* -- boards -- */

static int falling(const void *a, const void *b) {
    double x = ((const leader *)a)->score, y = ((const leader *)b)->score;
    return (x < y) - (x > y);
}

/* The group's place in the table, or the free one where it belongs. The table is at most half full. */
static uint32_t *place_of(const mc_scan *scan, const board *b, int64_t group) {
    size_t mask = scan->table_size - 1, at = ((uint64_t)group * 0x9E3779B97F4A7C15u) >> scan->table_shift;
    while (scan->table[at] && b->leaders[scan->table[at] - 1].group != group) at = (at + 1) & mask;
    return scan->table + at;
}

/* Keeps the best entry of each of the k best groups. */
static int settle(mc_scan *scan, board *b) {
    size_t size = 64, kept = 0;
    unsigned shift = 58; /* the upper bits of a product depend on all bits of the group */
    for (; size < 2 * b->count; --shift) size *= 2;
    if (size > scan->table_room) {
        uint32_t *table = realloc(scan->table, size * sizeof *table);
        if (!table) return -1;
        scan->table = table;
        scan->table_room = size;
    }
    scan->table_size = size;
    scan->table_shift = shift;
    memset(scan->table, 0, size * sizeof *scan->table);
    if (b->count) qsort(b->leaders, b->count, sizeof *b->leaders, falling);
    for (size_t at = 0; at < b->count && kept < b->k; ++at) {
        uint32_t *place = place_of(scan, b, b->leaders[at].group);
        if (*place) continue;
        b->leaders[kept++] = b->leaders[at];
        *place = (uint32_t)kept;
    }
    b->count = kept;
    b->limit = kept + (kept > 64 ? kept : 64);
    if (kept == b->k) lift(b, b->leaders[kept - 1].score);
    return 0;
}

/* Notes what a row's group is known to reach. */
static int reached(mc_scan *scan, board *b, double score, uint32_t row) {
    if (score < (double)tau(b)) return 0; /* not NaN: 0 bits of tau, as yet nothing, read as one */
    if (b->count == b->room) {
        size_t room = b->room ? 2 * b->room : 256;
        leader *more = realloc(b->leaders, room * sizeof *more);
        if (!more) return -1;
        b->leaders = more;
        b->room = room;
    }
    b->leaders[b->count++] = (leader){score, scan->groups[row], row};
    return b->count >= b->limit ? settle(scan, b) : 0;
}

/* -- opening and closing -- */

static board *board_of(const mc_scan *scan, size_t query) {
    return scan->boards + (scan->queries.joint ? 0 : query);
}

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
    free(scan->table);
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
        lift(scan->boards + at, minimum);
    }
    for (size_t q = 0; q < queries->count; ++q)
        scan->sieves[q].seeds = (board){.k = seeds, .limit = 64, .tau = &scan->sieves[q].seed_tau};
    return scan;
}

/* -- one row through all levels -- */

static const uint8_t *record_of(const mc_scan *scan, uint32_t row) {
    return scan->codes.chunks[row / MC_CHUNK] + mc_records_offset(scan->codes.dense, scan->codes.levels) +
           row % MC_CHUNK * mc_record_bytes(scan->codes.levels);
}

static void scales_of(const uint8_t *record, float *dense, float *tail) {
    memcpy(dense, record, 4);
    memcpy(tail, record + 4, 4);
}

/* A full look at a row, whose part is known, by its codes: notes what it reaches at least. */
static int look(mc_scan *scan, size_t q, uint32_t row, double part) {
    uint32_t levels = scan->codes.levels, stride = levels + 1;
    const mc_queries *of = &scan->queries;
    float dense, tail;
    mc_pair pair = {.row = row};
    const uint8_t *pieces = scan->codes.chunks[row / MC_CHUNK] + (size_t)(row % MC_CHUNK) * MC_LEVEL;
    for (uint32_t level = 0; level < levels; ++level)
        __builtin_prefetch(pieces + mc_tail_offset(scan->codes.dense, level));
    scales_of(record_of(scan, row), &dense, &tail);
    for (uint32_t level = 0; level < levels; ++level) {
        int32_t dot;
        scan->variant->sparse(scan->codes.chunks, mc_tail_offset(scan->codes.dense, level), &pair, 1, 1,
                              of->tail + (q * levels + level) * 2 * MC_LEVEL, of->radix,
                              of->tail_sums[q * levels + level], &dot);
        part += (double)tail * of->step[q * stride + level + 1] * dot;
    }
    scan->counts.pieces += levels;
    part -= (double)dense * of->spread[q * stride] + (double)tail * of->spread[q * stride + levels] +
            of->slack[q * stride + levels];
    return reached(scan, board_of(scan, q), part, row);
}

/* -- the dense part of every row -- */

static int keep(sieve *s, mc_pair pair) {
    if (s->count == s->room) {
        size_t room = s->room ? 2 * s->room : 1024;
        mc_pair *more = realloc(s->pairs, room * sizeof *more);
        if (!more) return -1;
        s->pairs = more;
        s->room = room;
    }
    s->pairs[s->count++] = pair;
    return 0;
}

/* Blocks [from, to) of a chunk for one query, after their products are there. */
static int sift(mc_scan *scan, size_t q, uint64_t chunk, size_t from, size_t to, const int32_t *dots) {
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
    mc_bound bound = {step, spread, reach, tau(b) - base - slack};
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
        ++scan->counts.survivors;
        if (keep(s, pair)) return -1;
        if (!levels) {
            if (reached(scan, b, (double)part - (double)scales[lane] * spread - slack, pair.row)) return -1;
        } else if (s->seed_tau == 0 || part >= tau(&s->seeds)) {
            if (s->seed_tau && look(scan, q, pair.row, part)) return -1;
            if (reached(scan, &s->seeds, part, pair.row)) return -1;
        }
    }
    return 0;
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
static int scan_blocks(mc_scan *scan, uint64_t chunk, size_t from, size_t to) {
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
        if (sift(scan, q, chunk, from, to, scan->dots + q * of->parts * MC_CHUNK)) return -1;
    scan->counts.scanned += (end < scan->codes.rows ? end : scan->codes.rows) - begin;
    return 0;
}

/* A pair's float64 product: what its group reaches at least, and what the pair cannot exceed. */
static int product(mc_scan *scan, const originals *of, size_t q, mc_pair *pair) {
    double score = scan->variant->wide(of->queries + q * of->dimensions, of->rows + pair->row * of->dimensions,
                                       of->dimensions);
    pair->upper = above(score + of->margin[q]);
    return reached(scan, board_of(scan, q), score - of->margin[q], pair->row);
}

static void prefetch_row(const originals *of, uint32_t row) {
    const float *values = of->rows + row * of->dimensions;
    for (size_t at = 0; at < of->dimensions; at += 16) __builtin_prefetch(values + at);
}

/* Rows that are scored without their codes. */
static int scan_directly(mc_scan *scan, const uint32_t *rows, size_t count) {
    for (size_t at = 0; at < count; ++at) {
        if (at + 1 < count) prefetch_row(&scan->direct, rows[at + 1]);
        for (size_t q = 0; q < scan->queries.count; ++q) {
            mc_pair pair = {.row = rows[at]};
            if (product(scan, &scan->direct, q, &pair)) return -1;
            if (pair.upper < tau(board_of(scan, q))) continue;
            pair.part = pair.upper;
            ++scan->counts.survivors;
            if (keep(scan->sieves + q, pair)) return -1;
        }
    }
    scan->counts.scanned += count;
    return 0;
}

void mc_direct(mc_scan *scan, const float *rows, uint64_t dimensions, const float *queries, const double *margin,
               uint32_t most) {
    scan->direct = (originals){rows, queries, dimensions, margin};
    scan->most_direct = most;
}

int mc_dense(mc_scan *scan, uint64_t first_chunk, uint64_t last_chunk) {
    for (uint64_t chunk = first_chunk; chunk < last_chunk; ++chunk) {
        uint64_t begin = chunk * MC_CHUNK, rows = scan->codes.rows - begin;
        size_t blocks = (size_t)((rows < MC_CHUNK ? rows : MC_CHUNK) + MC_BLOCK - 1) / MC_BLOCK;
        if (!scan->eligible) {
            if (scan_blocks(scan, chunk, 0, blocks)) return -1;
            continue;
        }
        uint32_t eligible[MC_CHUNK / MC_BLOCK], direct[MC_CHUNK];
        size_t from = 0, few = 0, some = 0; /* where a run of blocks begins; rows to score directly; blocks with any */
        for (size_t block = 0; block < blocks; ++block) {
            eligible[block] = eligible_of(scan, begin + block * MC_BLOCK);
            some += eligible[block] > 0;
        }
        /* What lies in one piece comes much faster than rows and blocks here and there. */
        if (4 * some > 3 * blocks) {
            if (scan_blocks(scan, chunk, 0, blocks)) return -1;
            continue;
        }
        uint32_t most = 4 * some <= blocks ? scan->most_direct : 0;
        for (size_t block = 0; block < blocks; ++block) {
            if (eligible[block] > most) continue;
            uint64_t row = begin + block * MC_BLOCK, end = row + MC_BLOCK;
            for (; eligible[block] && row < end && row < scan->codes.rows; ++row)
                if (scan->eligible[row]) direct[few++] = (uint32_t)row;
            if (block > from && scan_blocks(scan, chunk, from, block)) return -1;
            from = block + 1;
        }
        if (blocks > from && scan_blocks(scan, chunk, from, blocks)) return -1;
        if (scan_directly(scan, direct, few)) return -1;
    }
    return 0;
}

/* -- the tail of those that are left -- */

/* Drops what can reach neither tau nor the best of its own group. */
static int refilter(mc_scan *scan, size_t q) {
    sieve *s = scan->sieves + q;
    board *b = board_of(scan, q);
    size_t kept = 0;
    if (settle(scan, b)) return -1;
    float floor = tau(b);
    for (size_t at = 0; at < s->count; ++at) {
        if (!(s->pairs[at].upper >= floor)) continue;
        uint32_t own = *place_of(scan, b, scan->groups[s->pairs[at].row]);
        if (!own || s->pairs[at].upper >= b->leaders[own - 1].score) s->pairs[kept++] = s->pairs[at];
    }
    s->count = kept;
    return 0;
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
    float floor = tau(board_of(scan, q));
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

/* Looks at the best groups by the dense part, now that all rows have been seen. */
static int look_at_seeds(mc_scan *scan, size_t q) {
    board *seeds = &scan->sieves[q].seeds;
    if (settle(scan, seeds)) return -1;
    for (size_t at = 0; at < seeds->count; ++at)
        if (look(scan, q, seeds->leaders[at].row, seeds->leaders[at].score)) return -1;
    return 0;
}

int mc_tail(mc_scan *scan) {
    size_t budget = STEPS;
    for (size_t q = 0; q < scan->queries.count; ++q) {
        sieve *s = scan->sieves + q;
        while (s->state == READING) {
            if (!budget) return 1;
            if (s->at == 0) {
                if (s->level == 0 && look_at_seeds(scan, q)) return -1;
                if (refilter(scan, q)) return -1;
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

/* -- float64 -- */

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
            if (refilter(scan, q)) return -1;
            if (s->count) qsort(s->pairs, s->count, sizeof *s->pairs, falling_part); /* the best lift tau early */
            s->kept = 0;
        }
        for (; s->at < s->count; ++s->at) {
            mc_pair pair = s->pairs[s->at];
            if (pair.upper < tau(b)) continue;
            if (!budget) return 1;
            --budget;
            if (s->at + 1 < s->count) prefetch_row(&of, s->pairs[s->at + 1].row);
            if (product(scan, &of, q, &pair)) return -1;
            s->pairs[s->kept++] = pair;
        }
        s->count = s->kept;
        s->state = DONE;
    }
    for (size_t q = 0; q < scan->queries.count; ++q)
        if (refilter(scan, q)) return -1;
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
