/* One forward pass of a Llama-like decoder over packed tokens, in float32, for `compiled.py`.

A token's numbers depend on its own history alone and are added up in one order, whatever else is in the pass: the same
row gives the same bits in any batch. */

#include "attention.h"

long lanes(void) { return LANES; }

/* silu(gate) · up in the place of the gate: x (T, 2 · inner) → out (T, inner). */
static void gated(const float *x, long tokens, long inner, float *out) {
#pragma omp parallel for schedule(static)
    for (long t = 0; t < tokens; t++)
        for (long i = 0; i < inner; i += LANES) {
            vec g = load(x + 2 * t * inner + i), up = load(x + (2 * t + 1) * inner + i);
            store(out + t * inner + i, g / (1.0f + exponential(-g)) * up);
        }
}

static void norms(const float *x, const float *weight, const Model *m, long tokens, float *out) {
#pragma omp parallel for schedule(static)
    for (long t = 0; t < tokens; t++) rms_norm(x + t * m->width, weight, m->width, m->eps, out + t * m->width);
}

static void sizes(const Model *m, const Pass *p, long *widest, long *head_room) {
    *widest = m->width, *head_room = 0;
    for (long i = 0; i < m->layers; i++) {
        const Layer *l = m->layer + i;
        if (l->qkv.out > *widest) *widest = l->qkv.out;
        if (l->gate_up.out > *widest) *widest = l->gate_up.out;
    }
    for (long t = 0; t < p->tokens; t++) {
        long scores = up_to(p->seen[t], LANES) + up_to(p->offsets[t + 1] - p->offsets[t], LANES);
        long count = m->heads * (m->depth + scores);
        if (count > *head_room) *head_room = count;
    }
}

/* The passes that follow have so many threads; 0: as many as before. Returns how many that was. */
long set_threads(long threads) {
    long before = omp_get_max_threads();
    if (threads) omp_set_num_threads((int)threads);
    return before;
}

/* How many floats `forward` needs to work in. */
long room(const Model *m, const Pass *p) {
    long widest, head_room;
    sizes(m, p, &widest, &head_room);
    return 2 * p->tokens * widest + omp_get_max_threads() * head_room;
}

/* x (T, width), the embedded tokens, is overwritten; logits (kept, vocabulary). */
void forward(const Model *m, const Pass *p, float *x, float *logits, float *room) {
    long tokens = p->tokens, widest, head_room;
    sizes(m, p, &widest, &head_room);
    float *wide = room, *other = wide + tokens * widest, *heads = other + tokens * widest;
    for (long i = 0; i < m->layers; i++) {
        const Layer *l = m->layer + i;
        norms(x, l->attention_norm, m, tokens, other);
        linear(&l->qkv, other, tokens, wide, 0);
        attend(m, i, p, wide, other, heads, head_room);
        linear(&l->o, other, tokens, x, 1);
        norms(x, l->mlp_norm, m, tokens, other);
        linear(&l->gate_up, other, tokens, wide, 0);
        gated(wide, tokens, l->gate_up.out / 2, other);
        linear(&l->down, other, tokens, x, 1);
    }
    for (long i = 0; i < p->kept; i++)
        rms_norm(x + p->keep[i] * m->width, m->norm, m->width, m->eps, wide + i * m->width);
    linear(&m->head, wide, p->kept, logits, 0);
}
