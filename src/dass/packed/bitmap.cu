// Weights with any mask, a bit for each weight and the kept values in order: products, or the dense
// weight.
//
// A lane's values of a chunk lie in a column of its own, two a row of 32 words, so that each lane
// reads where it is from a bank of its own. Rows that most lanes fill lie in memory as they are; the
// few words beyond them, the spill, are copied one by one to where they belong. An octet's values
// begin at any half: what ends at a boundary of octets, and what begins there, comes out of five
// words by one shift. Where the boundaries are follows from the codes by sums of bytes, so that all
// of a chunk are read independently of one another.
#define CODE_ROWS 4        // of a chunk: the lanes' codes, 16 bytes each
#define ROW 128            // bytes
#define VECTORS (ROW / 16)
#define EACH 0x01010101u

// The selectors of all codes, a first quad's and a second one's: of places 0 and 1 in x, of places 2
// and 3 in y. A first quad's values come first among its four halves, a second one's last. Where
// nothing is kept they take half 3, or half 0, which is made zero unless all four are kept: 16 bits
// of y say so.
__device__ __forceinline__ void fill(uint2 (&table)[2][16]) {
  if (threadIdx.x < 32) {
    const int code = threadIdx.x % 16, second = threadIdx.x / 16;
    u32 both = 0;
    for (int place = 0, half = second ? 4 - __popc(code) : 0; place < 4; ++place) {
      const u32 taken = (code >> place) & 1 ? half++ : second ? 0 : 3;
      both |= (2 * taken | (2 * taken + 1) << 4) << (8 * place);
    }
    const u32 full = code == 15 ? 0xffffu : 0;
    const u32 y = second ? (both & 0xffff0000u) | full : both >> 16 | full << 16;
    table[second][code] = make_uint2(both & 0xffffu, y);
  }
  __syncthreads();
}

// Weights that each of four octets keeps, a byte each.
__device__ __forceinline__ u32 kept_in(u32 codes) {
  u32 counts = codes - ((codes >> 1) & 0x55555555u);
  counts = (counts & 0x33333333u) + ((counts >> 2) & 0x33333333u);
  return (counts + (counts >> 4)) & 0x0f0f0f0fu;
}

__device__ __forceinline__ u32 byte_of(u32 bytes, int number) {
  return permute(bytes, 0, 0x4440 + number);
}

// The lane's word so many rows behind an address.
template <int ROWS_ON> __device__ __forceinline__ u32 word(u32 address) {
  u32 found;
  asm volatile("ld.shared.u32 %0, [%1+%2];" : "=r"(found) : "r"(address), "n"(ROW * ROWS_ON));
  return found;
}

__device__ __forceinline__ uint2 selectors(const uint2 (&table)[16], u32 eights, int number) {
  return *(const uint2*)((const char*)table + byte_of(eights, number));
}

// One chunk of a tile, of codes and a lane's column of words at an address.
__device__ __forceinline__ void use_chunk(
    Target& target, const uint4& codes, u32 column, const uint4 (&x)[BLOCKS][TILES],
    const uint2 (&table)[2][16], int tile, int chunk, int rows, int width) {
  const u32 code[4] = {codes.x, codes.y, codes.z, codes.w};
  u32 ends[4];  // of each octet, in halves
#pragma unroll
  for (int block = 0; block < BLOCKS; ++block)
    ends[block] = (kept_in(code[block]) + (block ? ends[block - 1] >> 24 : 0)) * EACH;
  u32 f0 = word<0>(column), f1 = word<1>(column);
#pragma unroll
  for (int block = 0; block < BLOCKS; ++block) {
    const u32 eights[2] = {(code[block] << 3) & 0x78787878u, (code[block] >> 1) & 0x78787878u};
    const u32 even = ends[block] & ~EACH, shifts = (ends[block] & EACH) << 4;
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      u32 a[2][4];
#pragma unroll
      for (int lower = 0; lower < 2; ++lower) {
        const int octet = 2 * part + lower;
        const uint2 front = selectors(table[0], eights[0], octet);
        const uint2 back = selectors(table[1], eights[1], octet);
        const u32 at = column + byte_of(even, octet) * (ROW / 2), shift = shifts >> (8 * octet);
        const u32 before[2] = {word<-2>(at), word<-1>(at)}, here = word<0>(at);
        const u32 b0 = __funnelshift_r(before[0], before[1], shift) & (back.y | 0xffff0000u);
        const u32 b1 = __funnelshift_r(before[1], here, shift);
        f1 &= front.y | 0xffffu;
        a[0][lower] = permute(f0, f1, front.x), a[0][2 + lower] = permute(f0, f1, front.y);
        a[1][lower] = permute(b0, b1, back.x), a[1][2 + lower] = permute(b0, b1, back.y >> 16);
        if (block + 1 < BLOCKS || octet < 3) {
          const u32 next = word<1>(at);
          f0 = __funnelshift_r(here, next, shift);
          f1 = __funnelshift_r(next, word<2>(at), shift);
        }
      }
#if UNPACK
      put(&target, a, part, tile, chunk * CHUNK_COLUMNS + 32 * block, rows, width);
#else
#pragma unroll
      for (int half = 0; half < 2; ++half) use(target, a[half], x[block], part, half);
#endif
    }
  }
}

// The words of each lane beyond its rows to their places in its column; in memory they lie one
// lane's after another's.
__device__ __forceinline__ void copy_spill(u32 place, const u32* from, int own) {
  int through = own;
#pragma unroll
  for (int by = 1; by < 32; by *= 2)
    asm volatile("{ .reg .pred inside; .reg .s32 other;\n"
                 "shfl.sync.up.b32 other|inside, %0, %1, 0, 0xffffffff;\n"
                 "@inside add.s32 %0, %0, other; }" : "+r"(through) : "r"(by));
  from += through - own;
  constexpr int most = 8;  // without a branch; more are rare
#pragma unroll
  for (int row = 0; row < most; ++row)
    asm volatile("{ .reg .pred needed;\n"
                 "setp.gt.s32 needed, %2, %3;\n"
                 "@needed cp.async.ca.shared.global [%0], [%1], 4; }"
                 :: "r"(place + ROW * row), "l"(from + row), "r"(own), "r"(row));
  if (__any_sync(~0u, own > most))
#pragma unroll 1
    for (int row = most; row < own; ++row) copy<4>(place + ROW * row, from + row);
}

// A packed matrix: of each chunk its codes and `depth` rows, and where its spill begins.
struct Bitmap {
  const uint4* data;
  const u32* spill;
  const int* begins;
  int depth;
};

extern "C" __global__ void __launch_bounds__(32 * WARPS, 1) product(
    const uint4* data0, const u32* spill0, const int* begins0, const uint4* data1,
    const u32* spill1, const int* begins1, const char* x, unsigned short* out, int rows,
    int columns, int tokens, int tiles, int chunks, int depth0, int depth1, int height) {
  __shared__ uint2 table[2][16];
  extern __shared__ uint4 memory[];  // of each warp STAGES chunks of `height` rows; sums at the end
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int size = height * VECTORS, ring = warp * STAGES * size, end = ring + STAGES * size;
  const Bitmap matrices[2] = {{data0, spill0, begins0, depth0}, {data1, spill1, begins1, depth1}};
  let_next_start();
  // Chunks are dealt to the warps one after another, across the tiles of the block, of gate and up
  // by turns, and copied STAGES ahead. Codes are read one chunk earlier: they tell the spill.
  int next_tile = blockIdx.x, next = warp, to = ring, begin = 0;
  const uint4* source = nullptr;  // a lane's codes
  uint4 codes = {};
  auto look = [&](const Bitmap& matrix) {
    for (; next >= chunks; next -= chunks) next_tile += gridDim.x;
    source = nullptr;
    if (next_tile >= tiles) return;
    const int at = next_tile * chunks + next;
    source = matrix.data + (long long)at * (CODE_ROWS + matrix.depth) * VECTORS + lane;
    codes = __ldg(source), begin = __ldg(matrix.begins + at);
  };
  auto fetch = [&](int m) {
    const Bitmap& matrix = matrices[m];
    if (source) {
      memory[to + lane] = codes;
      const u32 first = shared_address(memory + to) + CODE_ROWS * ROW;
      const uint4* from = source + CODE_ROWS * VECTORS;
      u32 place = first + 16 * lane;
#pragma unroll 4
      for (int row = 0; row < matrix.depth; row += 4, from += 4 * VECTORS, place += 4 * ROW)
        copy<16>(place, from);
      const int kept = __popc(codes.x) + __popc(codes.y) + __popc(codes.z) + __popc(codes.w);
      const int own = max((kept + 1) / 2 - matrix.depth, 0);
      copy_spill(first + matrix.depth * ROW + 4 * lane, matrix.spill + begin, own);
    }
    asm volatile("cp.async.commit_group;");
    to = to + size < end ? to + size : ring;
    if (m == MATRICES - 1) next += WARPS;
    look(matrices[(m + 1) % MATRICES]);
  };
  look(matrices[0]);
#pragma unroll
  for (int i = 0; i < STAGES; ++i) fetch(i % MATRICES);
  fill(table);
  wait_for_tokens();
  int chunk = warp, stage = ring;
  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
#if !UNPACK
    float sums[MATRICES][PARTS][TILES][4] = {};
#endif
    for (; chunk < chunks; chunk += WARPS) {
      uint4 xs[BLOCKS][TILES];
#if !UNPACK
      load_tokens(xs, x, chunk * CHUNK_COLUMNS, columns, tokens, lane);
#endif
#pragma unroll
      for (int m = 0; m < MATRICES; ++m) {
        asm volatile("cp.async.wait_group %0;" :: "n"(STAGES - 1) : "memory");
        __syncwarp();  // what the other lanes copied is there as well
        const uint4 code = memory[stage + lane];
        const u32 column = shared_address(memory + stage) + CODE_ROWS * ROW + 4 * lane;
#if UNPACK
        use_chunk(*out, code, column, xs, table, tile, chunk, rows, columns);
#else
        use_chunk(sums[m], code, column, xs, table, tile, chunk, rows, columns);
#endif
        __syncwarp();  // all have read what is overwritten
        fetch(m);
        stage = stage + size < end ? stage + size : ring;
      }
    }
    chunk -= chunks;
#if !UNPACK
    finish(sums, (float*)(memory + WARPS * STAGES * size), out, tile, rows, tokens);
#endif
  }
}
