/* One forward pass of a Llama-like decoder over packed tokens, in float32, for `compiled.py`.

A token's numbers depend on its own history alone and are added up in one order, whatever else is in the pass: the same
row gives the same bits in any batch (so no -ffast-math). The vectors are those of GCC and Clang; the compiler chooses
the instructions. */

#include <omp.h>
#include <string.h>

#if defined(__AVX512F__)
enum { LANES = 16, TILE = 12 };
#elif defined(__AVX2__)
enum { LANES = 8, TILE = 5 };
#else
enum { LANES = 4, TILE = 8 };
#endif
enum { PANEL = 2 * LANES, CHUNK = 16 * TILE }; /* outputs side by side; tokens that stay in the cache */
enum { DEEP = 256 };  /* inputs of a panel that stay in the innermost cache */
enum { AHEAD = 1024 };                         /* weights that are fetched ahead of their use */

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int ivec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef float quad __attribute__((vector_size(16), aligned(4), may_alias));

/* A linear layer: weights as panels of PANEL outputs, each (in, PANEL); bias (out) or null. */
typedef struct { const float *weight, *bias; long in, out; } Linear;

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

/* T tokens. A token is stored in a slot of its row. It sees the first `seen` slots of the row, and the slots
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

long lanes(void) { return LANES; }

static inline vec load(const float *p) { return *(const vec *)p; }
static inline void store(float *p, vec v) { *(vec *)p = v; }
static inline long least(long a, long b) { return a < b ? a : b; }

static inline float sum(vec v) {
    const quad *q = (const quad *)&v;
    quad s = q[0];
    for (int i = 1; i < LANES / 4; i++) s += q[i];
    return (s[0] + s[2]) + (s[1] + s[3]);
}

static inline vec choose(ivec mask, vec a, vec b) { return (vec)((mask & (ivec)a) | (~mask & (ivec)b)); }

/* e^x by Cody and Waite's reduction and a polynomial; x is held below 88, and what is below -87 gives 0. */
static inline vec exponential(vec x) {
    ivec none = x < -87.0f;
    x = choose(none, (vec){}, choose(x > 88.0f, (vec){} + 88.0f, x));
    vec n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;
    vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    vec p = (vec){} + 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    ivec bits = (__builtin_convertvector(n, ivec) + 127) << 23;
    return choose(none, (vec){}, p * (vec)bits);
}

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

static void rms_norm(const float *x, const float *weight, long width, float eps, float *out) {
    vec squares = {};
    for (long i = 0; i < width; i += LANES) squares += load(x + i) * load(x + i);
    float scale = 1.0f / __builtin_sqrtf(sum(squares) / (float)width + eps);
    for (long i = 0; i < width; i += LANES) store(out + i, load(weight + i) * (load(x + i) * scale));
}

/* A head's query or key, normed if there is a norm, turned to its position; `gap` between the numbers of `out`. */
static void rotate(const float *x, const float *norm, const Model *m, const float *cos, const float *sin, float *out,
                   long gap) {
    float normed[norm ? m->depth : 1];
    if (norm) rms_norm(x, norm, m->depth, m->eps, normed), x = normed;
    long half = m->depth / 2, i = 0;
    for (; gap == 1 && i + LANES <= half; i += LANES) {
        vec a = load(x + i), b = load(x + half + i);
        store(out + i, a * load(cos + i) - b * load(sin + i));
        store(out + half + i, b * load(cos + half + i) + a * load(sin + half + i));
    }
    for (; i < half; i++) {
        float a = x[i], b = x[half + i];
        out[i * gap] = a * cos[i] - b * sin[i];
        out[(half + i) * gap] = b * cos[half + i] + a * sin[half + i];
    }
}

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

/* Scores in place → weights that are to be divided by what is returned. */
static float soften(float *score, long count, float scale) {
    float most = score[0];
    for (long s = 1; s < count; s++) most = score[s] > most ? score[s] : most;
    vec total = {};
    for (long s = 0; s < count; s += LANES) {
        vec weight = exponential((load(score + s) - most) * scale);
        store(score + s, weight);
        total += weight;
    }
    return sum(total);
}

static inline long whole(long slots) { return (slots + LANES - 1) / LANES * LANES; }

/* Attention of a token: query, out (heads, depth). score (heads, size) is to work in; the extra slots have vectors of
their own in it. What it holds beyond the last slot has the weight 0. */
static void attend_token(const Model *m, const Pass *p, long t, const float *query, const float *keys,
                         const float *values, float *score, float *out) {
    long depth = m->depth, group = m->heads / m->kv_heads, row = p->row[t], seen = p->seen[t], own = whole(seen);
    const long *extra = p->extra + p->offsets[t], extras = p->offsets[t + 1] - p->offsets[t], size = own + whole(extras);
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
        total = soften(mine, size, m->scale);
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

/* Attention of all tokens: qkv (T, (heads + 2 · kv_heads) · depth), out (T, heads · depth). Their keys and values are
stored first. room (threads, room_size) is for the queries of a token and their scores. */
static void attend(const Model *m, long layer, const Pass *p, const float *qkv, float *out, float *room,
                   long room_size) {
    const Layer *l = m->layer + layer;
    long d = m->depth, heads = m->heads, kv_heads = m->kv_heads, width = (heads + 2 * kv_heads) * d;
    float *keys = p->cache[layer], *values = keys + p->rows * p->slots * kv_heads * d;
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (long t = 0; t < p->tokens; t++)
            for (long k = 0; k < kv_heads; k++) {
                const float *key = qkv + t * width + (heads + k) * d;
                long block = block_of(m, p, p->row[t], p->slot[t], k), lane = p->slot[t] % LANES;
                rotate(key, l->k_norm, m, p->cos + t * d, p->sin + t * d, keys + block + lane, LANES);
                memcpy(values + block + lane * d, key + kv_heads * d, d * sizeof *key);
            }
        float *query = room + omp_get_thread_num() * room_size;
#pragma omp for schedule(static)
        for (long t = 0; t < p->tokens; t++) {
            for (long h = 0; h < heads; h++)
                rotate(qkv + t * width + h * d, l->q_norm, m, p->cos + t * d, p->sin + t * d, query + h * d, 1);
            attend_token(m, p, t, query, keys, values, query + heads * d, out + t * heads * d);
        }
    }
}

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
        long scores = whole(p->seen[t]) + whole(p->offsets[t + 1] - p->offsets[t]);
        long count = m->heads * (m->depth + scores);
        if (count > *head_room) *head_room = count;
    }
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
