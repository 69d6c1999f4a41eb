/* Which variants this library holds, and what this processor lacks for each. */
#include <string.h>

#include "scan.h"

extern const mc_variant mc_scalar;
#if defined(__x86_64__)
extern const mc_variant mc_avx2, mc_avx512vnni, mc_amx;
const char *mc_amx_lacks(void);

static const char *avx2_lacks(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? NULL : "the processor has no AVX2 with FMA";
}

static const char *avx512vnni_lacks(void) {
    __builtin_cpu_init();
    int all = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
              __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
              __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma");
    return all ? NULL : "the processor has no AVX-512 VNNI";
}
#elif defined(__aarch64__)
extern const mc_variant mc_dotprod, mc_i8mm;
const char *mc_dotprod_lacks(void);
const char *mc_i8mm_lacks(void);
#endif

static const char *nothing(void) { return NULL; }

/* Best first. */
static const struct {
    const mc_variant *variant;
    const char *(*lacks)(void);
} all[] = {
#if defined(__x86_64__)
    {&mc_amx, mc_amx_lacks},
    {&mc_avx512vnni, avx512vnni_lacks},
    {&mc_avx2, avx2_lacks},
#elif defined(__aarch64__)
    {&mc_i8mm, mc_i8mm_lacks},
    {&mc_dotprod, mc_dotprod_lacks},
#endif
    {&mc_scalar, nothing},
};

int mc_variant_count(void) { return (int)(sizeof all / sizeof *all); }
const mc_variant *mc_variant_at(int index) { return all[index].variant; }
const char *mc_variant_name(int index) { return all[index].variant->name; }
int32_t mc_variant_limit(int index) { return all[index].variant->limit; }
const char *mc_variant_lacks(int index) { return all[index].lacks(); }
