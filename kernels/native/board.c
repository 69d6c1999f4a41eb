#include "board.h"

#include <math.h>
#include <stdlib.h>

static uint32_t ordered(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

void board_lift(board *b, double score) {
    float below = (float)score;
    if (below > score) below = nextafterf(below, -INFINITY);
    uint32_t wanted = ordered(below), now = __atomic_load_n(b->tau, __ATOMIC_RELAXED);
    while (now < wanted &&
           !__atomic_compare_exchange_n(b->tau, &now, wanted, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
}

static int falling(const void *a, const void *b) {
    double x = ((const leader *)a)->score, y = ((const leader *)b)->score;
    return (x < y) - (x > y);
}

/* The table is at most half full. */
uint32_t *board_place(const places *p, const board *b, int64_t group) {
    size_t mask = p->size - 1, at = ((uint64_t)group * 0x9E3779B97F4A7C15u) >> p->shift;
    while (p->table[at] && b->leaders[p->table[at] - 1].group != group) at = (at + 1) & mask;
    return p->table + at;
}

int board_settle(places *p, board *b) {
    size_t size = 64, kept = 0;
    unsigned shift = 58; /* the upper bits of a product depend on all bits of the group */
    for (; size < 2 * b->count; --shift) size *= 2;
    if (size > p->room) {
        uint32_t *table = realloc(p->table, size * sizeof *table);
        if (!table) return -1;
        p->table = table;
        p->room = size;
    }
    p->size = size;
    p->shift = shift;
    memset(p->table, 0, size * sizeof *p->table);
    if (b->count) qsort(b->leaders, b->count, sizeof *b->leaders, falling);
    for (size_t at = 0; at < b->count && kept < b->k; ++at) {
        uint32_t *place = board_place(p, b, b->leaders[at].group);
        if (*place) continue;
        b->leaders[kept++] = b->leaders[at];
        *place = (uint32_t)kept;
    }
    b->count = b->settled = kept;
    b->limit = kept + (kept > 64 ? kept : 64);
    if (kept == b->k) board_lift(b, b->leaders[kept - 1].score);
    return 0;
}

int board_add(places *p, board *b, leader by) {
    if (b->count == b->room) {
        size_t room = b->room ? 2 * b->room : 256;
        leader *more = realloc(b->leaders, room * sizeof *more);
        if (!more) return -1;
        b->leaders = more;
        b->room = room;
    }
    b->leaders[b->count++] = by;
    return b->count >= b->limit ? board_settle(p, b) : 0;
}
