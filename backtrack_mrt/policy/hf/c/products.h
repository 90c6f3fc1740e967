/* Products of packed tokens with matrices. */

#include "vectors.h"

enum { PANEL = 2 * LANES, CHUNK = 16 * TILE }; /* outputs side by side; tokens that stay in the cache */
enum { DEEP = 256 };  /* inputs of a panel that stay in the innermost cache */
enum { AHEAD = 32 };  /* inputs whose weights are fetched ahead of their use */

/* The number in row r and column c of a matrix is at[r · row + c · column]. */
typedef struct { const float *at; long row, column; } View;

/* A matrix that is read PANEL columns at a time: they lie together, `row` from one row to the next; the next panel
begins `panel` behind. */
typedef struct { const float *at; long row, panel; } Panels;

/* out (rows, columns) = x (rows, depth) · one panel (+ bias), or added to what is there; `rows` and `vectors`, those of
the panel that have numbers, are constants where this is inlined. What is written is fetched meanwhile. */
static inline __attribute__((always_inline)) void tile(
    const int rows, const int vectors, const float *x, long x_row, long x_column, long depth, const float *panel,
    long next, const float *bias, float *out, long out_row, long columns, int add) {
    vec a[TILE][2];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
        a[i][0] = a[i][1] = (vec){};
        __builtin_prefetch(out + i * out_row, 1);
        if (vectors > 1) __builtin_prefetch(out + i * out_row + LANES, 1);
    }
    for (long k = 0; k < depth; k++, panel += next, x += x_column) {
        __builtin_prefetch(panel + AHEAD * next);
        if (vectors > 1) __builtin_prefetch(panel + AHEAD * next + LANES);
        vec w0 = load(panel), w1 = vectors > 1 ? load(panel + LANES) : (vec){};
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) {
            float f = x[i * x_row];
            a[i][0] += f * w0;
            if (vectors > 1) a[i][1] += f * w1;
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
        float *to = out + i * out_row;
        if (columns == vectors * LANES) {
#pragma GCC unroll 2
            for (int v = 0; v < vectors; v++) {
                vec s = a[i][v];
                if (bias) s += load(bias + v * LANES);
                if (add) s += load(to + v * LANES);
                store(to + v * LANES, s);
            }
        } else {
            const float *s = (const float *)a[i];
            for (long c = 0; c < columns; c++) to[c] = s[c] + (bias ? bias[c] : 0) + (add ? to[c] : 0);
        }
    }
}

static void tiles(int rows, const float *x, long x_row, long x_column, long depth, const float *panel, long next,
                  const float *bias, float *out, long out_row, long columns, int add) {
#define CASE(n)                                                                                               \
    case n: tile(n, 2, x, x_row, x_column, depth, panel, next, bias, out, out_row, columns, add); break;      \
    case -n: tile(n, 1, x, x_row, x_column, depth, panel, next, bias, out, out_row, columns, add); break;
    switch (columns > LANES ? rows : -rows) {
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5)
#if !defined(__AVX2__) || defined(__AVX512F__)
        CASE(6) CASE(7) CASE(8)
#endif
#if defined(__AVX512F__)
        CASE(9) CASE(10) CASE(11) CASE(12)
#endif
    }
}

/* out (rows, columns) = x (rows, depth) · w (depth, columns) + bias (columns, or null), or added to what is there. */
static void product(View x, long rows, long depth, Panels w, long columns, const float *bias, float *out, long out_row,
                    int add) {
    long count = (rows + TILE - 1) / TILE, high = count ? (rows + count - 1) / count : 0;
    for (long c = 0; c < columns; c += PANEL)
        for (long k = 0; k < depth; k += DEEP)
            for (long r = 0; r < rows; r += high)
                tiles((int)least(high, rows - r), x.at + r * x.row + k * x.column, x.row, x.column,
                      least(DEEP, depth - k), w.at + c / PANEL * w.panel + k * w.row, w.row, bias && !k ? bias + c : 0,
                      out + r * out_row + c, out_row, least(PANEL, columns - c), add || k);
}
