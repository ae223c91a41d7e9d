// From packed N:M weights, half of each group and a nibble for each quad, to the tensor cores'
// fragments: the kept values are put back among four with byte permutes.
#if GROUP
#define VECTORS 9  // of 16 bytes a lane and chunk: codes, then values

// The quad with this code, of the values a, b in order: (places 0, 1), (places 2, 3). The table's
// selectors take half 3, which must be zero unless all four are kept, where nothing is kept.
__device__ __forceinline__ void spread(u32 a, u32 b, u32 selectors, u32& low, u32& high) {
  low = permute(a, b, selectors);
  high = permute(a, b, selectors >> 16);
}

// The selectors of all sixteen codes.
__device__ __forceinline__ void fill(u32* table) {
  if (threadIdx.x < 16) {
    u32 selectors = 0;
    for (int place = 0, rank = 0; place < 4; ++place) {
      int half = (threadIdx.x >> place) & 1 ? rank++ : 3;
      selectors |= (u32)((2 * half) | ((2 * half + 1) << 4)) << (8 * place);
    }
    table[threadIdx.x] = selectors;
  }
  __syncthreads();
}

#if GROUP == 4
// The selectors of four quads of 2:4, whose codes number the six masks in lexicographic order: for
// each quad that of places 0 and 1, and that of places 2 and 3, in the low 16 bits. A permutation
// looks four codes up at once.
__device__ __forceinline__ void selectors_of(u32 codes, u32 (&low)[4], u32 (&high)[4]) {
  const u32 place0 = permute(0x44101010, 0x4444, codes), place1 = permute(0x10444432, 0x4410, codes);
  const u32 place2 = permute(0x32443244, 0x1044, codes), place3 = permute(0x44324444, 0x3232, codes);
  low[0] = permute(place0, place1, 0x5140), low[2] = permute(place0, place1, 0x7362);
  high[0] = permute(place2, place3, 0x5140), high[2] = permute(place2, place3, 0x7362);
  low[1] = low[0] >> 16, low[3] = low[2] >> 16, high[1] = high[0] >> 16, high[3] = high[2] >> 16;
}

// A lane's vector of four quads of 2:4: of each places 0 and 1, and places 2 and 3.
__device__ __forceinline__ void spread_pairs(
    const uint4& values, u32 codes, u32 (&p)[4], u32 (&q)[4]) {
  const u32 word[4] = {values.x, values.y, values.z, values.w};
  u32 low[4], high[4];
  selectors_of(codes, low, high);
#pragma unroll
  for (int j = 0; j < 4; ++j)
    p[j] = permute(word[j], 0, low[j]), q[j] = permute(word[j], 0, high[j]);
}
#endif

// The first or the second quad of a group of 8 with the four values a, b; `codes` holds both codes.
__device__ __forceinline__ void spread8(
    u32 a, u32 b, u32 codes, int second, const u32* table, u32& low, u32& high) {
  const u32 count = __popc(codes & 15), skipped = second ? 8 * count : 0;
  const u64 rest = (((u64)b << 32) | a) >> skipped >> skipped;
  const u32 high2 = (u32)(rest >> 32), code = (second ? codes >> 4 : codes) & 15;
  spread((u32)rest, second || count == 4 ? high2 : high2 & 0xffffu, table[code], low, high);
}

// The fragments of a block of 32 columns, a[part][half of a lane's 8 columns], for two of a tile's
// parts: the first two or, with `upper`, the last two of four. `value(v)`: the lane's vector v.
template <class Value>
__device__ __forceinline__ void fragments(
    u32 (&a)[2][2][4], const uint4& codes, Value value, const u32* table, int block, int upper) {
  const u32 code[4] = {codes.x, codes.y, codes.z, codes.w};
#if OUTPUT && GROUP == 4
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    u32 p[4], q[4];
    spread_pairs(value(2 * block + half), code[block] >> (16 * half), p, q);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const u32 selector = i % 2 ? 0x7632 : 0x5410;
      a[0][half][i] = permute(p[i / 2 * 2], p[i / 2 * 2 + 1], selector);
      a[1][half][i] = permute(q[i / 2 * 2], q[i / 2 * 2 + 1], selector);
    }
  }
#elif OUTPUT
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    u32 p[4], q[4];  // of the rows' quad, each of four columns
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint4 four = value(4 * block + 2 * half + i);
      const u32 both = code[2 * block + half] >> (16 * i);
      spread8(four.x, four.y, both, upper, table, p[2 * i], q[2 * i]);
      spread8(four.z, four.w, both >> 8, upper, table, p[2 * i + 1], q[2 * i + 1]);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const u32 selector = i % 2 ? 0x7632 : 0x5410;
      a[0][half][i] = permute(p[i / 2 * 2], p[i / 2 * 2 + 1], selector);
      a[1][half][i] = permute(q[i / 2 * 2], q[i / 2 * 2 + 1], selector);
    }
  }
#else
#pragma unroll
  for (int part = 0; part < 2; ++part) {
    const uint4 four = value(2 * block + part);
    const u32 nibbles = code[block] >> (16 * part);
#if GROUP == 4
    u32 p[4], q[4];
    spread_pairs(four, nibbles, p, q);
#pragma unroll
    for (int j = 0; j < 4; ++j)  // row g: steps 0 and 1; row g + 8: steps 0 and 1
      a[part][j % 2][j / 2] = p[j], a[part][j % 2][j / 2 + 2] = q[j];
#else
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      spread8(four.x, four.y, nibbles, half, table, a[part][half][0], a[part][half][2]);
      spread8(four.z, four.w, nibbles >> 8, half, table, a[part][half][1], a[part][half][3]);
    }
#endif
  }
#endif
}
#endif
