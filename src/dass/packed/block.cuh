// What the warps of a block do alike: copies in the background, and sums of a tile's rows.
#ifdef WARPS

// From global to shared memory, 16 bytes or 4.
template <int BYTES> __device__ __forceinline__ void copy(u32 to, const void* from) {
  if constexpr (BYTES == 16)
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" :: "r"(to), "l"(from)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" :: "r"(to), "l"(from) : "memory");
}

#if !UNPACK
// What a tile's rows come to: the sums of all warps, in a fixed order. `shared` has room for those of
// one matrix.
__device__ __forceinline__ void finish(
    const float (&sums)[MATRICES][PARTS][TILES][4], float* shared, unsigned short* out, int tile,
    int rows, int tokens) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  constexpr int count = PARTS * TILES * 4, each = (count + WARPS - 1) / WARPS;
  float y[MATRICES][each] = {};
#pragma unroll
  for (int m = 0; m < MATRICES; ++m) {
    const float* own = &sums[m][0][0][0];
    __syncthreads();  // all have read what stood here before
#pragma unroll
    for (int i = 0; i < count; ++i) shared[(warp * count + i) * 32 + lane] = own[i];
    __syncthreads();
#pragma unroll
    for (int j = 0; j < each; ++j)
      if (const int i = warp + j * WARPS; i < count)
#pragma unroll
        for (int w = 0; w < WARPS; ++w) y[m][j] += shared[(w * count + i) * 32 + lane];
  }
#pragma unroll
  for (int j = 0; j < each; ++j) {
    const int i = warp + j * WARPS, row = tile * ROWS + row_of(i / (4 * TILES), i / 2 % 2, lane / 4);
    const int token = 8 * (i / 4 % TILES) + 2 * (lane % 4) + i % 2;
    if (i >= count || row >= rows || token >= tokens) continue;
#if MATRICES == 2
    y[0][j] = gated(y[0][j], y[1][j]);
#endif
    out[(long long)token * rows + row] = (unsigned short)rounded(y[0][j]);
  }
}
#endif
#endif
