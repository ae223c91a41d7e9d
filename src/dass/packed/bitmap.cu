// Weights with any mask, a bit for each weight and the kept values: products, or the dense weight.
//
// A lane's values lie one after another in a column of its own, two a row of 32 words, so that a
// warp copies rows in order and each lane reads at its own pace from its own bank. A segment of
// SEGMENT chunks begins at a row of its own; formats.py chose it such that no lane runs ahead of
// another by more than RING rows allow.
#define RING 64   // rows that a warp holds
#define AGAIN 4   // the first rows stand behind the last ones too, so that none is sought there

struct Lane {
  const char* ring;  // the lane's word of row 0
  u32 place;         // halves that it has used up in this segment
};

__device__ __forceinline__ void quad(Lane& lane, u32 code, const u32* table, u32& low, u32& high) {
  const u32* at = (const u32*)(lane.ring + ((lane.place << 6) & (RING * 128 - 128)));
  const u32 w0 = at[0], w1 = at[32], w2 = at[64];
  const u32 align = 0x3210 + (lane.place & 1) * 0x2222;
  const u32 b = permute(w1, w2, align);
  spread(permute(w0, w1, align), code == 15 ? b : b & 0xffffu, table[code], low, high);
  lane.place += __popc(code);
}

extern "C" __global__ void __launch_bounds__(32 * WARPS, 3) product(
    const uint4* codes0, const int* starts0, const uint4* values0, const uint4* codes1,
    const int* starts1, const uint4* values1, const char* x, unsigned short* out, int rows,
    int columns, int tokens, int chunks, int segment0, int segment1) {
  __shared__ u32 table[16];
  extern __shared__ uint4 memory[];  // of each warp RING rows; sums at the end
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  fill(table);
  wait_for_tokens();
#if !UNPACK
  float sums[MATRICES][PARTS][TILES][4] = {};
#endif
  uint4* const ring = memory + warp * (RING + AGAIN) * 8;
  Lane own = {(const char*)ring + 4 * lane, 0};
#pragma unroll
  for (int m = 0; m < MATRICES; ++m) {
    const int segment = m ? segment1 : segment0;
    const int segments = (chunks + segment - 1) / segment;
    const int* starts = (m ? starts1 : starts0) + (long long)blockIdx.x * segments;
    const uint4* codes = (m ? codes1 : codes0) + (long long)blockIdx.x * chunks * 32 + lane;
    for (int s = warp; s < segments; s += WARPS) {
      const int first = starts[s], total = starts[s + 1] - first;
      const uint4* from = (m ? values1 : values0) + (long long)first * 8 + lane;
      int have = 0;  // rows that are there or on their way
      own.place = 0;
      __syncwarp();
      auto fetch = [&](int lowest) {  // in fours, the ring as full as the slowest lane lets it be
        const int end = min(total, (lowest + RING) & ~3);
        for (; have < end; have += 4) {
          copy(ring + (have % RING) * 8 + lane, from + have * 8);
          if (have % RING == 0) copy(ring + RING * 8 + lane, from + have * 8);
        }
        asm volatile("cp.async.commit_group;");
      };
      fetch(0);
      const int last = min((s + 1) * segment, chunks);
      uint4 next = __ldg(codes + s * segment * 32);
      int there = 0;  // rows that are there
      for (int chunk = s * segment; chunk < last; ++chunk) {
        const u32 code[4] = {next.x, next.y, next.z, next.w};
        if (chunk + 1 < last) next = __ldg(codes + (chunk + 1) * 32);
        uint4 xs[BLOCKS][TILES];
#if UNPACK
        Target& target = *out;
#else
        load_tokens(xs, x, chunk * CHUNK_COLUMNS, columns, tokens, lane);
        Target& target = sums[m];
#endif
#pragma unroll
        for (int block = 0; block < BLOCKS; ++block) {
          // What this block ends at, and where the slowest lane is.
          const int end = __reduce_max_sync(~0u, (own.place + __popc(code[block]) + 1) / 2);
          const int lowest = __reduce_min_sync(~0u, own.place / 2);
          const int before = have;
          fetch(lowest);
          if (end > there) {
            if (end <= before) {
              asm volatile("cp.async.wait_group 1;" ::: "memory");
              there = before;
            } else {
              asm volatile("cp.async.wait_group 0;" ::: "memory");
              there = have;
            }
            __syncwarp();
          }
#pragma unroll
          for (int part = 0; part < 2; ++part) {
            const u32 nibbles = code[block] >> (16 * part);
            u32 a[2][4];
            quad(own, nibbles & 15, table, a[0][0], a[0][2]);
            quad(own, (nibbles >> 4) & 15, table, a[1][0], a[1][2]);
            quad(own, (nibbles >> 8) & 15, table, a[0][1], a[0][3]);
            quad(own, (nibbles >> 12) & 15, table, a[1][1], a[1][3]);
#pragma unroll
            for (int half = 0; half < 2; ++half)
              use(target, a[half], xs[block], part, half, blockIdx.x,
                  chunk * CHUNK_COLUMNS + 32 * block, rows, columns);
          }
        }
      }
      asm volatile("cp.async.wait_group 0;" ::: "memory");
    }
  }
#if !UNPACK
  finish(sums, (float*)memory, out, blockIdx.x, rows, tokens);
#endif
}
