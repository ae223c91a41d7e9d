// y = x W^T of strips (strips.py), bfloat16 2:4, with float32 sums. A record holds 32 lanes of four
// strips: a bit per lane, then the kept half of each LANES lanes, strip after strip.
#include <immintrin.h>
#include <stdint.h>

#define AHEAD 4096  // bytes that are fetched before they are needed
#define BITS 16     // bytes of a record, before its values
#define RECORD 144
#define UNROLL _Pragma("GCC unroll 32")
#define INLINE static inline __attribute__((always_inline))

#ifdef __AVX512BF16__
#define LANES 32   // at a time
#define AT_ONCE 4  // tokens
typedef __m512 Sums;
typedef __m512i Weights;
typedef uint16_t Input;  // bfloat16

INLINE Weights weights(const char *bits, const char *values) {
    __m512i kept = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)values));
    return _mm512_maskz_expand_epi16(*(const uint32_t *)bits, kept);
}

INLINE Sums add(Sums sums, Weights w, const Input *x, int rows) {
    __m512i v = rows == 1 ? _mm512_loadu_si512(x)
                          : _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)x));
    return _mm512_dpbf16_ps(sums, (__m512bh)w, (__m512bh)v);
}
#else
#define LANES 8
#define AT_ONCE 2
typedef __m256 Sums;
typedef __m256 Weights;
typedef float Input;
static __m256i places[256];  // bits of 8 lanes -> the place of each lane's value; 4 is a zero

__attribute__((constructor)) static void fill_places(void) {
    for (int bits = 0; bits < 256; bits++)
        for (int lane = 0, next = 0; lane < 8; lane++)
            ((int32_t *)&places[bits])[lane] = bits >> lane & 1 ? next++ : 4;
}

INLINE Weights weights(const char *bits, const char *values) {
    __m128i kept = _mm_cvtepu16_epi32(_mm_loadl_epi64((const __m128i *)values));
    __m256i wide = _mm256_zextsi128_si256(_mm_slli_epi32(kept, 16));
    return _mm256_permutevar8x32_ps((__m256)wide, places[*(const uint8_t *)bits]);
}

INLINE Sums add(Sums sums, Weights w, const Input *x, int rows) {
    __m256 v = rows == 1 ? _mm256_loadu_ps(x) : (__m256)_mm256_broadcast_sd((const double *)x);
    return _mm256_fmadd_ps(w, v, sums);
}
#endif

int lanes(void) { return LANES; }

// Four strips times `tokens` tokens; all sums stay in registers.
INLINE void strips(const char *w, const Input *x, float *y, long in, long out, int rows,
                   int tokens) {
    Sums sums[4 * tokens];
    UNROLL for (int i = 0; i < 4 * tokens; i++) sums[i] = (Sums){0};
    for (long column = 0; column < in; column += 32 / rows, w += RECORD) {
        UNROLL for (int i = 0; i < RECORD; i += 64) _mm_prefetch(w + AHEAD + i, _MM_HINT_T0);
        UNROLL for (int lane = 0; lane < 32; lane += LANES)
            UNROLL for (int s = 0; s < 4; s++) {
                const int at = 32 * s + lane;
                Weights own = weights(w + at / 8, w + BITS + at);
                UNROLL for (int t = 0; t < tokens; t++) {
                    const Input *from = x + t * in + column + lane / rows;
                    sums[s * tokens + t] = add(sums[s * tokens + t], own, from, rows);
                }
            }
    }
    for (int s = 0; s < 4; s++)
        for (int t = 0; t < tokens; t++) {
            float of_row[4] = {0};
            for (int i = 0, all = sizeof(Sums) / 4; i < all; i++)
                of_row[i * rows / all] += sums[s * tokens + t][i];
            for (int r = 0; r < rows; r++) y[t * out + s * rows + r] = of_row[r];
        }
}

// x [tokens, in], y [tokens, out]; in and out are padded, a strip has 1 or 4 rows.
void product(const char *w, const Input *x, float *y, long in, long out, int rows, int tokens,
             int threads) {
    const long bytes = in * rows / 32 * RECORD, fours = out / rows / 4;  // of four strips
    const long share = fours / threads / 16 + 1;  // small: a thread may lose its core to others
// Constants inside the loop: gcc takes none into it from outside.
#define CASE(R, T) \
    if (rows == R && (T == AT_ONCE ? left >= T : left == T)) \
        strips(w + i * bytes, x + t * in, y + t * out + i * 4 * R, in, out, R, T);
#define CASES(T) CASE(1, T) CASE(4, T)
#pragma omp parallel for schedule(dynamic, share) num_threads(threads)
    for (long i = 0; i < fours; i++)
        for (int t = 0, left = tokens; left > 0; t += AT_ONCE, left -= AT_ONCE) {
            CASES(1) CASES(2)
#if AT_ONCE == 4
            CASES(3) CASES(4)
#endif
        }
}
