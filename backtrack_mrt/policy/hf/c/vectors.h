/* What the forward pass (forward.c) is made of: vectors of numbers, and what is computed on them.

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
