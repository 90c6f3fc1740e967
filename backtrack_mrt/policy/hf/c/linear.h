/* Linear layers of the decoding pass. */

#include "products.h"

/* A linear layer: weights as panels of PANEL outputs, each (in, PANEL); bias (out) or null. */
typedef struct { const float *weight, *bias; long in, out; } Linear;

/* out (tokens, out) = x (tokens, in) · weight + bias, or added to what is there. */
static void linear(const Linear *l, const float *x, long tokens, float *out, int add) {
    for (long first = 0; first < tokens; first += CHUNK) {
        long count = least(CHUNK, tokens - first);
#pragma omp parallel for schedule(static)
        for (long c = 0; c < l->out; c += PANEL)
            product((View){x + first * l->in, l->in, 1}, count, l->in, (Panels){l->weight + c * l->in, PANEL, 0},
                    least(PANEL, l->out - c), l->bias ? l->bias + c : 0, out + first * l->out + c, l->out, add);
    }
}
