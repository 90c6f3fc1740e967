/* The model, what goes through it at a time, and the attention of packed tokens over the cache of their rows. */

#include "linear.h"

typedef struct {
    Linear qkv, o, gate_up, down;
    const float *attention_norm, *mlp_norm, *q_norm, *k_norm; /* the last two may be null */
} Layer;

typedef struct {
    long layers, width, heads, kv_heads, depth;
    float eps, scale; /* of the norms; of the attention's scores */
    const Layer *layer;
    const float *norm;
    Linear head;
} Model;

/* T tokens; those of a row are neighbours. A token is stored in a slot of its row. It sees the first `seen` slots of the row, and the slots
extra[offsets[t]] … extra[offsets[t + 1] - 1]. The first `shared` slots of a row are the same in the row `lead`, and are
read there: the members of a group read their prompt from one place. cache: per layer, the keys of all rows and then
their values (`block_of`). keep: the tokens whose logits are wanted. */
typedef struct {
    long tokens, kept, rows, slots;
    const long *row, *slot, *seen, *offsets, *extra, *keep; /* by token */
    const long *lead, *shared;                              /* by row */
    const float *cos, *sin;                                 /* (T, depth) */
    float *const *cache;
} Pass;

/* The keys and values of a row lie in blocks of LANES slots: for each key head its keys (depth, LANES), so that a query
meets LANES of them at once; its values (LANES, depth). A row is read from one end to the other, all heads together. */
static inline long block_of(const Model *m, const Pass *p, long row, long slot, long head) {
    return ((row * p->slots + slot) / LANES * m->kv_heads + head) * LANES * m->depth;
}

static inline __attribute__((always_inline)) void scores_of(const float *query, const float *keys, long depth, float *score) {
    vec a = {}, b = {}, c = {}, d = {};
    for (long i = 0; i < depth; i += 4, keys += 4 * LANES) {
        a += query[i] * load(keys);
        b += query[i + 1] * load(keys + LANES);
        c += query[i + 2] * load(keys + 2 * LANES);
        d += query[i + 3] * load(keys + 3 * LANES);
    }
    store(score, (a + b) + (c + d));
}

/* Adds the weighed values of a block to `vectors` vectors of out; a constant where this is inlined. */
static inline __attribute__((always_inline)) void mix(const int vectors, const float *weight, const float *values,
                                                      long depth, float *out) {
    vec even[4], odd[4];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) even[v] = load(out + v * LANES), odd[v] = (vec){};
    for (int s = 0; s < LANES; s += 2) {
        float first = weight[s], second = weight[s + 1];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            even[v] += first * load(values + s * depth + v * LANES);
            odd[v] += second * load(values + (s + 1) * depth + v * LANES);
        }
    }
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) store(out + v * LANES, even[v] + odd[v]);
}

static void add_values(const float *weight, const float *values, long depth, float *out) {
    long i = 0;
    for (; i + 4 * LANES <= depth; i += 4 * LANES) mix(4, weight, values + i, depth, out + i);
    for (; i + 2 * LANES <= depth; i += 2 * LANES) mix(2, weight, values + i, depth, out + i);
    for (; i < depth; i += LANES) mix(1, weight, values + i, depth, out + i);
}

/* Attention of a token: query, out (heads, depth). score (heads, size) is to work in; the extra slots have vectors of
their own in it. What it holds beyond the last slot has the weight 0. */
static void attend_token(const Model *m, const Pass *p, long t, const float *query, const float *keys,
                         const float *values, float *score, float *out) {
    long depth = m->depth, group = m->heads / m->kv_heads, row = p->row[t], seen = p->seen[t], own = up_to(seen, LANES);
    const long *extra = p->extra + p->offsets[t], extras = p->offsets[t + 1] - p->offsets[t], size = own + up_to(extras, LANES);
    long shared = least(p->shared[row], seen) / LANES * LANES;
    for (long s = 0; s < own; s += LANES)
        for (long h = 0; h < m->heads; h++)
            scores_of(query + h * depth, keys + block_of(m, p, s < shared ? p->lead[row] : row, s, h / group), depth,
                      score + h * size + s);
    for (long h = 0; h < m->heads; h++) {
        float *mine = score + h * size, total;
        for (long e = 0; e < extras; e++) {
            const float *key = keys + block_of(m, p, row, extra[e], h / group) + extra[e] % LANES;
            mine[own + e] = 0;
            for (long i = 0; i < depth; i++) mine[own + e] += query[h * depth + i] * key[i * LANES];
        }
        for (long s = seen; s < own; s++) mine[s] = -__builtin_inff();
        for (long s = own + extras; s < size; s++) mine[s] = -__builtin_inff();
        total = soften(mine, size, m->scale, largest(mine, size));
        for (long s = 0; s < size; s += LANES) store(mine + s, load(mine + s) / total);
    }
    memset(out, 0, m->heads * depth * sizeof *out);
    for (long s = 0; s < own; s += LANES)
        for (long h = 0; h < m->heads; h++)
            add_values(score + h * size + s, values + block_of(m, p, s < shared ? p->lead[row] : row, s, h / group),
                       depth, out + h * depth);
    for (long h = 0; h < m->heads; h++)
        for (long e = 0; e < extras; e++) {
            const float *value = values + block_of(m, p, row, extra[e], h / group) + extra[e] % LANES * depth;
            float weight = score[h * size + own + e], *to = out + h * depth;
            for (long i = 0; i < depth; i += LANES) store(to + i, load(to + i) + weight * load(value + i));
        }
}

/* Puts a token's keys and values, which follow its queries, into its slot. */
static void store_token(const Model *m, const Layer *l, const Pass *p, long t, const float *qkv, float *keys, float *values) {
    long d = m->depth, lane = p->slot[t] % LANES;
    for (long k = 0; k < m->kv_heads; k++) {
        const float *key = qkv + (m->heads + k) * d;
        long block = block_of(m, p, p->row[t], p->slot[t], k);
        rotate(key, l->k_norm, d, m->eps, p->cos + t * d, p->sin + t * d, keys + block + lane, LANES);
        memcpy(values + block + lane * d, key + m->kv_heads * d, d * sizeof *key);
    }
}

/* Attention of all tokens: qkv (T, (heads + 2 · kv_heads) · depth), out (T, heads · depth). Their keys and values are
stored first; where no row has two tokens, each token's own just before it, while they are in the cache. room (threads,
room_size) is for the queries of a token and their scores. */
static void attend(const Model *m, long layer, const Pass *p, const float *qkv, float *out, float *room,
                   long room_size) {
    const Layer *l = m->layer + layer;
    long d = m->depth, heads = m->heads, width = (heads + 2 * m->kv_heads) * d, single = 1;
    float *keys = p->cache[layer], *values = keys + p->rows * p->slots * m->kv_heads * d;
    for (long t = 1; t < p->tokens; t++) single &= p->row[t] != p->row[t - 1];
#pragma omp parallel
    {
        if (!single) {
#pragma omp for schedule(static)
            for (long t = 0; t < p->tokens; t++) store_token(m, l, p, t, qkv + t * width, keys, values);
        }
        float *query = room + omp_get_thread_num() * room_size;
#pragma omp for schedule(static)
        for (long t = 0; t < p->tokens; t++) {
            if (single) store_token(m, l, p, t, qkv + t * width, keys, values);
            for (long h = 0; h < heads; h++)
                rotate(qkv + t * width + h * d, l->q_norm, d, m->eps, p->cos + t * d, p->sin + t * d, query + h * d, 1);
            attend_token(m, p, t, query, keys, values, query + heads * d, out + t * heads * d);
        }
    }
}
