// Before and after many.cu: tokens are laid out for it, and what it left in parts is added. Compiled
// with its TOKENS defined, beside what common.cuh names.
#define BLOCK_ROWS 256

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

__device__ __forceinline__ void add(float (&y)[4], const float* from) {
  const auto some = *(const Four<float>*)from;
#pragma unroll
  for (int j = 0; j < 4; ++j) y[j] += some.of[j];
}

// What `many` left in parts, added in order; of gate and up the gated product, of all tiles.
// `wide` [matrices, tokens, rows]. Each block of threads takes 1024 elements of a tile.
extern "C" __global__ void __launch_bounds__(256) combine(
    const unsigned short* wide, const float* partial, unsigned short* out, int rows, int tokens,
    int chunks, int token_blocks, int row_blocks, int whole, int workers) {
  let_next_start();
  wait_for_tokens();
  const int pieces = TOKENS * BLOCK_ROWS / 1024, tiles = token_blocks * row_blocks * MATRICES;
  const int left = (tiles - whole) * chunks;
  int place = blockIdx.x / pieces;  // of the tile among those of one matrix
  if (MATRICES == 1) place += whole;
  const int element = (blockIdx.x % pieces * 256 + threadIdx.x) * 4;
  const int token = place % token_blocks * TOKENS + element / BLOCK_ROWS;
  const int row = place / token_blocks * BLOCK_ROWS + element % BLOCK_ROWS;
  if (token >= tokens || row >= rows) return;
  float y[MATRICES][4] = {};
#pragma unroll
  for (int m = 0; m < MATRICES; ++m) {
    const int tile = (place / token_blocks * MATRICES + m) * token_blocks + place % token_blocks;
    if (tile < whole) {
      const unsigned short* from = wide + ((long long)m * tokens + token) * rows + row;
      Four<unsigned short> four = {};
      if (rows % 4 == 0) {
        four = *(const Four<unsigned short>*)from;
      } else {
#pragma unroll
        for (int j = 0; j < 4; ++j)
          if (row + j < rows) four.of[j] = from[j];
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) y[m][j] = widened(four.of[j]);
    } else {
      const int begin = (tile - whole) * chunks, end = begin + chunks - 1;
      const int first = (int)(((long long)(begin + 1) * workers - 1) / left);
      const int last = (int)(((long long)(end + 1) * workers - 1) / left);
#pragma unroll 4
      for (int w = first; w <= last; ++w)
        add(y[m], partial + (long long)(2 * w + (w == first)) * (TOKENS * BLOCK_ROWS) + element);
    }
  }
  Four<unsigned short> four;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
#if MATRICES == 2
    y[0][j] = gated(y[0][j], y[1][j]);
#endif
    four.of[j] = (unsigned short)rounded(y[0][j]);
  }
  unsigned short* to = out + (long long)token * rows + row;
  if (rows % 4 == 0) {
    *(Four<unsigned short>*)to = four;
  } else {
#pragma unroll
    for (int j = 0; j < 4; ++j)
      if (row + j < rows) to[j] = four.of[j];
  }
}
