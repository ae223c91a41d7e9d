// What stands before and after the kernel of many.cu; with its TOKENS and BF16 defined.

// Tokens as the tensor cores read them: [token blocks, padded columns / 64, TOKENS, 64], where 32
// columns follow in the order of the fragments, which is that of their words transposed as [4, 4],
// and the eight pieces of a token's 64 columns are swizzled. Zeros beyond tokens and columns.
extern "C" __global__ void __launch_bounds__(256) arrange(
    const unsigned short* x, uint4* to, int columns, int tokens, int token_blocks, int blocks) {
  let_next_start();
  wait_for_tokens();
  // Threads in the order of what they write: two for a token's 64 columns.
  const int i = blockIdx.x * 256 + threadIdx.x, across = i / (2 * TOKENS) % (blocks / 2);
  const int token = i / (TOKENS * blocks) * TOKENS + i / 2 % TOKENS, block = 2 * across + i % 2;
  if (token >= token_blocks * TOKENS) return;
  u32 words[4][4] = {};
  if (token < tokens) {
    const unsigned short* from = x + (long long)token * columns + 32 * block;
    const int left = columns - 32 * block;
    if (columns % 8 == 0) {
#pragma unroll
      for (int t = 0; t < 4; ++t)
        if (8 * t < left) {
          const uint4 four = *((const uint4*)from + t);
          words[t][0] = four.x, words[t][1] = four.y, words[t][2] = four.z, words[t][3] = four.w;
        }
    } else {
#pragma unroll
      for (int j = 0; j < 32; ++j)
        if (j < left) words[j / 8][j / 2 % 4] |= (u32)from[j] << (16 * (j % 2));
    }
  }
  uint4* row = to + (((long long)(token / TOKENS) * (blocks / 2) + block / 2) * TOKENS +
                     token % TOKENS) * 8;
#pragma unroll
  for (int j = 0; j < 4; ++j)
    row[(block % 2 * 4 + j) ^ (token & 7)] =
        make_uint4(words[0][j], words[1][j], words[2][j], words[3][j]);
}

#if SPLIT
typedef float In;
#else
typedef unsigned short In;
#endif

__device__ __forceinline__ float number(float value) { return value; }
__device__ __forceinline__ float number(unsigned short value) { return widened(value); }

template <class Number, int EACH>
struct alignas(sizeof(Number) * EACH) Some {
  Number of[EACH];
};

// EACH elements of what the products come to, from `i` on.
template <int EACH>
__device__ __forceinline__ void add(const In* sums, unsigned short* out, int size, int splits, int i) {
  float y[MATRICES][EACH] = {};
  for (int split = 0; split < splits; ++split)
#pragma unroll
    for (int m = 0; m < MATRICES; ++m) {
      const auto some = *(const Some<In, EACH>*)(sums + (long long)(split * MATRICES + m) * size + i);
#pragma unroll
      for (int j = 0; j < EACH; ++j) y[m][j] += number(some.of[j]);
    }
  Some<unsigned short, EACH> result;
#pragma unroll
  for (int j = 0; j < EACH; ++j) {
#if MATRICES == 2
    // Rounded where the model's own code rounds: after each product, and after the activation.
    y[0][j] = widened(rounded(activation(widened(rounded(y[0][j]))))) * widened(rounded(y[1][j]));
#endif
    result.of[j] = (unsigned short)rounded(y[0][j]);
  }
  *(Some<unsigned short, EACH>*)(out + i) = result;
}

// The sums [splits, matrices, size] of a product's shares, added in their order; of gate and up the
// gated product. `each`: elements of a thread, 4 or 1.
extern "C" __global__ void __launch_bounds__(256) combine(
    const In* sums, unsigned short* out, int size, int splits, int each) {
  let_next_start();
  wait_for_tokens();
  const int i = (blockIdx.x * 256 + threadIdx.x) * each;
  if (i >= size) return;
  if (each == 4)
    add<4>(sums, out, size, splits, i);
  else
    add<1>(sums, out, size, splits, i);
}
