/* Linear layers with a LoRA adapter, y = x (W + s·B A)ᵀ + b, of which the adapter alone is trained. */

#include "products.h"

typedef struct {
    const float *weight, *bias; /* (out, in); (out) or null */
    const float *a, *b;         /* (rank, in); (out, rank) */
    long in, out, rank;         /* rank 0: no adapter */
    float scale;
} Adapted;

/* What is made of a layer's weights for one pass. scaled: s·A (rank, in). panels: of W + s·B A, or of its
transpose. inward, outward: s·Aᵀ (in, wide) and s·B (out, wide), filled up with zeros to whole vectors. */
typedef struct { float *scaled, *panels, *inward, *outward; } Merged;

static inline long wide(const Adapted *l) { return up_to(l->rank, LANES); }
static long gradients(const Adapted *l) { return l->rank * (l->in + l->out); }

static long merged_size(const Adapted *l) {
    return l->rank * l->in + up_to(l->in, PANEL) * up_to(l->out, PANEL) + (l->in + l->out) * wide(l);
}

static Merged merged_at(const Adapted *l, float *at) {
    float *panels = at + l->rank * l->in, *inward = panels + up_to(l->in, PANEL) * up_to(l->out, PANEL);
    return (Merged){at, panels, inward, inward + l->in * wide(l)};
}

/* W + s·B A from row o and column i on: to (rows, PANEL). */
static void merge(const Adapted *l, const Merged *m, long o, long rows, long i, float *to) {
    long columns = least(PANEL, l->in - i);
    for (long r = 0; r < rows; r++) memcpy(to + r * PANEL, l->weight + (o + r) * l->in + i, columns * sizeof *to);
    product((View){l->b + o * l->rank, l->rank, 1}, rows, l->rank, (Panels){m->scaled + i, l->in, 0}, columns, 0, to,
            PANEL, 1);
}

/* The weights for y = x Wᵀ: panels (in, PANEL) of outputs. */
static void merge_forward(const Adapted *l, const Merged *m) {
    for (long i = 0; i < l->rank * l->in; i++) m->scaled[i] = l->scale * l->a[i];
#pragma omp parallel for schedule(static)
    for (long o = 0; o < l->out; o += PANEL) {
        float square[PANEL * PANEL], *panel = m->panels + o * l->in;
        long rows = least(PANEL, l->out - o);
        memset(square, 0, sizeof square);
        for (long i = 0; i < l->in; i += PANEL) {
            merge(l, m, o, rows, i, square);
            for (long c = 0; c < least(PANEL, l->in - i); c++)
                for (long r = 0; r < PANEL; r++) panel[(i + c) * PANEL + r] = square[r * PANEL + c];
        }
    }
}

/* The weights for dx = dy W: panels (out, PANEL) of inputs; and the adapter's for its gradient. */
static void merge_backward(const Adapted *l, const Merged *m) {
    long n = wide(l);
    for (long i = 0; i < l->rank * l->in; i++) m->scaled[i] = l->scale * l->a[i];
    memset(m->inward, 0, (l->in + l->out) * n * sizeof *m->inward);
    for (long r = 0; r < l->rank; r++) {
        for (long i = 0; i < l->in; i++) m->inward[i * n + r] = m->scaled[r * l->in + i];
        for (long o = 0; o < l->out; o++) m->outward[o * n + r] = l->scale * l->b[o * l->rank + r];
    }
#pragma omp parallel for schedule(static)
    for (long i = 0; i < l->in; i += PANEL) merge(l, m, 0, l->out, i, m->panels + i * l->out);
}

/* y (tokens, y_row) from x (tokens, x_row), or added to what is there. */
static void adapted(const Adapted *l, const Merged *m, const float *x, long x_row, long tokens, float *y, long y_row,
                    int add) {
    product((View){x, x_row, 1}, tokens, l->in, (Panels){m->panels, PANEL, PANEL * l->in}, l->out, l->bias, y, y_row,
            add);
}

/* dx (tokens, dx_row) from dy (tokens, dy_row), or added to what is there. */
static void adapted_back(const Adapted *l, const Merged *m, const float *dy, long dy_row, long tokens, float *dx,
                         long dx_row, int add) {
    product((View){dy, dy_row, 1}, tokens, l->out, (Panels){m->panels, PANEL, PANEL * l->out}, l->in, 0, dx, dx_row,
            add);
}

/* Adds the gradients of these tokens to those of A (rank, in), which are followed by those of Bᵀ (rank, out). inner
(tokens, wide) is to work in. */
static void adapter_gradient(const Adapted *l, const Merged *m, const float *x, long x_row, const float *dy, long dy_row,
                             long tokens, float *gradient, float *inner) {
    long n = wide(l);
    product((View){dy, dy_row, 1}, tokens, l->out, (Panels){m->outward, n, PANEL}, n, 0, inner, n, 0);
    product((View){inner, 1, n}, l->rank, tokens, (Panels){x, x_row, PANEL}, l->in, 0, gradient, l->in, 1);
    product((View){x, x_row, 1}, tokens, l->in, (Panels){m->inward, n, PANEL}, n, 0, inner, n, 0);
    product((View){inner, 1, n}, l->rank, tokens, (Panels){dy, dy_row, PANEL}, l->out, 0, gradient + l->rank * l->in,
            l->out, 1);
}
