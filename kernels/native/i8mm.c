/* Armv8.6 i8mm: usdot takes unsigned rows and signed queries as they are. */
#if defined(__aarch64__)
#define TARGET __attribute__((target("arch=armv8.2-a+dotprod+i8mm")))
#define VARIANT(name) i8mm_##name
#define i8mm_table mc_i8mm
#define NAME "i8mm"
#define BIASED 128
#define ROWS(rows) (rows)
#define DOT(acc, rows, query, lane) vusdotq_laneq_s32(acc, rows, query, lane)
#define DOTS(acc, rows, query) vusdotq_s32(acc, rows, query)
#include "neon.h"

#include "hwcap.h"
const char *mc_i8mm_lacks(void);
const char *mc_i8mm_lacks(void) { return mc_has_i8mm() ? NULL : "the processor has no Armv8.6 i8mm"; }
#else
typedef int mc_not_arm;
#endif
