/* What an Arm processor says that it has. */
#if defined(__linux__)
#include <sys/auxv.h>
static inline int mc_has_dotprod(void) { return (getauxval(AT_HWCAP) >> 20 & 1) != 0; }  /* HWCAP_ASIMDDP */
static inline int mc_has_i8mm(void) { return (getauxval(AT_HWCAP2) >> 13 & 1) != 0; }    /* HWCAP2_I8MM */
#elif defined(__APPLE__)
#include <sys/sysctl.h>
static inline int mc_asks(const char *name) {
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, 0, 0) == 0 && value;
}
static inline int mc_has_dotprod(void) { return mc_asks("hw.optional.arm.FEAT_DotProd"); }
static inline int mc_has_i8mm(void) { return mc_asks("hw.optional.arm.FEAT_I8MM"); }
#else
static inline int mc_has_dotprod(void) { return 0; }
static inline int mc_has_i8mm(void) { return 0; }
#endif
