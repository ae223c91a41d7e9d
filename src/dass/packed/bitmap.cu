// Weights with any mask, a bit for each weight and the kept values in order: products, or the dense
// weight.
//
// A lane's values of a segment, some chunks of a tile, lie in a column of its own, two a row of 32
// words, so that each lane reads at its own pace from its own bank. An octet's values fill whole
// words: those of its first quad from the front, those of its second from the back, so that none has
// to be shifted into place. Where octets begin follows from the codes by sums of bytes, and all of a
// chunk are read independently of one another. bitmap.py saw to it that within a chunk no lane runs
// ahead of another by more rows than a ring has.
//
// In memory, columns are sorted by their lengths, and of each vector of four columns there are as
// many as its longest column takes.
#define RING 128  // rows that a warp holds, a power of two; places in it are bytes
#define AGAIN 4   // the first rows stand behind the last ones too, so that none is sought there
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

// Words of each of four octets, a byte each.
__device__ __forceinline__ u32 words_of(u32 codes) {
  u32 counts = codes - ((codes >> 1) & 0x55555555u);
  counts = (counts & 0x33333333u) + ((counts >> 2) & 0x33333333u);
  counts = (counts + (counts >> 4)) & 0x0f0f0f0fu;
  return ((counts + EACH) >> 1) & 0x07070707u;
}

__device__ __forceinline__ u32 byte_of(u32 bytes, int number) {
  return permute(bytes, 0, 0x4440 + number);
}

// The lane's word so many rows behind an address.
template <int ROW> __device__ __forceinline__ u32 word(u32 address) {
  u32 found;
  asm volatile("ld.shared.u32 %0, [%1+%2];" : "=r"(found) : "r"(address), "n"(128 * ROW));
  return found;
}

__device__ __forceinline__ uint2 selectors(const uint2 (&table)[16], u32 eights, int number) {
  return *(const uint2*)((const char*)table + byte_of(eights, number));
}

// Vectors in the first rows of a segment whose eight columns of vectors end at these rows.
__device__ __forceinline__ int vectors_in(const uint4& ends, int rows) {
  const u32 both = rows * 0x10001u;
  const u32 sums = __vminu2(ends.x, both) + __vminu2(ends.y, both) + __vminu2(ends.z, both) +
                   __vminu2(ends.w, both);
  return (sums & 0xffffu) + (sums >> 16);
}

// Copies a segment's rows from `row` to `end` to the ring at this address, the first one to `place`.
__device__ __forceinline__ void copy_rows(
    u32 ring, const uint4* from, const uint4& ends, int row, int end, int place, int lane) {
  auto copy = [&](int to, const uint4* at) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;"
                 :: "r"(ring + to * 128), "l"(at));
  };
  const int mine = lane / 8, full = min(end, ends.w >> 16);
  const u32 two = lane & 4 ? lane & 2 ? ends.w : ends.z : lane & 2 ? ends.y : ends.x;
  const int own = min(end, lane & 1 ? two >> 16 : two & 0xffffu);
  ring += lane % 8 * 16, from += lane % 8;
  if (place < AGAIN || place + end - row > RING) {
    const int again = row + ((mine - place) & (RING - 1));
    if (again < own) copy(RING + mine, from + vectors_in(ends, again));
  }
  place += mine;
#pragma unroll 4
  for (const uint4* at = from + 8 * (row + mine); row + 4 <= full; row += 4, place += 4, at += 32)
    copy(place & (RING - 1), at);
#pragma unroll 1
  for (; row < end; row += 4, place += 4)
    if (row + mine < own) copy(place & (RING - 1), from + vectors_in(ends, row + mine));
}

template <int PENDING> __device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" :: "n"(PENDING) : "memory");
}

#if MATRICES == 2
__device__ __forceinline__ void exchange(float (&sums)[2][PARTS][TILES][4]) {
  float *one = &sums[0][0][0][0], *other = &sums[1][0][0][0];
#pragma unroll
  for (int i = 0; i < PARTS * TILES * 4; ++i) {
    const float kept = one[i];
    one[i] = other[i], other[i] = kept;
  }
}
#endif

// What a warp multiplies: as many segments as any other, counted through all tiles in order.
struct Shares {
  int number, shares, size, longer;  // the first `longer` ones have a segment more than `size`
  __device__ explicit Shares(int segments)
      : number((gridDim.x - blockIdx.x) * WARPS - 1 - threadIdx.x / 32), shares(gridDim.x * WARPS),
        size(segments / shares), longer(segments % shares) {}
  __device__ int first(int share) const { return share * size + min(share, longer); }
};

#if !UNPACK
// What the rows of a tile come to: the sums of all warps that share it, in a fixed order. The one
// with the tile's first segment writes `out`; `later` ones leave their sums in a slot of `workspace`
// and say so by this launch's ticket, a number that stands nowhere by chance, so that the flags need
// not be cleared before. Warps wait for warps of a lower index only, for the first that these do.
__device__ __forceinline__ void finish_share(
    float (&sums)[MATRICES][PARTS][TILES][4], unsigned short* out, float* workspace, u64 ticket,
    const Shares& shares, int tile, bool later, int end, int rows, int tokens) {
  constexpr int count = PARTS * TILES * 4, size = MATRICES * count * 32;
  const int lane = threadIdx.x % 32;
  float* const own = &sums[0][0][0][0];
  u64* const flags = (u64*)(workspace + (long long)shares.shares * size);
  if (later) {
#pragma unroll
    for (int i = 0; i < MATRICES * count; ++i)
      workspace[(long long)shares.number * size + i * 32 + lane] = own[i];
    __syncwarp();
    if (lane == 0) {
      __threadfence();
      asm volatile("st.release.gpu.u64 [%0], %1;"
                   :: "l"(flags + shares.number), "l"(ticket) : "memory");
    }
    return;
  }
  // All flags at once: one after another they would cost a memory latency each.
  for (int other = shares.number + 1 + lane; shares.first(other) < end; other += 32) {
    if (shares.first(other) == shares.first(other + 1)) continue;
    u64 seen;
    do asm volatile("ld.acquire.gpu.u64 %0, [%1];" : "=l"(seen) : "l"(flags + other) : "memory");
    while (seen != ticket);
    flags[other] = 0;
  }
  __syncwarp();
#pragma unroll 4
  for (int other = shares.number + 1; shares.first(other) < end; ++other) {
    if (shares.first(other) == shares.first(other + 1)) continue;
#pragma unroll
    for (int i = 0; i < MATRICES * count; ++i)
      own[i] += __ldcg(workspace + (long long)other * size + i * 32 + lane);
  }
#pragma unroll
  for (int i = 0; i < count; ++i) {
    const int row = tile * ROWS + row_of(i / (4 * TILES), i / 2 % 2, lane / 4);
    const int token = 8 * (i / 4 % TILES) + 2 * (lane % 4) + i % 2;
    if (row >= rows || token >= tokens) continue;
#if MATRICES == 2
    own[i] = gated(own[i], own[count + i]);
#endif
    out[(long long)token * rows + row] = (unsigned short)rounded(own[i]);
  }
}
#endif

extern "C" __global__ void __launch_bounds__(32 * WARPS, 1) product(
    const uint4* codes0, const uint4* plan0, const uint4* values0, const uint4* codes1,
    const uint4* plan1, const uint4* values1, const char* x, unsigned short* out, int rows,
    int columns, int tokens, int tiles, int chunks, int segment0, int segment1, float* workspace,
    u64 ticket) {
  __shared__ uint2 table[2][16];
  extern __shared__ uint4 memory[];  // of each warp a ring of rows
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int count0 = (chunks + segment0 - 1) / segment0;
  const int count = count0 + (MATRICES == 2 ? (chunks + segment1 - 1) / segment1 : 0);
  const Shares shares(tiles * count);  // of a tile the first matrix's segments come first
  const int begin = shares.first(shares.number), end = shares.first(shares.number + 1);
  let_next_start();

  auto second = [&](int unit) { return MATRICES == 2 && unit % count >= count0; };
  auto plan_of = [&](int unit) {
    const int tile = unit / count, s = unit % count;
    return second(unit) ? plan1 + (tile * (count - count0) + s - count0) * 4
                        : plan0 + (tile * count0 + s) * 4;
  };
  // The segment that is copied, and the next one's plan. A warp's rows, counted through all of its
  // segments, are copied as far ahead as the slowest lane lets them.
  const u32 ring = (u32)__cvta_generic_to_shared(memory) + warp * (RING + AGAIN) * 128;
  const uint4* from = nullptr;
  uint4 ends = {}, next_ends = {};
  int next = begin, row = 0, left = 0, copied = 0, start = 0;
  auto seek = [&]() {
    if (next >= end) return;
    const uint4* plan = plan_of(next);
    next_ends = __ldg(plan), start = __ldg((const int*)(plan + 1));
  };
  auto fetch = [&](int limit) {
    while (copied < limit && (left > 0 || next < end)) {
      if (left == 0) {
        from = (second(next) ? values1 : values0) + start;
        ends = next_ends, row = 0, left = ends.x & 0xffffu;
        ++next;
        seek();
      }
      const int room = limit - copied, some = room < left ? room & ~3 : left;
      if (some == 0 && left > 0) break;
      copy_rows(ring, from, ends, row, row + some, copied & (RING - 1), lane);
      copied += some, left -= some, row += some;
    }
    asm volatile("cp.async.commit_group;");
  };
  // The codes of the chunk that comes next, and the lane's column in its segment, in bytes.
  const uint4* codes = codes0;
  u32 column = 0;
  auto look = [&](int unit) {
    const int tile = unit / count, s = unit % count;
    const int chunk = second(unit) ? (s - count0) * segment1 : s * segment0;
    codes = (second(unit) ? codes1 : codes0) + ((long long)tile * chunks + chunk) * 32 + lane;
    column = __ldg((const unsigned char*)(plan_of(unit) + 2) + lane);
  };
  if (begin < end) look(begin);
  uint4 coming = __ldg(codes);
  seek();
  fetch(RING);
  fill(table);
  wait_for_tokens();

  int place = 0, earlier = 0;  // rows that the lane has used up; that were copied two chunks ago
#if !UNPACK
  float sums[MATRICES][PARTS][TILES][4] = {};
#endif
#if MATRICES == 2
  bool swapped = false;  // sums[0] are the second matrix's for now
#endif
  for (int unit = begin; unit < end; ++unit) {
    const int tile = unit / count, s = unit % count, segment = second(unit) ? segment1 : segment0;
    const u32 own = ring + column;
    int chunk = (s - (second(unit) ? count0 : 0)) * segment;
#if MATRICES == 2
    if (second(unit) != swapped) exchange(sums), swapped = !swapped;
#endif
    for (const int last = min(chunk + segment, chunks); chunk < last; ++chunk) {
      const u32 code[4] = {coming.x, coming.y, coming.z, coming.w};
      if (chunk + 1 < last) codes += 32;
      else if (unit + 1 < end) look(unit + 1);
      coming = __ldg(codes);
#if !UNPACK
      uint4 xs[BLOCKS][TILES];
      load_tokens(xs, x, chunk * CHUNK_COLUMNS, columns, tokens, lane);
#endif
      // Where each octet ends in the ring, two rows less: bytes.
      const u32 begins = (place - 2) & (RING - 1);
      u32 stops[4], after = begins;
#pragma unroll
      for (int block = 0; block < BLOCKS; ++block) {
        stops[block] = (words_of(code[block]) + after) * EACH;
        after = stops[block] >> 24;
        stops[block] &= (RING - 1) * EACH;
      }
      const int needed = __reduce_max_sync(~0u, place + after - begins);
      const int lowest = __reduce_min_sync(~0u, place);
      const int before = copied;
      __syncwarp();  // all have read what is overwritten
      fetch(lowest + RING);
      if (needed <= earlier) wait_copies<2>();
      else if (needed <= before) wait_copies<1>();
      else wait_copies<0>();
      __syncwarp();
      earlier = before;
      place = chunk + 1 < last ? place + after - begins : needed;
      u32 at = own + begins * 128;
#pragma unroll
      for (int block = 0; block < BLOCKS; ++block) {
        const u32 eights[2] = {(code[block] << 3) & 0x78787878u, (code[block] >> 1) & 0x78787878u};
#pragma unroll
        for (int part = 0; part < 2; ++part) {
          u32 a[2][4];
#pragma unroll
          for (int lower = 0; lower < 2; ++lower) {
            const int octet = 2 * part + lower;
            const u32 to = own + byte_of(stops[block], octet) * 128;
            const uint2 front = selectors(table[0], eights[0], octet);
            const uint2 back = selectors(table[1], eights[1], octet);
            const u32 f0 = word<2>(at), f1 = word<3>(at) & (front.y | 0xffffu);
            const u32 b0 = word<0>(to) & (back.y | 0xffff0000u), b1 = word<1>(to);
            a[0][lower] = permute(f0, f1, front.x), a[0][2 + lower] = permute(f0, f1, front.y);
            a[1][lower] = permute(b0, b1, back.x), a[1][2 + lower] = permute(b0, b1, back.y >> 16);
            at = to;
          }
#if UNPACK
          put(out, a, part, tile, chunk * CHUNK_COLUMNS + 32 * block, rows, columns);
#else
#pragma unroll
          for (int half = 0; half < 2; ++half) use(sums[0], a[half], xs[block], part, half);
#endif
        }
      }
    }
#if !UNPACK
    if (unit + 1 < end && s + 1 < count) continue;
#if MATRICES == 2
    if (swapped) exchange(sums), swapped = false;
#endif
    finish_share(sums, out, workspace, ticket, shares, tile, tile * count < begin,
                 (tile + 1) * count, rows, tokens);
#pragma unroll
    for (int i = 0; i < MATRICES * PARTS * TILES * 4; ++i) (&sums[0][0][0][0])[i] = 0;
#endif
  }
}
