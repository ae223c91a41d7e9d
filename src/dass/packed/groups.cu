// N:M weights that formats.py packed, half of each group and a nibble for each quad: products with
// tokens, or the dense weight.
//
// The kept values are put back among four with byte permutes.
#define VECTORS 9  // of 16 bytes a lane and chunk: codes, then values

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
#else
// Two quads of one group of 8 with four values.
__device__ __forceinline__ void spread8(
    u32 a, u32 b, u32 first, u32 second, const u32* table, u32 (&low)[2], u32 (&high)[2]) {
  u32 count = __popc(first);
  spread(a, count == 4 ? b : b & 0xffffu, table[first], low[0], high[0]);
  u64 rest = (((u64)b << 32) | a) >> (8 * count) >> (8 * count);
  spread((u32)rest, (u32)(rest >> 32), table[second], low[1], high[1]);
}
#endif

// One chunk of a tile: the lane's codes and values, and what becomes of them.
__device__ __forceinline__ void use_chunk(
    Target& target, const uint4& codes, const uint4 (&values)[VECTORS - 1],
    const uint4 (&x)[BLOCKS][TILES], const u32* table, int tile, int chunk, int rows, int width) {
  const u32 code[4] = {codes.x, codes.y, codes.z, codes.w};
#pragma unroll
  for (int block = 0; block < BLOCKS; ++block) {
    const int column = chunk * CHUNK_COLUMNS + 32 * block;
#if OUTPUT && GROUP == 4
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int v = 2 * block + half;
      const u32 word[4] = {values[v].x, values[v].y, values[v].z, values[v].w};
      u32 p[4], q[4], low[4], high[4];
      selectors_of(code[v / 2] >> (16 * (v % 2)), low, high);
#pragma unroll
      for (int j = 0; j < 4; ++j)
        p[j] = permute(word[j], 0, low[j]), q[j] = permute(word[j], 0, high[j]);
      const u32 top[4] = {permute(p[0], p[1], 0x5410), permute(p[0], p[1], 0x7632),
                          permute(p[2], p[3], 0x5410), permute(p[2], p[3], 0x7632)};
      const u32 bottom[4] = {permute(q[0], q[1], 0x5410), permute(q[0], q[1], 0x7632),
                             permute(q[2], q[3], 0x5410), permute(q[2], q[3], 0x7632)};
      use(target, top, x[block], 0, half, tile, column, rows, width);
      use(target, bottom, x[block], 1, half, tile, column, rows, width);
    }
#elif OUTPUT
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      u32 p[2][4], q[2][4];  // of the rows' two quads, each of four columns
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int v = 4 * block + 2 * half + j / 2;
        const u32 a = j % 2 ? values[v].z : values[v].x, b = j % 2 ? values[v].w : values[v].y;
        const u32 both = (code[v / 2] >> (16 * (v % 2) + 8 * (j % 2))) & 255;
        u32 low[2], high[2];
        spread8(a, b, both & 15, both >> 4, table, low, high);
        p[0][j] = low[0], q[0][j] = high[0], p[1][j] = low[1], q[1][j] = high[1];
      }
#pragma unroll
      for (int part = 0; part < 4; ++part) {
        const u32* r = part % 2 ? q[part / 2] : p[part / 2];
        const u32 a[4] = {permute(r[0], r[1], 0x5410), permute(r[0], r[1], 0x7632),
                          permute(r[2], r[3], 0x5410), permute(r[2], r[3], 0x7632)};
        use(target, a, x[block], part, half, tile, column, rows, width);
      }
    }
#else
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const int v = 2 * block + part;
      const u32 nibbles = code[v / 2] >> (16 * (v % 2));
      u32 a[2][4];  // of the two steps of 16 columns
#if GROUP == 4
      const u32 word[4] = {values[v].x, values[v].y, values[v].z, values[v].w};
      u32 low[4], high[4];
      selectors_of(nibbles, low, high);
#pragma unroll
      for (int j = 0; j < 4; ++j)  // row g: steps 0 and 1; row g + 8: steps 0 and 1
        a[j % 2][j / 2] = permute(word[j], 0, low[j]), a[j % 2][j / 2 + 2] = permute(word[j], 0, high[j]);
#else
      u32 low[2], high[2];
      spread8(values[v].x, values[v].y, nibbles & 15, (nibbles >> 4) & 15, table, low, high);
      a[0][0] = low[0], a[0][2] = high[0], a[1][0] = low[1], a[1][2] = high[1];
      spread8(values[v].z, values[v].w, (nibbles >> 8) & 15, (nibbles >> 12) & 15, table, low, high);
      a[0][1] = low[0], a[0][3] = high[0], a[1][1] = low[1], a[1][3] = high[1];
#endif
#pragma unroll
      for (int half = 0; half < 2; ++half)
        use(target, a[half], x[block], part, half, tile, column, rows, width);
    }
#endif
  }
}

extern "C" __global__ void __launch_bounds__(32 * WARPS, 1) product(
    const uint4* first, const uint4* second, const char* x, unsigned short* out, int rows,
    int columns, int tokens, int tiles, int chunks) {
  __shared__ u32 table[16];
  extern __shared__ uint4 memory[];  // of each warp a ring of chunks; sums at the end
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  uint4* const ring = memory + warp * STAGES * VECTORS * 32 + lane;  // a lane reads what it copied
  let_next_start();
  // Chunks are dealt to the warps one after another, across the tiles of the block, and copied
  // STAGES ahead, so that memory is never waited for where a tile ends.
  int next_tile = blockIdx.x, next = warp, slot = 0;
  auto fetch = [&]() {
    for (; next >= chunks; next -= chunks) next_tile += gridDim.x;
    if (next_tile < tiles) {
      const long long at = ((long long)next_tile * chunks + next) * VECTORS * 32 + lane;
#pragma unroll
      for (int m = 0; m < MATRICES; ++m)
#pragma unroll
        for (int v = 0; v < VECTORS; ++v)
          copy(ring + ((slot + m) * VECTORS + v) * 32, (m ? second : first) + at + 32 * v);
    }
    asm volatile("cp.async.commit_group;");
    next += WARPS;
    slot = slot + MATRICES < STAGES ? slot + MATRICES : 0;
  };
#pragma unroll
  for (int stage = 0; stage < STAGES; stage += MATRICES) fetch();
  fill(table);
  wait_for_tokens();
  int chunk = warp;
  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
#if !UNPACK
    float sums[MATRICES][PARTS][TILES][4] = {};
#endif
    for (; chunk < chunks; chunk += WARPS) {
      uint4 xs[BLOCKS][TILES];
#if !UNPACK
      load_tokens(xs, x, chunk * CHUNK_COLUMNS, columns, tokens, lane);
#endif
      asm volatile("cp.async.wait_group %0;" :: "n"(STAGES / MATRICES - 1) : "memory");
      uint4 codes[MATRICES], values[MATRICES][VECTORS - 1];
#pragma unroll
      for (int m = 0; m < MATRICES; ++m) {
        const uint4* at = ring + (slot + m) * VECTORS * 32;
        codes[m] = at[0];
#pragma unroll
        for (int v = 0; v < VECTORS - 1; ++v) values[m][v] = at[32 * (v + 1)];
      }
      fetch();
#pragma unroll
      for (int m = 0; m < MATRICES; ++m)
#if UNPACK
        use_chunk(*out, codes[m], values[m], xs, table, tile, chunk, rows, columns);
#else
        use_chunk(sums[m], codes[m], values[m], xs, table, tile, chunk, rows, columns);
#endif
    }
    chunk -= chunks;
#if !UNPACK
    finish(sums, (float*)(memory + WARPS * STAGES * VECTORS * 32), out, tile, rows, tokens);
#endif
  }
}
