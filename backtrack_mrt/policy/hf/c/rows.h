/* Attention of whole rows, forward and backward. Rows that begin with the same prompt make a group; the prompt's tokens
are there once, as the first row of their group, and the others see their keys and values. */

#include "adapted.h"

enum { Q, K, V, O, GATE, UP, DOWN, PARTS };

typedef struct {
    Adapted part[PARTS];
    const float *attention_norm, *mlp_norm, *q_norm, *k_norm; /* the last two may be null */
    long width, inner, heads, kv_heads, depth;
    float eps, scale; /* of the norms; of the attention's scores */
} TrainedLayer;

/* The tokens of group g are those of its rows first[g] … first[g + 1] - 1; a row has `count` tokens from `own` on, maybe
none. The keys of a row are its prompt's and then its own: a token sees the first `seen` of them, and those that `extra`
names from offsets[t] to offsets[t + 1]. longest: most keys of a row. */
typedef struct {
    long tokens, groups, longest;
    const long *first, *own, *count;    /* by group (and its end); by row */
    const long *seen, *offsets, *extra; /* by token (and their end) */
    const float *cos, *sin;             /* (T, depth) */
} RowTable;

/* What a pass leaves for the way back: (T, width) the layer's input and what its attention made of it; (T, (heads +
2 · kv_heads) · depth); (T, heads · depth); (T, heads, 2) the largest score of every query, and the sum of its weights
before they were divided by it; (T, 2 · inner). */
typedef struct { float *x, *middle, *qkv, *mixed, *softened, *gate_up; } Kept;

enum { QUERIES = 2 * TILE }; /* that meet the keys of their row together */

/* What one thread works on: the keys and values of one row and key head, as rows (longest, depth) and as panels for
products with queries, with their gradients; some queries, and their scores (QUERIES, longest). */
typedef struct { float *keys, *values, *key_panels, *value_panels, *d_keys, *d_values, *query, *d_query, *weight, *d_weight; } Desk;

static long desk_size(const TrainedLayer *l, const RowTable *r) {
    long keys = up_to(r->longest, PANEL);
    return 6 * keys * l->depth + 2 * QUERIES * (l->depth + keys);
}

static Desk desk_at(const TrainedLayer *l, const RowTable *r, float *at) {
    long keys = up_to(r->longest, PANEL), size = keys * l->depth, queries = QUERIES * l->depth;
    float *query = at + 6 * size, *weight = query + 2 * queries;
    return (Desk){at,       at + size, at + 2 * size,    at + 3 * size, at + 4 * size,
                  at + 5 * size, query, query + queries, weight,        weight + QUERIES * keys};
}

static inline long qkv_width(const TrainedLayer *l) { return (l->heads + 2 * l->kv_heads) * l->depth; }
static inline long key_place(const TrainedLayer *l, long k) { return (l->heads + k) * l->depth; }

/* dy of out = weight · x / |x|, in its place → `add` + dx; `add` may be null. */
static void rms_norm_back(float *dy, const float *x, const float *weight, long width, float eps, const float *add) {
    vec squares = {}, along = {};
    for (long i = 0; i < width; i += LANES) {
        squares += load(x + i) * load(x + i);
        along += load(x + i) * load(weight + i) * load(dy + i);
    }
    float scale = 1.0f / __builtin_sqrtf(sum(squares) / (float)width + eps);
    float back = sum(along) * scale * scale / (float)width;
    for (long i = 0; i < width; i += LANES) {
        vec dx = scale * (load(weight + i) * load(dy + i) - back * load(x + i));
        if (add) dx += load(add + i);
        store(dy + i, dx);
    }
}

/* The gradient of a rotated query or key → that of x, which it was made of. */
static void rotate_back(const float *dy, const float *x, const float *norm, const TrainedLayer *l, const float *cos,
                        const float *sin, float *dx) {
    long half = l->depth / 2;
    for (long i = 0; i < half; i++) {
        float a = dy[i], b = dy[half + i];
        dx[i] = a * cos[i] + b * sin[half + i];
        dx[half + i] = b * cos[half + i] - a * sin[i];
    }
    if (norm) rms_norm_back(dx, x, norm, l->depth, l->eps, 0);
}

/* Has what is read next brought to the cache: (rows, depth), every `row`. */
static void fetch(const float *at, long rows, long row, long depth) {
    for (long r = 0; r < rows; r++)
        for (long i = 0; i < depth; i += LANES) __builtin_prefetch(at + r * row + i);
}

/* Puts the keys and values of `count` tokens from t on in the places from `place` on. */
static void lay_out(const TrainedLayer *l, const RowTable *r, const Desk *d, const float *qkv, long k, long t, long count,
                    long place) {
    long depth = l->depth, width = qkv_width(l);
    for (long s = place; s < place + count; s++, t++) {
        const float *key = qkv + t * width + key_place(l, k), *value = key + l->kv_heads * depth;
        long lane = s / PANEL * PANEL * depth + s % PANEL;
        rotate(key, l->k_norm, depth, l->eps, r->cos + t * depth, r->sin + t * depth, d->keys + s * depth, 1);
        memcpy(d->values + s * depth, value, depth * sizeof *value);
        for (long i = 0; i < depth; i++) {
            d->key_panels[lane + i * PANEL] = d->keys[s * depth + i];
            d->value_panels[lane + i * PANEL] = value[i];
        }
    }
}

/* How many keys, from the first on, are met by the queries of `count` tokens from t on. */
static long met(const RowTable *r, long t, long count) {
    long most = 0;
    for (long i = t; i < t + count; i++) {
        if (r->seen[i] > most) most = r->seen[i];
        for (long e = r->offsets[i]; e < r->offsets[i + 1]; e++)
            if (r->extra[e] >= most) most = r->extra[e] + 1;
    }
    return most;
}

/* Scores of the queries of head h of `count` tokens from t on: weight (count, size), -∞ for what is not seen. */
static void score(const TrainedLayer *l, const RowTable *r, const Desk *d, const float *qkv, long h, long t, long count,
                  long size) {
    long depth = l->depth, width = qkv_width(l);
    fetch(qkv + t * width + h * depth, count, width, depth);
    for (long i = 0; i < count; i++)
        rotate(qkv + (t + i) * width + h * depth, l->q_norm, depth, l->eps, r->cos + (t + i) * depth,
               r->sin + (t + i) * depth, d->query + i * depth, 1);
    product((View){d->query, depth, 1}, count, depth, (Panels){d->key_panels, PANEL, PANEL * depth}, size, 0, d->weight,
            size, 0);
    for (long i = 0; i < count; i++) {
        const long *extra = r->extra + r->offsets[t + i];
        long extras = r->offsets[t + i + 1] - r->offsets[t + i];
        float *mine = d->weight + i * size, named[extras + 1];
        for (long e = 0; e < extras; e++) named[e] = mine[extra[e]];
        for (long s = r->seen[t + i]; s < size; s++) mine[s] = -__builtin_inff();
        for (long e = 0; e < extras; e++) mine[extra[e]] = named[e];
    }
}

/* Attention of the queries of head h of `count` tokens from t on. */
static void attend_forward(const TrainedLayer *l, const RowTable *r, const Desk *d, const Kept *kept, long h, long t,
                           long count) {
    long seen = met(r, t, count), size = up_to(seen, PANEL), depth = l->depth, out = l->heads * depth;
    score(l, r, d, kept->qkv, h, t, count, size);
    for (long i = 0; i < count; i++) {
        float *mine = d->weight + i * size, *softened = kept->softened + 2 * ((t + i) * l->heads + h);
        softened[0] = largest(mine, size);
        softened[1] = soften(mine, size, l->scale, softened[0]);
        for (long s = 0; s < size; s += LANES) store(mine + s, load(mine + s) / softened[1]);
    }
    product((View){d->weight, size, 1}, count, seen, (Panels){d->values, depth, PANEL}, depth, 0,
            kept->mixed + t * out + h * depth, out, 0);
}

/* The way back: what the queries had to do with `d_mixed` → d_qkv; keys' and values' gradients are added up. */
static void attend_back(const TrainedLayer *l, const RowTable *r, const Desk *d, const Kept *kept, long h, long t,
                        long count, const float *d_mixed, float *d_qkv) {
    long seen = met(r, t, count), size = up_to(seen, PANEL), depth = l->depth, out = l->heads * depth;
    long width = qkv_width(l);
    const float *mixed = kept->mixed + t * out + h * depth;
    d_mixed += t * out + h * depth;
    fetch(mixed, count, out, depth);
    fetch(d_mixed, count, out, depth);
    score(l, r, d, kept->qkv, h, t, count, size);
    product((View){d_mixed, out, 1}, count, depth, (Panels){d->value_panels, PANEL, PANEL * depth}, size, 0,
            d->d_weight, size, 0);
    for (long i = 0; i < count; i++) {
        const float *softened = kept->softened + 2 * ((t + i) * l->heads + h);
        float *weight = d->weight + i * size, *d_weight = d->d_weight + i * size, mean;
        vec along = {};
        for (long c = 0; c < depth; c += LANES) along += load(mixed + i * out + c) * load(d_mixed + i * out + c);
        mean = sum(along);
        soften(weight, size, l->scale, softened[0]);
        for (long s = 0; s < size; s += LANES) {
            vec share = load(weight + s) / softened[1];
            store(weight + s, share);
            store(d_weight + s, share * (load(d_weight + s) - mean) * l->scale);
        }
    }
    product((View){d->d_weight, size, 1}, count, seen, (Panels){d->keys, depth, PANEL}, depth, 0, d->d_query, depth, 0);
    product((View){d->d_weight, 1, size}, seen, count, (Panels){d->query, depth, PANEL}, depth, 0, d->d_keys, depth, 1);
    product((View){d->weight, 1, size}, seen, count, (Panels){d_mixed, out, PANEL}, depth, 0, d->d_values, depth, 1);
    for (long i = 0; i < count; i++) {
        long place = (t + i) * width + h * depth;
        rotate_back(d->d_query + i * depth, kept->qkv + place, l->q_norm, l, r->cos + (t + i) * depth,
                    r->sin + (t + i) * depth, d_qkv + place);
    }
}

/* The gradients of the keys and values in the places from `place` on, of `count` tokens from t on → d_qkv. */
static void take_up(const TrainedLayer *l, const RowTable *r, const Desk *d, const float *qkv, long k, long t, long count,
                    long place, float *d_qkv) {
    long depth = l->depth, width = qkv_width(l);
    for (long s = place; s < place + count; s++, t++) {
        long key = t * width + key_place(l, k);
        rotate_back(d->d_keys + s * depth, qkv + key, l->k_norm, l, r->cos + t * depth, r->sin + t * depth, d_qkv + key);
        memcpy(d_qkv + key + l->kv_heads * depth, d->d_values + s * depth, depth * sizeof *d_qkv);
    }
}

/* Attention over key head k in group g; with `d_qkv` the way back. */
static void attend_group(const TrainedLayer *l, const RowTable *r, const Desk *d, const Kept *kept, long g, long k,
                         const float *d_mixed, float *d_qkv) {
    long first = r->first[g], shared = l->heads / l->kv_heads, prompt = r->count[first], depth = l->depth;
    for (long row = first; row < r->first[g + 1]; row++) {
        long place = row == first ? 0 : prompt, count = r->count[row], end = r->own[row] + count;
        lay_out(l, r, d, kept->qkv, k, r->own[row], count, place);
        if (d_qkv) {
            memset(d->d_keys + place * depth, 0, count * depth * sizeof *d->d_keys);
            memset(d->d_values + place * depth, 0, count * depth * sizeof *d->d_values);
        }
        for (long h = k * shared; h < (k + 1) * shared; h++)
            for (long t = r->own[row]; t < end; t += QUERIES)
                if (d_qkv)
                    attend_back(l, r, d, kept, h, t, least(QUERIES, end - t), d_mixed, d_qkv);
                else
                    attend_forward(l, r, d, kept, h, t, least(QUERIES, end - t));
        if (d_qkv && row > first) take_up(l, r, d, kept->qkv, k, r->own[row], count, place, d_qkv);
    }
    if (d_qkv) take_up(l, r, d, kept->qkv, k, r->own[first], prompt, 0, d_qkv);
}
