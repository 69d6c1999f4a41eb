/* Armv8.2 dot product: signed by signed, so the rows' bytes lose their 128 first. */
#if defined(__aarch64__)
#define TARGET __attribute__((target("arch=armv8.2-a+dotprod")))
#define VARIANT(name) dotprod_##name
#define dotprod_table mc_dotprod
#define NAME "dotprod"
#define BIASED 0
#define ROWS(rows) vreinterpretq_s8_u8(veorq_u8(rows, vdupq_n_u8(128)))
#define DOT(acc, rows, query, lane) vdotq_laneq_s32(acc, rows, query, lane)
#define DOTS(acc, rows, query) vdotq_s32(acc, rows, query)
#include "neon.h"

#include "hwcap.h"
const char *mc_dotprod_lacks(void);
const char *mc_dotprod_lacks(void) { return mc_has_dotprod() ? NULL : "the processor has no Armv8.2 dot product"; }
#else
typedef int mc_not_arm;
#endif
