/* The exact scan of coded rows: what crosses from Python (ctypes) into C, and what each variant provides.
 *
 * ../codes.py says how rows are coded and proves the bounds; this file fixes how they lie in memory.
 *
 * A chunk holds MC_CHUNK rows of `dense` + 64 * `levels` dimensions, one byte each, the code plus 128:
 *   dense part   for each block of 16 rows, for each quad of dimensions: 16 rows x 4 dimensions = 64 bytes. A vector
 *                register takes the same four dimensions of many rows, so that no sum crosses lanes; 64 dimensions of
 *                a block are 1 KiB, which is exactly the B tile of AMX.
 *   tail levels  for each level: MC_CHUNK rows x 64 dimensions, a cache line for each row and level.
 *   float        scale of the dense part, MC_CHUNK of them, then tail norms, MC_CHUNK of them.
 *   records      for each row, if there are levels: float scale of the dense part, float scale of the tail, and for
 *                each level a byte: tail norm after it, in 255ths of the tail norm, rounded up.
 */
#ifndef MATCHCUT_SCAN_H
#define MATCHCUT_SCAN_H

#include <stddef.h>
#include <stdint.h>

#define MC_CHUNK 1024
#define MC_BLOCK 16
#define MC_LEVEL 64
#define MC_LEVELS 512 /* tail levels at most */
#define MC_API __attribute__((visibility("default")))

typedef struct {
    const uint8_t *const *chunks; /* (rows + MC_CHUNK - 1) / MC_CHUNK */
    uint64_t rows;
    uint32_t dense;  /* dimensions that are scanned for every row: a positive multiple of MC_LEVEL */
    uint32_t levels; /* tail levels of MC_LEVEL dimensions each */
} mc_codes;

/* b queries. A code may be fine: radix * high + low, each an int8; of the dense part only where `parts` is 2, in the
 * tail always. (levels + 1)-arrays begin with the dense part. */
typedef struct {
    const int8_t *dense;       /* [b][parts][dense] */
    const int32_t *dense_sums; /* [b][parts] sum of these codes */
    const int8_t *tail;        /* [b][levels][2][64] */
    const int32_t *tail_sums;  /* [b][levels] sum of the fine codes */
    const float *step;         /* [b][levels + 1] value of one product of codes, row's scale apart */
    const float *spread;       /* [b][levels + 1] error for each unit of the row's scale; of the tail: cumulative */
    const float *reach;        /* [b][levels + 1] norm of what of the query lies beyond; the last is 0 */
    const float *slack;        /* [b][levels + 1] error whatever the row */
    const float *base;         /* [b] what every row's score begins with */
    uint32_t count;            /* b */
    uint32_t parts;            /* 1 or 2 */
    int32_t radix;
    uint32_t joint; /* whether all queries make one ranking */
} mc_queries;

/* A row that may still win. */
typedef struct {
    uint32_t row;
    float part;  /* score as far as it is known */
    float upper; /* what it cannot exceed */
    float tail;  /* norm beyond the dense part */
} mc_pair;

typedef struct {
    uint64_t scanned;   /* rows whose dense part was read */
    uint64_t survivors; /* pairs that the dense part could not rule out */
    uint64_t pieces;    /* tail pieces of 64 bytes that were read */
} mc_counts;

typedef struct mc_scan mc_scan;

/* A row is ruled out where scale * (dot * step + spread) + tail * reach is below the threshold. */
typedef struct {
    float step, spread, reach, threshold;
} mc_bound;

/* What a variant provides; portable.h writes all but the two kernels once for all of them. */
typedef struct {
    const char *name;
    int32_t limit; /* largest code of a query: 127, or 63 where two products share 16 bits */
    /* dots[q * MC_CHUNK + r] = sum over the dense part of query code * row code, for blocks of 16 rows */
    void (*dense)(const uint8_t *blocks, size_t count, size_t quads, const int8_t *queries, const int32_t *sums,
                  size_t b, int32_t *dots);
    /* dots[i] = sum over 64 dimensions of fine query code * code of row pairs[i], i < count; query: high, then low;
     * those up to `ahead` will be asked for next */
    void (*sparse)(const uint8_t *const *chunks, size_t offset, const mc_pair *pairs, size_t count, size_t ahead,
                   const int8_t *query, int32_t radix, int32_t sum, int32_t *dots);
    /* which of n rows (a multiple of 16) reach the threshold, in order; dots are radix * dots + low where there is low */
    size_t (*sift)(const int32_t *dots, const int32_t *low, int32_t radix, const float *scale, const float *tail,
                   size_t n, const mc_bound *bound, uint16_t *hits);
    double (*wide)(const float *a, const float *b, size_t n);
    /* codes 64 values; unit is the value of code 1; adds the squares of value - decoded, and of decoded */
    void (*code)(const float *values, float unit, uint8_t *codes, double *error, double *norm);
} mc_variant;

/* -- variants.c: which there are, and whether this processor runs them -- */
MC_API int mc_variant_count(void);
MC_API const char *mc_variant_name(int index);
MC_API const char *mc_variant_lacks(int index); /* NULL: it runs here */
MC_API int32_t mc_variant_limit(int index);
const mc_variant *mc_variant_at(int index);

/* -- encode.c -- */
MC_API size_t mc_chunk_bytes(uint32_t dense, uint32_t levels);
/* Codes n rows of dense + 64 * levels float32 values as rows first, first + 1, ...; gains: [levels];
 * stats: [levels + 1][2] running maxima of error / (scale * gain) and of the decoded norm. */
MC_API void mc_encode(int variant, uint8_t *const *chunks, uint32_t dense, uint32_t levels, const float *rows,
                      uint64_t first, uint64_t n, const float *gains, double *stats);

/* Codes of n rows, any of them, as rows first, first + 1, ... of others of the same kind. */
MC_API void mc_copy(const uint8_t *const *from, uint8_t *const *to, uint32_t dense, uint32_t levels,
                    const int64_t *rows, uint64_t first, uint64_t n);

/* -- search.c, dense.c, tail.c, exact.c -- */
/* taus: [joint ? 1 : count] scores that k groups are known to reach, shared by all scans of one search. */
MC_API mc_scan *mc_open(int variant, const mc_codes *codes, const mc_queries *queries, const int64_t *groups,
                        const uint8_t *eligible, uint64_t k, float minimum, uint32_t *taus, uint64_t seeds);
/* The rows as they came, as mc_narrow takes them; they stay valid. With them the best by their codes are scored in
 * float64 before the tails are read, and mc_dense does so at once with the eligible rows of a block that has at most
 * `most` of them: then less has to be read than the whole block. */
MC_API void mc_originals(mc_scan *scan, const float *rows, uint64_t dimensions, const float *queries,
                         const double *margin, uint32_t most);
/* These three do a few milliseconds of work; 0: done, 1: call again, -1: out of memory. */
MC_API int mc_dense(mc_scan *scan, uint64_t first_chunk, uint64_t last_chunk);
MC_API int mc_tail(mc_scan *scan);
/* Leaves the pairs whose float64 product may belong to the k best; margin: [count] how far it may be off. */
MC_API int mc_narrow(mc_scan *scan, const float *rows, uint64_t dimensions, const float *queries,
                     const double *margin);
MC_API uint64_t mc_left(const mc_scan *scan, uint32_t query);
MC_API void mc_take(const mc_scan *scan, uint32_t query, int64_t *rows);
MC_API void mc_count(const mc_scan *scan, mc_counts *counts);
MC_API void mc_close(mc_scan *scan);

/* One kernel at a time, to compare variants: dots of all rows [chunk][query][MC_CHUNK], and of the first tail level. */
MC_API void mc_dots(int variant, const mc_codes *codes, const mc_queries *queries, int32_t *dots);
MC_API void mc_pieces(int variant, const mc_codes *codes, const mc_queries *queries, const uint32_t *rows,
                      uint64_t count, int32_t *dots);

static inline size_t mc_tail_offset(uint32_t dense, uint32_t level) {
    return (size_t)MC_CHUNK * dense + (size_t)level * MC_CHUNK * MC_LEVEL;
}

static inline size_t mc_record_bytes(uint32_t levels) { return levels ? (8 + levels + 3) / 4 * 4 : 0; }

static inline size_t mc_records_offset(uint32_t dense, uint32_t levels) {
    return mc_tail_offset(dense, levels) + 2 * MC_CHUNK * sizeof(float);
}

#endif
