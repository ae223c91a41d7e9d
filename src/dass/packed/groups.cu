// N:M weights that formats.py packed, half of each group and a nibble for each quad: products with
// tokens, or the dense weight.
//
// The kept values are put back among four with byte permutes.

// One chunk of a tile: the lane's codes and values, and what becomes of them.
__device__ __forceinline__ void use_chunk(
    Target& target, const uint4& codes, const uint4 (&values)[VECTORS - 1],
    const uint4 (&x)[BLOCKS][TILES], const u32* table, int tile, int chunk, int rows, int width) {
#pragma unroll
  for (int block = 0; block < BLOCKS; ++block) {
    const int column = chunk * CHUNK_COLUMNS + 32 * block;
#pragma unroll
    for (int first = 0; first < PARTS; first += 2) {
      u32 a[2][2][4];
      fragments(a, codes, [&](int v) { return values[v]; }, table, block, first / 2);
#pragma unroll
      for (int part = 0; part < 2; ++part) {
#if UNPACK
        put(&target, a[part], first + part, tile, column, rows, width);
#else
#pragma unroll
        for (int half = 0; half < 2; ++half)
          use(target, a[part][half], x[block], first + part, half);
#endif
      }
    }
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
          copy<16>(shared_address(ring + ((slot + m) * VECTORS + v) * 32),
                   (m ? second : first) + at + 32 * v);
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
