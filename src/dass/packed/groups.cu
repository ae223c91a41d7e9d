// N:M weights that formats.py packed, half of each group and a nibble for each quad: products with
// tokens, or the dense weight.
//
// The kept values are put back among four with byte permutes.

// A row's 8 columns of a lane to the dense matrix [rows, width], 16 bytes at once; `tile` is that of
// the rows, `column` the block's first one.
__device__ __forceinline__ void put(
    unsigned short* out, const u32 (&a)[2][4], int part, int tile, int column, int rows, int width) {
  const int lane = threadIdx.x % 32, first = column + 8 * (lane % 4);
#pragma unroll
  for (int lower = 0; lower < 2; ++lower) {
    const int row = tile * ROWS + row_of(part, lower, lane / 4);
    if (row >= rows || first >= width) continue;
    unsigned short* to = out + (long long)row * width + first;
    const u32 words[4] = {a[0][lower], a[0][2 + lower], a[1][lower], a[1][2 + lower]};
    if (width % 8 == 0) {
      *(uint4*)to = make_uint4(words[0], words[1], words[2], words[3]);
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i)
        if (first + i < width) to[i] = (unsigned short)(words[i / 2] >> (16 * (i % 2)));
    }
  }
}

#if PAIRED
// Groups along the output come apart as pairs of rows of one column, tensor cores add pairs of
// columns. With up to 4 tokens the pairs stay: both halves are multiplied by the column's x, in two
// of the 8 columns that tensor cores take, in one of which the other half meets a zero. The lane's
// eight x of a block, each alone in the half that its column of the two is for:
__device__ __forceinline__ void pair_tokens(const uint4& x, u32 (&pairs)[8]) {
  const u32 word[4] = {x.x, x.y, x.z, x.w};
  const u32 even = threadIdx.x & 4 ? 0x1044 : 0x4410, odd = threadIdx.x & 4 ? 0x3244 : 0x4432;
#pragma unroll
  for (int j = 0; j < 8; ++j) pairs[j] = permute(word[j / 2], 0, j % 2 ? odd : even);
}
#endif

// One chunk of a tile: the lane's codes and values, and what becomes of them.
__device__ __forceinline__ void use_chunk(
    Target& target, const uint4& codes, const uint4 (&values)[VECTORS - 1],
    const uint4 (&x)[BLOCKS][TILES], const u32* table, int tile, int chunk, int rows, int width) {
#if PAIRED
  const u32 code[4] = {codes.x, codes.y, codes.z, codes.w};
#pragma unroll
  for (int block = 0; block < BLOCKS; ++block) {
    u32 pairs[8];
    pair_tokens(x[block][0], pairs);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      u32 p[4], q[4];
      spread_pairs(values[2 * block + half], code[block] >> (16 * half), p, q);
#pragma unroll
      for (int j = 0; j < 4; j += 2) {
        const u32 a[4] = {p[j], q[j], p[j + 1], q[j + 1]};
        multiply(target[0][0], a, pairs[4 * half + j], pairs[4 * half + j + 1]);
      }
    }
  }
#else
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
          use(target, a[part][half], x[block], first + part, half, tile, column, rows, width);
#endif
      }
    }
  }
#endif
}

extern "C" __global__ void __launch_bounds__(32 * WARPS, 1) product(
    const uint4* first, const uint4* second, const char* x, unsigned short* out, uint4* workspace,
    u64 ticket, int rows, int columns, int tokens, int tiles, int chunks) {
  __shared__ u32 table[16];
  extern __shared__ uint4 memory[];  // of each warp a ring of chunks; sums at the end
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  uint4* const ring = memory + warp * STAGES * VECTORS * 32 + lane;  // a lane reads what it copied
  const Share share(tiles * chunks);
  let_next_start();
  // The share's chunks are dealt to the warps one after another and copied STAGES ahead, so that
  // memory is never waited for where a tile ends.
  int own = share.first(share.number) + warp, next = own, slot = 0;
  const int last = share.first(share.number + 1);
  auto fetch = [&]() {
    if (next < last) {
      const long long at = (long long)next * VECTORS * 32 + lane;
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
  for (int begin = share.first(share.number); begin < last;) {
    const int tile = begin / chunks, end = min(last, (tile + 1) * chunks);
#if !UNPACK
    float sums[MATRICES][PARTS][TILES][4] = {};
#endif
    for (; own < end; own += WARPS) {
      const int chunk = own - tile * chunks;
      uint4 xs[BLOCKS][TILES];
#if !UNPACK
      load_tokens(xs, x, chunk * CHUNK_COLUMNS, columns, tokens, lane);
#endif
      asm volatile("cp.async.wait_group %0;" :: "n"(STAGES / MATRICES - 1) : "memory");
      uint4 codes[MATRICES], values[MATRICES][VECTORS - 1];
#pragma unroll
      for (int m = 0; m < MATRICES; ++m) {
        codes[m] = ring[(slot + m) * VECTORS * 32];
#pragma unroll
        for (int v = 0; v < VECTORS - 1; ++v)
          values[m][v] = ring[((slot + m) * VECTORS + v + 1) * 32];
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
#if !UNPACK
    finish(sums, (float*)(memory + WARPS * STAGES * VECTORS * 32), out, workspace, ticket,
           share, tile, begin % chunks != 0, (tile + 1) * chunks, rows, tokens);
#endif
    begin = end;
  }
}
