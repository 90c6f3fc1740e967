/* What the passes (forward.c, update.c) are made of: vectors of numbers, and what is computed on them.

The vectors are those of GCC and Clang; the compiler chooses the instructions. Sums are always added up in one order (so
no -ffast-math). */

#include <omp.h>
#include <string.h>

#if defined(__AVX512F__)
enum { LANES = 16, TILE = 12 };
#elif defined(__AVX2__)
enum { LANES = 8, TILE = 5 };
#else
enum { LANES = 4, TILE = 8 };
#endif

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int ivec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef float quad __attribute__((vector_size(16), aligned(4), may_alias));

static inline vec load(const float *p) { return *(const vec *)p; }
static inline void store(float *p, vec v) { *(vec *)p = v; }
static inline long least(long a, long b) { return a < b ? a : b; }
static inline long up_to(long count, long grain) { return (count + grain - 1) / grain * grain; }

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

static void rms_norm(const float *x, const float *weight, long width, float eps, float *out) {
    vec squares = {};
    for (long i = 0; i < width; i += LANES) squares += load(x + i) * load(x + i);
    float scale = 1.0f / __builtin_sqrtf(sum(squares) / (float)width + eps);
    for (long i = 0; i < width; i += LANES) store(out + i, load(weight + i) * (load(x + i) * scale));
}

/* A head's query or key, normed if there is a norm, turned to its position; `gap` between the numbers of `out`. */
static void rotate(const float *x, const float *norm, long depth, float eps, const float *cos, const float *sin,
                   float *out, long gap) {
    float normed[norm ? depth : 1];
    if (norm) rms_norm(x, norm, depth, eps, normed), x = normed;
    long half = depth / 2, i = 0;
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

/* count: of whole vectors. */
static inline float largest(const float *score, long count) {
    vec most = load(score);
    for (long s = LANES; s < count; s += LANES) most = choose(load(score + s) > most, load(score + s), most);
    for (int i = 1; i < LANES; i++) most[0] = most[i] > most[0] ? most[i] : most[0];
    return most[0];
}

/* Scores in place → weights that are to be divided by what is returned. most: the largest of them. */
static float soften(float *score, long count, float scale, float most) {
    vec total = {};
    for (long s = 0; s < count; s += LANES) {
        vec weight = exponential((load(score + s) - most) * scale);
        store(score + s, weight);
        total += weight;
    }
    return sum(total);
}
