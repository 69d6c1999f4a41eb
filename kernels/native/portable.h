/* What every variant does alike. Each variant's file includes this with VARIANT(name) and TARGET set, so that the
 * compiler vectorises the same lines for each instruction set. */
#include <string.h>

#include "scan.h"

TARGET static size_t VARIANT(sift)(const int32_t *dots, const float *scale, const float *tail, size_t n, float step,
                                   float spread, float reach, float threshold, uint16_t *hits) {
    size_t found = 0;
    for (size_t at = 0; at < n; at += MC_BLOCK) {
        int32_t pass[MC_BLOCK], any = 0;
        for (size_t lane = 0; lane < MC_BLOCK; ++lane) {
            float upper = scale[at + lane] * ((float)dots[at + lane] * step + spread) + tail[at + lane] * reach;
            pass[lane] = upper >= threshold;
            any |= pass[lane];
        }
        if (any)
            for (size_t lane = 0; lane < MC_BLOCK; ++lane)
                if (pass[lane]) hits[found++] = (uint16_t)(at + lane);
    }
    return found;
}

TARGET static double VARIANT(wide)(const float *a, const float *b, size_t n) {
    double sums[16] = {0}, rest = 0;
    size_t at = 0;
    for (; at + 16 <= n; at += 16)
        for (size_t lane = 0; lane < 16; ++lane) sums[lane] += (double)a[at + lane] * (double)b[at + lane];
    for (; at < n; ++at) rest += (double)a[at] * (double)b[at];
    for (size_t width = 8; width; width /= 2)
        for (size_t lane = 0; lane < width; ++lane) sums[lane] += sums[lane + width];
    return sums[0] + rest;
}

TARGET static void VARIANT(code)(const float *row, size_t n, float inverse, uint8_t *codes) {
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to the nearest integer */
    for (size_t at = 0; at < n; ++at) {
        float rounded = row[at] * inverse + shift;
        int32_t bits;
        memcpy(&bits, &rounded, sizeof bits);
        codes[at] = (uint8_t)((bits - 0x4B400000) + 128);
    }
}
