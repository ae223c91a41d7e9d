// Packed N:M weights times many tokens, on Hopper's tensor cores: W's fragments from registers, the
// tokens from shared memory.
//
// A block multiplies BLOCK_ROWS rows with TOKENS tokens, over its share of the chunks of columns. A
// warpgroup takes two parts of four tiles, a tile each warp. One warp more copies, STAGES chunks
// ahead: packed tiles as they are, and tokens as `arrange` laid them for the tensor cores.
//
// Compiled with these defined, beside those of common.cuh:
//   TOKENS  a block multiplies: 32, 64, 128;  GANGS  warpgroups;  STAGES, RESIDENT  as they fit
//   CLUSTER  blocks that multiply the same tokens and share copying them: 1 or 2
//   SPLIT   1: sums go as float32 into a workspace, for `combine`
//   COPIERS  threads that copy, of which one warp does: a warpgroup where registers are traded
#define TILE_WORDS (VECTORS * 32)  // uint4 of a tile's chunk
#define BLOCK_ROWS (128 * GANGS)
#define BLOCK_TILES (BLOCK_ROWS / ROWS)
#define TOKEN_BYTES (TOKENS * CHUNK_COLUMNS * 2)
#define STAGE_BYTES (TOKEN_BYTES + BLOCK_TILES * TILE_WORDS * 16)
#define SHARE (TOKEN_BYTES / CLUSTER)  // of the tokens that a block copies, to all of its cluster
#define SUMS (TOKENS / 2)  // that a lane holds of a part
#if SPLIT
typedef float Out;
#else
typedef unsigned short Out;
#endif
#define PITCH (BLOCK_ROWS + 16 / (int)sizeof(Out))  // of a token's rows in shared memory

__device__ __forceinline__ u32 shared_address(const void* p) {
  u32 address;
  asm("{ .reg .u64 wide; cvta.to.shared.u64 wide, %1; cvt.u32.u64 %0, wide; }"
      : "=r"(address) : "l"(p));
  return address;
}

__device__ __forceinline__ void wait(u32 barrier, u32 parity) {
  asm volatile(
      "{ .reg .pred done; again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;"
      " @!done bra again; }" :: "r"(barrier), "r"(parity) : "memory");
}

__device__ __forceinline__ void bring(u32 to, const void* from, u32 bytes, u32 barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
      :: "r"(to), "l"(from), "r"(bytes), "r"(barrier) : "memory");
}

// The same to this place in all blocks of the cluster, for the barrier in each.
__device__ __forceinline__ void bring_to_all(u32 to, const void* from, u32 bytes, u32 barrier) {
#if CLUSTER == 1
  bring(to, from, bytes, barrier);
#else
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
      " [%0], [%1], %2, [%3], %4;"
      :: "r"(to), "l"(from), "r"(bytes), "r"(barrier), "h"((unsigned short)((1 << CLUSTER) - 1))
      : "memory");
#endif
}

__device__ __forceinline__ void arrive(u32 barrier, int block_of_cluster) {
  asm volatile(
      "{ .reg .b32 there; mapa.shared::cluster.u32 there, %0, %1;"
      " mbarrier.arrive.shared::cluster.b64 _, [there]; }"
      :: "r"(barrier), "r"(block_of_cluster) : "memory");
}

#define F4(c, i) "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3])
#define F16(c, i) F4(c, i), F4(c, i + 4), F4(c, i + 8), F4(c, i + 12)
#define P16 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define P32 P16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define P64 P32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47" \
                ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#if BF16
#define TYPES "f32.bf16.bf16"
#else
#define TYPES "f32.f16.f16"
#endif
#if TOKENS == 32
#define INSTRUCTION "m64n32k16." TYPES " {" P16 "}, {%16,%17,%18,%19}, %20, 1, 1, 1, 0;"
#define OPERANDS(c) F16(c, 0)
#elif TOKENS == 64
#define INSTRUCTION "m64n64k16." TYPES " {" P32 "}, {%32,%33,%34,%35}, %36, 1, 1, 1, 0;"
#define OPERANDS(c) F16(c, 0), F16(c, 16)
#else
#define INSTRUCTION "m64n128k16." TYPES " {" P64 "}, {%64,%65,%66,%67}, %68, 1, 1, 1, 0;"
#define OPERANDS(c) F16(c, 0), F16(c, 16), F16(c, 32), F16(c, 48)
#endif

// c += a times the 16 columns of tokens that `descriptor` names; in the background.
__device__ __forceinline__ void multiply(float (&c)[SUMS], const u32 (&a)[4], u64 descriptor) {
  asm volatile("wgmma.mma_async.sync.aligned." INSTRUCTION
      : OPERANDS(c) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(descriptor));
}

__device__ __forceinline__ void hold(float (&c)[SUMS]) {
  asm volatile("" : OPERANDS(c) :: "memory");
}

// A lane's sums to the block's rows of `out` [tokens, rows], through shared memory.
__device__ __forceinline__ void write(
    float (&sums)[2][SUMS], Out* stage, Out* out, int tile, int upper, int first_row, int rows,
    int first_token, int tokens) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int part = 0; part < 2; ++part)
#pragma unroll
    for (int i = 0; i < SUMS; ++i) {
      const int row = tile * ROWS + row_of(part + 2 * upper, i / 2 % 2, lane / 4);
      Out* to = stage + (i / 4 * 8 + 2 * (lane % 4) + i % 2) * PITCH + row;
#if SPLIT
      *to = sums[part][i];
#else
      *to = (Out)rounded(sums[part][i]);
#endif
    }
  asm volatile("bar.sync 1, %0;" :: "n"(128 * GANGS) : "memory");
  const int each = 16 / (int)sizeof(Out), pieces = BLOCK_ROWS / each;
  for (int i = threadIdx.x; i < TOKENS * pieces; i += 128 * GANGS) {
    const int token = i / pieces, row = i % pieces * each;
    if (first_token + token >= tokens) break;
    const Out* from = stage + token * PITCH + row;
    Out* to = out + (long long)(first_token + token) * rows + first_row + row;
    if (rows % each == 0) {
      if (first_row + row < rows) *(uint4*)to = *(const uint4*)from;
    } else {
      for (int j = 0; j < each; ++j)
        if (first_row + row + j < rows) to[j] = from[j];
    }
  }
}

extern "C" __global__ void
#if CLUSTER > 1
__cluster_dims__(CLUSTER, 1, 1)
#endif
__launch_bounds__(128 * GANGS + COPIERS, RESIDENT) many(
    const uint4* first, const uint4* second, const char* x, Out* out, int rows, int tokens,
    int tiles, int chunks, int splits, int token_blocks, int row_blocks) {
  __shared__ u32 table[16];
  __shared__ u64 barriers[2 * STAGES];  // filled, then emptied
  extern __shared__ uint4 memory[];
  const u32 stages = (shared_address(memory) + 1023) & ~1023u, filled = shared_address(barriers);
  const u32 emptied = filled + 8 * STAGES;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int rank = blockIdx.x % CLUSTER, rest = blockIdx.x / CLUSTER;
  const int token_block = rest % token_blocks, split = rest / token_blocks % splits;
  const int own = rest / (token_blocks * splits) * CLUSTER + rank;
  const int matrix = own / row_blocks, row_block = own % row_blocks;
  const int begin = (int)((long long)chunks * split / splits);
  const int count = (int)((long long)chunks * (split + 1) / splits) - begin;
  if (threadIdx.x == 0) {
    for (int s = 0; s < STAGES; ++s) {
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" :: "r"(filled + 8 * s) : "memory");
      asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;"
          :: "r"(emptied + 8 * s), "n"(CLUSTER * 4 * GANGS) : "memory");
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  fill(table);
  let_next_start();
#if CLUSTER > 1
  asm volatile("barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;" ::: "memory");
#endif

  if (warp >= 4 * GANGS) {
#if COPIERS == 128
    asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
#endif
    if (warp > 4 * GANGS) return;
    const int tile = min(row_block * BLOCK_TILES + lane, tiles - 1);  // the last one again, unused
    const uint4* from = (matrix ? second : first) + ((long long)tile * chunks + begin) * TILE_WORDS;
    const char* tokens_from = x + ((long long)token_block * chunks + begin) * TOKEN_BYTES;
    auto bring_weights = [&](int i) {
      const u32 barrier = filled + 8 * (i % STAGES), to = stages + (i % STAGES) * STAGE_BYTES;
      if (lane == 0)
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
            :: "r"(barrier), "n"(STAGE_BYTES) : "memory");
      __syncwarp();
      if (lane < BLOCK_TILES)
        bring(to + TOKEN_BYTES + lane * TILE_WORDS * 16, from + (long long)i * TILE_WORDS,
              TILE_WORDS * 16, barrier);
    };
    auto bring_tokens = [&](int i) {
      const int part = rank * SHARE;
      if (lane == 0)
        bring_to_all(stages + (i % STAGES) * STAGE_BYTES + part,
                     tokens_from + (long long)i * TOKEN_BYTES + part, SHARE,
                     filled + 8 * (i % STAGES));
    };
    const int ahead = min(STAGES, count);
    for (int i = 0; i < ahead; ++i) bring_weights(i);
    wait_for_tokens();
    for (int i = 0; i < ahead; ++i) bring_tokens(i);
    for (int i = ahead; i < count; ++i) {
      wait(emptied + 8 * (i % STAGES), (i / STAGES + 1) % 2);
      bring_weights(i);
      bring_tokens(i);
    }
  } else {
#if COPIERS == 128
    asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
#endif
    const int upper = ROWS == 64 ? warp / 4 % 2 : 0;
    const int tile = ROWS == 64 ? warp / 8 * 4 + warp % 4 : warp;
    const char* generic = (const char*)memory + (stages - shared_address(memory));
    float sums[2][SUMS] = {};
    u32 a[2][2][2][4];  // of two blocks, since the tensor cores still read those of the last one
    for (int i = 0; i < count; ++i) {
      const int stage = i % STAGES;
      wait(filled + 8 * stage, i / STAGES % 2);
      const char* base = generic + stage * STAGE_BYTES + TOKEN_BYTES;
      const uint4* at = (const uint4*)base + tile * TILE_WORDS + lane;
      const uint4 codes = at[0];
      // Rows of 128 bytes, eight of them 1024 bytes apart from the next, pieces of 16 bytes swizzled.
      const u64 descriptor = (1ull << 62) | (64ull << 32) | (1ull << 16) |
                             ((stages + stage * STAGE_BYTES) >> 4);
#pragma unroll
      for (int block = 0; block < BLOCKS; ++block) {
        u32(&own)[2][2][4] = a[block % 2];
        fragments(own, codes, [&](int v) { return at[32 * (v + 1)]; }, table, block, upper);
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
          for (int part = 0; part < 2; ++part)
            multiply(sums[part], own[part][half],
                     descriptor + block / 2 * (TOKENS * 8) + block % 2 * 4 + half * 2);
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
        if (block == 0 && i > 0 && i - 1 + STAGES < count && lane < CLUSTER)
          arrive(emptied + 8 * ((i - 1) % STAGES), lane);
      }
    }
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    hold(sums[0]), hold(sums[1]);
    asm volatile("bar.sync 1, %0;" :: "n"(128 * GANGS) : "memory");  // no stage is read any more
    const int matrices = gridDim.x / (token_blocks * row_blocks * splits);
    out += (long long)(split * matrices + matrix) * tokens * rows;
    write(sums, (Out*)generic, out, tile, upper, row_block * BLOCK_ROWS, rows,
          token_block * TOKENS, tokens);
  }
}
