/* The k best groups of one ranking by what they are known to reach, and tau, which the k-th of them reaches.
 *
 * Whatever cannot reach tau is out. It only rises. All scans of a search share the best that any of them knows. */
#ifndef MATCHCUT_BOARD_H
#define MATCHCUT_BOARD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    double score;
    int64_t group;
    uint32_t row;
    uint32_t mark; /* of a ranking: the query; of seeds: whether the row has been looked at */
} leader;

/* The leaders, and others that wait to be compared with them. */
typedef struct {
    leader *leaders;
    size_t count, settled, limit, room; /* the first `settled` are of groups of their own, best first */
    uint64_t k;
    uint32_t *tau; /* what the k-th reaches */
} board;

/* By group: 1 + the place of its leader on the board that was settled last; 0: none. */
typedef struct {
    uint32_t *table;
    size_t size, room;
    unsigned shift; /* 64 less the bits of size */
} places;

void board_lift(board *b, double score);
/* Keeps the best entry of each of the k best groups. 0, or -1: out of memory. */
int board_settle(places *p, board *b);
/* Notes what a group is known to reach, by whom; worth it from tau on. 0, or -1: out of memory. */
int board_add(places *p, board *b, leader by);
/* The group's place in the table, or the free one where it belongs; b was settled last. */
uint32_t *board_place(const places *p, const board *b, int64_t group);

static inline float board_tau(const board *b) {
    uint32_t bits = __atomic_load_n(b->tau, __ATOMIC_RELAXED); /* an integer that orders like the float */
    bits = bits >> 31 ? bits & 0x7fffffffu : ~bits;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

#endif
