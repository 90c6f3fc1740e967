/* What an output layer says of tokens, without their logits: the vocabulary is read a piece at a time, as in
FlashAttention (Dao et al. 2205.14135). In float32, for `training/compiled_output.py`. */

#include "products.h"

enum { PIECE = 384, BLOCK = 4 * PANEL }; /* of the vocabulary; tokens that read it side by side */
#define LEFT_OUT (-1e30f)                /* a logit that counts for nothing */

/* scale: what logits are multiplied by, an inverse temperature. */
typedef struct {
    const float *weight; /* (vocabulary, width) */
    long vocabulary, width;
    float scale;
} Output;

/* What is asked of tokens, n of them: the rows of their hidden states among `states` (·, width), and their targets.
Answered for each: the target's logit and, of the others' logits l, the largest m, Σ e^(l − m) and Σ e^(l − m)·(l − m); and,
unless null, direction (n, width): the gradient of the target's logit by the hidden state less the others' mean one. By the
target's log-probability it is that much times the others' probability: nothing cancels where the target is nearly certain. */
typedef struct {
    const float *states;
    const long *row, *target;
    long tokens;
    float *logit, *largest, *total, *weighed, *direction;
} Asked;

/* Of a thread: hidden states, Σ e^(l − m)·weight for each of them, and logits of a piece; BLOCK of all, side by side. */
typedef struct { float *turned, *sums, *logits; } Desk;

static long desk_size(const Output *o) { return BLOCK * (2 * o->width + PIECE); }

static Desk my_desk(const Output *o, float *room) {
    float *at = room + omp_get_thread_num() * desk_size(o);
    return (Desk){at, at + BLOCK * o->width, at + 2 * BLOCK * o->width};
}

/* How many floats `ask_output` needs to work in. */
long output_room(const Output *o) { return omp_get_max_threads() * desk_size(o); }

/* Takes a piece's logits (rows, BLOCK) into the sums of these LANES tokens, and leaves e^(l − m) in their place. The piece
has sums of its own: small numbers would be lost beside all that came before. */
static void fold(const Output *o, const Desk *desk, long column, long rows, int first, float *largest, float *total,
                 float *weighed) {
    float *logits = desk->logits + column;
    vec before = load(first ? logits : largest) * (first ? o->scale : 1), most = before, sum_e = {}, sum_el = {};
    for (long v = 0; v < rows; v++) {
        vec l = load(logits + v * BLOCK) * o->scale;
        store(logits + v * BLOCK, l);
        most = choose(l > most, l, most);
    }
    for (long v = 0; v < rows; v++) {
        vec l = load(logits + v * BLOCK) - most, e = exponential(l);
        store(logits + v * BLOCK, e);
        sum_e += e;
        sum_el += e * l;
    }
    if (!first) {
        vec gap = before - most, shrunk = exponential(gap), sum_before = load(total) * shrunk;
        sum_e += sum_before;
        sum_el += load(weighed) * shrunk + sum_before * gap;
        for (long i = 0; i < o->width; i++) {
            float *sums = desk->sums + i * BLOCK + column;
            store(sums, load(sums) * shrunk);
        }
    }
    store(largest, most);
    store(total, sum_e);
    store(weighed, sum_el);
}

static void ask_block(const Output *o, const Asked *a, long first, long n, const Desk *desk) {
    long width = o->width, columns = up_to(n, LANES);
    float largest[BLOCK], total[BLOCK], weighed[BLOCK];
    for (long t = 0; t < columns; t++)
        for (long i = 0; i < width; i++)
            desk->turned[i * BLOCK + t] = t < n ? a->states[a->row[first + t] * width + i] : 0;
    for (long v = 0; v < o->vocabulary; v += PIECE) {
        long rows = least(PIECE, o->vocabulary - v);
        const float *weight = o->weight + v * width;
        product((View){weight, width, 1}, rows, width, (Panels){desk->turned, BLOCK, PANEL}, columns, 0, desk->logits,
                BLOCK, 0);
        for (long t = 0; t < n; t++) {
            long at = a->target[first + t] - v;
            if (at < 0 || at >= rows) continue;
            a->logit[first + t] = desk->logits[at * BLOCK + t] * o->scale;
            desk->logits[at * BLOCK + t] = LEFT_OUT;
        }
        for (long c = 0; c < columns; c += LANES) fold(o, desk, c, rows, !v, largest + c, total + c, weighed + c);
        if (a->direction)
            product((View){weight, 1, width}, width, rows, (Panels){desk->logits, BLOCK, PANEL}, columns, 0, desk->sums,
                    BLOCK, v > 0);
    }
    memcpy(a->largest + first, largest, n * sizeof *largest);
    memcpy(a->total + first, total, n * sizeof *total);
    memcpy(a->weighed + first, weighed, n * sizeof *weighed);
    for (long t = 0; a->direction && t < n; t++) {
        const float *own = o->weight + a->target[first + t] * width;
        for (long i = 0; i < width; i++)
            a->direction[(first + t) * width + i] = (own[i] - desk->sums[i * BLOCK + t] / total[t]) * o->scale;
    }
}

void ask_output(const Output *o, const Asked *a, float *room) {
#pragma omp parallel for schedule(static)
    for (long first = 0; first < a->tokens; first += BLOCK) {
        Desk desk = my_desk(o, room);
        ask_block(o, a, first, least(BLOCK, a->tokens - first), &desk);
    }
}
