/* Linear layers: a product of packed tokens with a matrix that lies in panels. */

#include "vectors.h"

enum { PANEL = 2 * LANES, CHUNK = 16 * TILE }; /* outputs side by side; tokens that stay in the cache */
enum { DEEP = 256 };  /* inputs of a panel that stay in the innermost cache */
enum { AHEAD = 1024 };                         /* weights that are fetched ahead of their use */

/* A linear layer: weights as panels of PANEL outputs, each (in, PANEL); bias (out) or null. */
typedef struct { const float *weight, *bias; long in, out; } Linear;

/* out (rows, PANEL at most) = x (rows, in) · one panel; `rows` is a constant where this is inlined. */
static inline __attribute__((always_inline)) void tile(
    const int rows, const float *x, long x_stride, long in, const float *panel, const float *bias, float *out, long out_stride,
    long columns, int add) {
    vec a[TILE][2];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) a[i][0] = a[i][1] = (vec){};
    for (long k = 0; k < in; k++) {
        __builtin_prefetch(panel + k * PANEL + AHEAD);
        __builtin_prefetch(panel + k * PANEL + AHEAD + LANES);
        vec w0 = load(panel + k * PANEL), w1 = load(panel + k * PANEL + LANES);
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) {
            float f = x[i * x_stride + k];
            a[i][0] += f * w0;
            a[i][1] += f * w1;
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
        float *to = out + i * out_stride;
        if (columns == PANEL) {
            vec s0 = a[i][0], s1 = a[i][1];
            if (bias) s0 += load(bias), s1 += load(bias + LANES);
            if (add) s0 += load(to), s1 += load(to + LANES);
            store(to, s0);
            store(to + LANES, s1);
        } else {
            const float *s = (const float *)a[i];
            for (long c = 0; c < columns; c++) to[c] = s[c] + (bias ? bias[c] : 0) + (add ? to[c] : 0);
        }
    }
}

static void tiles(int rows, const float *x, long x_stride, long in, const float *panel, const float *bias, float *out,
                  long out_stride, long columns, int add) {
    switch (rows) {
#define CASE(n) case n: tile(n, x, x_stride, in, panel, bias, out, out_stride, columns, add); break;
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5)
#if !defined(__AVX2__) || defined(__AVX512F__)
        CASE(6) CASE(7) CASE(8)
#endif
#if defined(__AVX512F__)
        CASE(9) CASE(10) CASE(11) CASE(12)
#endif
    }
}

/* out (tokens, out) = x (tokens, in) · weight + bias, or added to what is there. */
static void linear(const Linear *l, const float *x, long tokens, float *out, int add) {
    long panels = (l->out + PANEL - 1) / PANEL;
    for (long first = 0; first < tokens; first += CHUNK) {
        long last = least(first + CHUNK, tokens);
#pragma omp parallel for schedule(static)
        for (long p = 0; p < panels; p++)
            for (long k = 0; k < l->in; k += DEEP)
                for (long t = first; t < last; t += TILE)
                    tiles((int)least(TILE, last - t), x + t * l->in + k, l->in, least(DEEP, l->in - k),
                          l->weight + (p * l->in + k) * PANEL, l->bias && !k ? l->bias + p * PANEL : 0,
                          out + t * l->out + p * PANEL, l->out, least(PANEL, l->out - p * PANEL), add || k);
    }
}
