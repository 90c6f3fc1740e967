/* A layer of a Llama-like decoder with LoRA adapters, forward and backward over packed rows, in float32: for
`training/compiled_layers.py`.

Tokens go through all that concerns them alone a block at a time, so that what one product leaves is still in the cache
when the next one reads it. The sums over tokens are cut into the same pieces whatever the number of threads: the
gradients are the same bits. */

#include "rows.h"

enum { BLOCK = 8 * TILE, PIECES = 32 }; /* tokens of a block; sums that are added up side by side, at most */

static long pieces(const RowTable *r) { return r->tokens < 2 * BLOCK ? 1 : least(r->tokens / (2 * BLOCK), PIECES); }

/* The room that a pass works in. gradients: (pieces, gradient). desks: one of `desk` floats for every thread. */
typedef struct {
    Merged merged[PARTS];
    float *d_middle, *d_mixed, *d_qkv, *gradients, *desks;
    long gradient, desk;
} Room;

static long all_gradients(const TrainedLayer *l) {
    long size = 0;
    for (int i = 0; i < PARTS; i++) size += gradients(l->part + i);
    return size;
}

/* Of a thread: what is made of the tokens of a block, or the attention's desk. */
static long desk_room(const TrainedLayer *l, const RowTable *r) {
    long inner = 0, desk = desk_size(l, r);
    for (int i = 0; i < PARTS; i++)
        if (wide(l->part + i) > inner) inner = wide(l->part + i);
    long block = BLOCK * (3 * l->width + 4 * l->inner + inner);
    return block > desk ? block : desk;
}

/* How many floats the passes need to work in. */
long layer_room(const TrainedLayer *l, const RowTable *r) {
    long size = r->tokens * (l->width + l->heads * l->depth + qkv_width(l));
    for (int i = 0; i < PARTS; i++) size += merged_size(l->part + i);
    return size + pieces(r) * all_gradients(l) + omp_get_max_threads() * desk_room(l, r);
}

static Room room_at(const TrainedLayer *l, const RowTable *r, float *at) {
    Room room = {.gradient = all_gradients(l), .desk = desk_room(l, r)};
    for (int i = 0; i < PARTS; at += merged_size(l->part + i++)) room.merged[i] = merged_at(l->part + i, at);
    room.d_middle = at;
    room.d_mixed = room.d_middle + r->tokens * l->width;
    room.d_qkv = room.d_mixed + r->tokens * l->heads * l->depth;
    room.gradients = room.d_qkv + r->tokens * qkv_width(l);
    room.desks = room.gradients + pieces(r) * room.gradient;
    return room;
}

static float *my_desk(const Room *room) { return room->desks + omp_get_thread_num() * room->desk; }

static void norm_block(const TrainedLayer *l, const float *x, const float *weight, long tokens, float *out) {
    for (long t = 0; t < tokens; t++) rms_norm(x + t * l->width, weight, l->width, l->eps, out + t * l->width);
}

/* silu(gate) · up. */
static void gate(const TrainedLayer *l, const float *gate_up, long tokens, float *out) {
    for (long t = 0; t < tokens; t++, gate_up += 2 * l->inner)
        for (long i = 0; i < l->inner; i += LANES) {
            vec g = load(gate_up + i);
            store(out + t * l->inner + i, g / (1.0f + exponential(-g)) * load(gate_up + l->inner + i));
        }
}

/* d_out of it → d_gate_up. */
static void gate_back(const TrainedLayer *l, const float *gate_up, const float *d_out, long tokens, float *d_gate_up) {
    for (long t = 0; t < tokens; t++, gate_up += 2 * l->inner, d_gate_up += 2 * l->inner)
        for (long i = 0; i < l->inner; i += LANES) {
            vec g = load(gate_up + i), up = load(gate_up + l->inner + i), d = load(d_out + t * l->inner + i);
            vec share = 1.0f / (1.0f + exponential(-g));
            store(d_gate_up + i, d * up * share * (1.0f + g * (1.0f - share)));
            store(d_gate_up + l->inner + i, d * g * share);
        }
}

static void attend_all(const TrainedLayer *l, const RowTable *r, const Room *room, const Kept *kept, float *d_qkv) {
#pragma omp parallel for schedule(static, 1)
    for (long task = 0; task < r->groups * l->kv_heads; task++) {
        Desk desk = desk_at(l, r, my_desk(room));
        attend_group(l, r, &desk, kept, task / l->kv_heads, task % l->kv_heads, room->d_mixed, d_qkv);
    }
}

/* y (T, width) from kept->x; the rest of `kept` is written. */
void layer_forward(const TrainedLayer *l, const RowTable *r, const Kept *kept, float *y, float *at) {
    Room room = room_at(l, r, at);
    const Merged *m = room.merged;
    const Adapted *part = l->part;
    long width = l->width, inner = l->inner, qkv = qkv_width(l), heads = l->heads * l->depth;
    for (int i = 0; i < PARTS; i++) merge_forward(part + i, m + i);
#pragma omp parallel for schedule(static)
    for (long t = 0; t < r->tokens; t += BLOCK) {
        long n = least(BLOCK, r->tokens - t);
        float *normed = my_desk(&room), *to = kept->qkv + t * qkv;
        norm_block(l, kept->x + t * width, l->attention_norm, n, normed);
        for (int i = Q; i <= V; to += part[i++].out) adapted(part + i, m + i, normed, width, n, to, qkv, 0);
    }
    attend_all(l, r, &room, kept, 0);
#pragma omp parallel for schedule(static)
    for (long t = 0; t < r->tokens; t += BLOCK) {
        long n = least(BLOCK, r->tokens - t);
        float *middle = kept->middle + t * width, *gate_up = kept->gate_up + 2 * t * inner;
        float *normed = my_desk(&room), *gated = normed + n * width;
        memcpy(middle, kept->x + t * width, n * width * sizeof *middle);
        adapted(part + O, m + O, kept->mixed + t * heads, heads, n, middle, width, 1);
        norm_block(l, middle, l->mlp_norm, n, normed);
        for (int i = 0; i < 2; i++)
            adapted(part + GATE + i, m + GATE + i, normed, width, n, gate_up + i * inner, 2 * inner, 0);
        gate(l, gate_up, n, gated);
        memcpy(y + t * width, middle, n * width * sizeof *y);
        adapted(part + DOWN, m + DOWN, gated, inner, n, y + t * width, width, 1);
    }
}

/* The way back of a block from d_y to what its attention gave. gradient: of all parts. */
static void mlp_back(const TrainedLayer *l, const Room *room, const Kept *kept, const float *d_y, long t, long n,
                     float *const *gradient) {
    const Merged *m = room->merged;
    const Adapted *part = l->part;
    long width = l->width, inner = l->inner, heads = l->heads * l->depth;
    const float *middle = kept->middle + t * width, *gate_up = kept->gate_up + 2 * t * inner;
    float *gated = my_desk(room), *d_gated = gated + n * inner, *d_gate_up = d_gated + n * inner;
    float *normed = d_gate_up + 2 * n * inner, *d_normed = normed + n * width, *d_out = d_normed + n * width;
    float *thin = d_out + n * width, *d_middle = room->d_middle + t * width;
    memcpy(d_out, d_y, n * width * sizeof *d_y);
    gate(l, gate_up, n, gated);
    adapted_back(part + DOWN, m + DOWN, d_out, width, n, d_gated, inner, 0);
    adapter_gradient(part + DOWN, m + DOWN, gated, inner, d_out, width, n, gradient[DOWN], thin);
    gate_back(l, gate_up, d_gated, n, d_gate_up);
    norm_block(l, middle, l->mlp_norm, n, normed);
    for (int i = 0; i < 2; i++) {
        const float *from = d_gate_up + i * inner;
        adapted_back(part + GATE + i, m + GATE + i, from, 2 * inner, n, d_normed, width, i);
        adapter_gradient(part + GATE + i, m + GATE + i, normed, width, from, 2 * inner, n, gradient[GATE + i], thin);
    }
    for (long i = 0; i < n; i++)
        rms_norm_back(d_normed + i * width, middle + i * width, l->mlp_norm, width, l->eps, d_out + i * width);
    memcpy(d_middle, d_normed, n * width * sizeof *d_middle);
    adapted_back(part + O, m + O, d_middle, width, n, room->d_mixed + t * heads, heads, 0);
    adapter_gradient(part + O, m + O, kept->mixed + t * heads, heads, d_middle, width, n, gradient[O], thin);
}

/* The rest of it, from the queries, keys and values on, to d_x. */
static void input_back(const TrainedLayer *l, const Room *room, const Kept *kept, long t, long n,
                       float *const *gradient, float *d_x) {
    long width = l->width, qkv = qkv_width(l);
    const float *x = kept->x + t * width, *from = room->d_qkv + t * qkv;
    float *normed = my_desk(room), *d_normed = normed + n * width, *thin = d_normed + n * width;
    norm_block(l, x, l->attention_norm, n, normed);
    for (int i = Q; i <= V; from += l->part[i++].out) {
        adapted_back(l->part + i, room->merged + i, from, qkv, n, d_normed, width, i > Q);
        adapter_gradient(l->part + i, room->merged + i, normed, width, from, qkv, n, gradient[i], thin);
    }
    for (long i = 0; i < n; i++)
        rms_norm_back(d_normed + i * width, x + i * width, l->attention_norm, width, l->eps,
                      room->d_middle + (t + i) * width);
    memcpy(d_x, d_normed, n * width * sizeof *d_x);
}

/* Both of them, over all tokens, a piece of the sums at a time. d_x: for the second. */
static void back(const TrainedLayer *l, const RowTable *r, const Room *room, const Kept *kept, const float *d_y,
                 float *d_x) {
    long count = pieces(r), blocks = (r->tokens + BLOCK - 1) / BLOCK, width = l->width;
#pragma omp parallel for schedule(static)
    for (long piece = 0; piece < count; piece++) {
        float *gradient[PARTS], *at = room->gradients + piece * room->gradient;
        for (int i = 0; i < PARTS; at += gradients(l->part + i++)) gradient[i] = at;
        for (long t = piece * blocks / count * BLOCK; t < least((piece + 1) * blocks / count * BLOCK, r->tokens);
             t += BLOCK)
            if (d_x)
                input_back(l, room, kept, t, least(BLOCK, r->tokens - t), gradient, d_x + t * width);
            else
                mlp_back(l, room, kept, d_y + t * width, t, least(BLOCK, r->tokens - t), gradient);
    }
}

/* d_x (T, width) from d_y; gradient: for every part A's (rank, in), and then Bᵀ's (rank, out). */
void layer_backward(const TrainedLayer *l, const RowTable *r, const Kept *kept, const float *d_y, float *d_x,
                    float *gradient, float *at) {
    Room room = room_at(l, r, at);
    for (int i = 0; i < PARTS; i++) merge_backward(l->part + i, room.merged + i);
    memset(room.gradients, 0, pieces(r) * room.gradient * sizeof *room.gradients);
    back(l, r, &room, kept, d_y, 0);
    attend_all(l, r, &room, kept, room.d_qkv);
    back(l, r, &room, kept, d_y, d_x);
#pragma omp parallel for schedule(static)
    for (long i = 0; i < room.gradient; i++) {
        gradient[i] = 0;
        for (long piece = 0; piece < pieces(r); piece++) gradient[i] += room.gradients[piece * room.gradient + i];
    }
}
