// y = x W^T with W packed 2:4, or dense for comparison. A strip is one row, or the four rows whose
// groups lie along the output. Its weights are its "lanes": a row's columns, or of each STEP / 4
// columns the first row's, then the second's and so on. A record holds 32 lanes of four strips,
// strip after strip: packed a bit per lane, then the kept half of each STEP lanes; dense all.
#include <immintrin.h>
#include <stdint.h>

#define AHEAD 4096  // bytes that are fetched before they are needed
#define UNROLL _Pragma("GCC unroll 32")
#define INLINE static inline __attribute__((always_inline))

#ifdef __AVX512BF16__
typedef __m512 Vector;
#define STEP(half) ((half) ? 32 : 16)  // lanes at a time
#define AT_ONCE 4                      // tokens, if several
#define X_IS_HALF 1                    // x is bfloat16 where weights are; sums are float32

INLINE __m512i weights(const char *bits, const char *values, int half, int packed) {
    if (!packed) return _mm512_loadu_si512(values);
    __m512i kept = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)values));
    if (half) return _mm512_maskz_expand_epi16(*(const uint32_t *)bits, kept);
    return _mm512_maskz_expand_epi32(*(const uint16_t *)bits, kept);
}

INLINE Vector add(Vector sum, __m512i w, const void *x, int rows, int half) {
    __m512i v = rows == 1 ? _mm512_loadu_si512(x) : _mm512_broadcast_i32x4(_mm_loadu_si128(x));
    if (half) return _mm512_dpbf16_ps(sum, (__m512bh)w, (__m512bh)v);
    return _mm512_fmadd_ps((Vector)w, (Vector)v, sum);
}
#else
typedef __m256 Vector;
#define STEP(half) 8
#define AT_ONCE 2
#define X_IS_HALF 0
static __m256i places[256];  // bits of 8 lanes -> the place of each lane's value; 4 is a zero

__attribute__((constructor)) static void fill_places(void) {
    for (int bits = 0; bits < 256; bits++)
        for (int lane = 0, next = 0; lane < 8; lane++)
            ((int32_t *)&places[bits])[lane] = bits >> lane & 1 ? next++ : 4;
}

INLINE Vector weights(const char *bits, const char *values, int half, int packed) {
    if (!half && !packed) return _mm256_loadu_ps((const float *)values);
    const __m128i *from = (const __m128i *)values;
    __m128i at = half && packed ? _mm_loadl_epi64(from) : _mm_loadu_si128(from);
    if (!packed) return (Vector)_mm256_slli_epi32(_mm256_cvtepu16_epi32(at), 16);
    if (half) at = _mm_slli_epi32(_mm_cvtepu16_epi32(at), 16);
    __m256i wide = _mm256_zextsi128_si256(at);
    return _mm256_permutevar8x32_ps((Vector)wide, places[*(const uint8_t *)bits]);
}

INLINE Vector add(Vector sum, Vector w, const void *x, int rows, int half) {
    (void)half;
    return _mm256_fmadd_ps(w, rows == 1 ? _mm256_loadu_ps(x) : (Vector)_mm256_broadcast_sd(x), sum);
}
#endif

int x_is_half(void) { return X_IS_HALF; }
int step(int half) { return half ? STEP(1) : STEP(0); }

// Four strips times `tokens` tokens; all sums stay in registers.
INLINE void strips(const char *w, const char *x, float *y, long in, long out, int rows, int half,
                   int packed, int tokens) {
    const int size = half ? 2 : 4, x_size = half && X_IS_HALF ? 2 : 4;
    const int head = packed ? 16 : 0, record = head + (128 >> packed) * size;
    Vector sums[4 * tokens];
    UNROLL for (int i = 0; i < 4 * tokens; i++) sums[i] = (Vector){0};
    for (long column = 0; column < in; column += 32 / rows, w += record) {
        UNROLL for (int i = 0; i < record; i += 64) _mm_prefetch(w + AHEAD + i, _MM_HINT_T0);
        UNROLL for (int lane = 0; lane < 32; lane += STEP(half))
            UNROLL for (int s = 0; s < 4; s++) {
                const int at = 32 * s + lane;
                __auto_type v = weights(w + at / 8, w + head + (at >> packed) * size, half, packed);
                UNROLL for (int t = 0; t < tokens; t++) {
                    const char *own = x + (t * in + column + lane / rows) * x_size;
                    sums[s * tokens + t] = add(sums[s * tokens + t], v, own, rows, half);
                }
            }
    }
    for (int s = 0; s < 4; s++)
        for (int t = 0; t < tokens; t++) {
            float of_row[4] = {0};
            for (int i = 0, all = sizeof(Vector) / 4; i < all; i++)
                of_row[i * rows / all] += sums[s * tokens + t][i];
            for (int r = 0; r < rows; r++) y[t * out + s * rows + r] = of_row[r];
        }
}

// x [tokens, in], y [tokens, out]; tokens: 1 or a multiple of 4. `bytes`: of four strips.
void product(const char *w, const char *x, float *y, long bytes, long in, long out, int rows,
             int half, int packed, int tokens) {
    const int at_once = tokens == 1 ? 1 : AT_ONCE;
    const long x_bytes = in * (half && X_IS_HALF ? 2 : 4);
// Constants inside the loop: gcc takes none into it from outside.
#define CASE(R, H, P, T) \
    if (rows == R && half == H && packed == P && at_once == T) \
        strips(w + i * bytes, x + t * x_bytes, y + t * out + i * 4 * R, in, out, R, H, P, T);
#define CASES(T) \
    CASE(1, 0, 0, T) CASE(1, 0, 1, T) CASE(1, 1, 0, T) CASE(1, 1, 1, T) \
    CASE(4, 0, 1, T) CASE(4, 1, 1, T)
#pragma omp parallel for schedule(static)
    for (long i = 0; i < out / rows / 4; i++)
        for (int t = 0; t < tokens; t += at_once) { CASES(1) CASES(AT_ONCE) }
}
