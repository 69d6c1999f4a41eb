/* What every variant does alike. Each variant's file includes this with VARIANT(name) and TARGET set, so that the
 * compiler vectorises the same lines for each instruction set. */
#include <string.h>

#include "scan.h"

#ifndef OWN_SIFT
TARGET static size_t VARIANT(sift)(const int32_t *dots, const int32_t *low, int32_t radix, const float *scale,
                                   const float *tail, size_t n, const mc_bound *bound, uint16_t *hits) {
    size_t found = 0;
    for (size_t at = 0; at < n; at += MC_BLOCK) {
        int32_t pass[MC_BLOCK], any = 0;
        for (size_t lane = at; lane < at + MC_BLOCK; ++lane) {
            int32_t dot = low ? radix * dots[lane] + low[lane] : dots[lane];
            float upper = scale[lane] * ((float)dot * bound->step + bound->spread) + tail[lane] * bound->reach;
            pass[lane - at] = upper >= bound->threshold;
            any |= pass[lane - at];
        }
        if (any)
            for (size_t lane = 0; lane < MC_BLOCK; ++lane)
                if (pass[lane]) hits[found++] = (uint16_t)(at + lane);
    }
    return found;
}
#endif

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

TARGET static void VARIANT(code)(const float *values, float unit, uint8_t *codes, double *error, double *norm) {
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to the nearest integer */
    float inverse = unit > 0 ? 1.0f / unit : 0.0f;
    double errors[8] = {0}, norms[8] = {0};
    for (size_t at = 0; at < MC_LEVEL; at += 8)
        for (size_t lane = 0; lane < 8; ++lane) {
            float rounded = values[at + lane] * inverse + shift;
            int32_t bits;
            memcpy(&bits, &rounded, sizeof bits);
            bits -= 0x4B400000;
            codes[at + lane] = (uint8_t)(bits + 128);
            double decoded = (double)unit * bits, off = (double)values[at + lane] - decoded;
            errors[lane] += off * off;
            norms[lane] += decoded * decoded;
        }
    for (size_t lane = 0; lane < 8; ++lane) {
        *error += errors[lane];
        *norm += norms[lane];
    }
}
