// Packed N:M weights times many tokens, on Hopper's tensor cores: W's fragments from registers, the
// tokens from shared memory.
//
// A block of threads multiplies 256 rows with TOKENS tokens, a tile of the product, or a part of its
// chunks. Each of its two warpgroups takes two parts of four packed tiles, one for each warp. Another
// warp copies, STAGES chunks ahead: packed tiles as they are, tokens as `arrange` laid them.
//
// Compiled with these defined, beside those of common.cuh:
//   TOKENS  of a block: 32, 64, 96 or 128;  STAGES  as shared memory holds
#define TILE_WORDS (VECTORS * 32)  // uint4 of a tile's chunk
#define BLOCK_ROWS 256
#define BLOCK_TILES (BLOCK_ROWS / ROWS)
#define TOKEN_BYTES (TOKENS * CHUNK_COLUMNS * 2)
#define STAGE_BYTES (TOKEN_BYTES + BLOCK_TILES * TILE_WORDS * 16)
#define SUMS (TOKENS / 2)       // that a lane holds of a part
#define PITCH 36                // of a token's 32 rows where a warp turns its sums
#define TURN_BYTES (16 * PITCH * 4)  // of a warp, for 16 tokens
#define TRADES (TOKENS > 64)    // registers, from a warpgroup that copies to those that multiply
#define COPIERS (TRADES ? 128 : 32)

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

__device__ __forceinline__ void arrive(u32 barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" :: "r"(barrier) : "memory");
}

#define F4(c, i) "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3])
#define F16(c, i) F4(c, i), F4(c, i + 4), F4(c, i + 8), F4(c, i + 12)
#define P16 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define P32 P16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define P48 P32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define P64 P48 ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
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
#elif TOKENS == 96
#define INSTRUCTION "m64n96k16." TYPES " {" P48 "}, {%48,%49,%50,%51}, %52, 1, 1, 1, 0;"
#define OPERANDS(c) F16(c, 0), F16(c, 16), F16(c, 32)
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

// What a block works at: whole tiles of the product, dealt in turn, and then its share of the
// chunks of all others, whose sums `combine` adds.
struct Work {
  int worker, chunks, whole, turns, at, end;  // `whole`: tiles; `at`, `end`: chunks of the others
  int turn, tile, first, last, chunk;         // `first` to `last`: chunks of the tile
  __device__ __forceinline__ Work(int tiles, int whole_, int chunks_) {
    worker = blockIdx.x, chunks = chunks_, whole = whole_, turn = 0, last = 0, chunk = 0;
    const int workers = gridDim.x, left = (tiles - whole) * chunks;
    turns = (whole + workers - 1 - worker) / workers;
    at = (int)((long long)left * worker / workers);
    end = (int)((long long)left * (worker + 1) / workers);
  }
  __device__ __forceinline__ int size() const { return turns * chunks + end - at; }
  __device__ __forceinline__ bool next() {
    if (turn < turns) {
      tile = worker + turn++ * gridDim.x, first = chunk = 0, last = chunks;
      return true;
    }
    if (at >= end) return false;
    tile = whole + at / chunks, first = chunk = at % chunks;
    last = min(chunks, first + end - at), at += last - first;
    return true;
  }
  __device__ __forceinline__ bool step() { return ++chunk < last || next(); }
};

__device__ __forceinline__ void turned(float* to, float value) { *to = value; }
__device__ __forceinline__ void turned(unsigned short* to, float value) {
  *to = (unsigned short)rounded(value);
}

// A lane's sums to `out`, of whose rows the warp's tile begins at the first, `pitch` apart.
template <class Out>
__device__ __forceinline__ void write(
    float (&sums)[2][SUMS], Out* turn, Out* out, long long pitch, int upper, int rows, int tokens) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int piece = 0; piece < TOKENS / 16; ++piece) {
    __syncwarp();
#pragma unroll
    for (int part = 0; part < 2; ++part)
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int lower = i / 2 % 2, row = OUTPUT ? 4 * g + 2 * part + lower : 16 * part + 8 * lower + g;
        turned(turn + (i / 4 * 8 + 2 * t + i % 2) * PITCH + row, sums[part][8 * piece + i]);
      }
    __syncwarp();
#pragma unroll
    for (int j = lane; j < 128; j += 32) {
      const int token = 16 * piece + j / 8, row = ROWS == 64 ? j % 8 * 8 + 4 * upper : j % 8 * 4;
      if (token >= tokens || row >= rows) continue;
      const auto four = *(const Four<Out>*)(turn + j / 8 * PITCH + j % 8 * 4);
      Out* to = out + token * pitch + row;
      if (pitch % 4 == 0) {
        *(Four<Out>*)to = four;
      } else {
#pragma unroll
        for (int k = 0; k < 4; ++k)
          if (row + k < rows) to[k] = four.of[k];
      }
    }
  }
}

// `out` [matrices, tokens, rows]; `partial` [workers, 2, TOKENS, BLOCK_ROWS].
extern "C" __global__ void __launch_bounds__(256 + COPIERS, 1) many(
    const uint4* first, const uint4* second, const char* x, unsigned short* out, float* partial,
    int rows, int tokens, int tiles, int chunks, int matrices, int token_blocks, int row_blocks,
    int whole) {
  __shared__ u32 table[16];
  __shared__ u64 barriers[2 * STAGES];  // filled, then emptied
  extern __shared__ uint4 memory[];
  const u32 stages = (shared_address(memory) + 1023) & ~1023u, filled = shared_address(barriers);
  const u32 emptied = filled + 8 * STAGES;
  // The shuffle says that branches by the warp are not taken apart.
  const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    for (int s = 0; s < STAGES; ++s) {
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" :: "r"(filled + 8 * s) : "memory");
      asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;"
          :: "r"(emptied + 8 * s), "n"(8) : "memory");
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  fill(table);
  let_next_start();
  const Work start(token_blocks * matrices * row_blocks, whole, chunks);

  if (warp >= 8) {
#if TRADES
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
#endif
    if (warp > 8) return;
    const uint4* from;
    const char* tokens_from;
    auto step = [&](Work& work) {
      if (!work.step()) return false;
      if (work.chunk == work.first) {
        const int token_block = work.tile % token_blocks, rest = work.tile / token_blocks;
        const int tile = min(rest / matrices * BLOCK_TILES + lane, tiles - 1);  // the last again, unused
        from = (rest % matrices ? second : first) + (long long)tile * chunks * TILE_WORDS;
        tokens_from = x + (long long)token_block * chunks * TOKEN_BYTES;
      }
      return true;
    };
    auto bring_weights = [&](int chunk, int stage) {
      const u32 barrier = filled + 8 * stage;
      if (lane == 0)
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
            :: "r"(barrier), "n"(STAGE_BYTES) : "memory");
      __syncwarp();
      if (lane < BLOCK_TILES)
        bring(stages + stage * STAGE_BYTES + TOKEN_BYTES + lane * TILE_WORDS * 16,
              from + (long long)chunk * TILE_WORDS, TILE_WORDS * 16, barrier);
    };
    // Weights as far as memory holds them, before there are tokens.
    Work work = start;
    for (int stage = 0; stage < STAGES && step(work); ++stage) bring_weights(work.chunk, stage);
    wait_for_tokens();
    work = start;
    for (int i = 0, stage = 0, parity = 1; step(work); ++i) {
      if (i >= STAGES) {
        wait(emptied + 8 * stage, parity);
        bring_weights(work.chunk, stage);
      }
      if (lane == 0)
        bring(stages + stage * STAGE_BYTES, tokens_from + (long long)work.chunk * TOKEN_BYTES,
              TOKEN_BYTES, filled + 8 * stage);
      if (++stage == STAGES) stage = 0, parity ^= 1;
    }
  } else {
#if TRADES
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
#endif
    const int upper = ROWS == 64 ? warp / 4 % 2 : 0;
    const int tile = ROWS == 64 ? warp / 8 * 4 + warp % 4 : warp;
    char* generic = (char*)memory + (stages - shared_address(memory));
    void* turn = generic + STAGES * STAGE_BYTES + warp * TURN_BYTES;
    Work work = start;
    work.next();
    float sums[2][SUMS] = {};
    u32 a[2][2][2][4];  // of two blocks, since the tensor cores still read those of the last one
    const int count = start.size();
    for (int i = 0; i < count; ++i) {
      const int stage = i % STAGES;
      wait(filled + 8 * stage, i / STAGES % 2);
      const char* base = generic + stage * STAGE_BYTES + TOKEN_BYTES;
      const uint4* at = (const uint4*)base + tile * TILE_WORDS + lane;
      const uint4 codes = at[0];
      // Rows of 128 bytes, eight of them 1024 bytes from the next, pieces of 16 bytes swizzled.
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
        if (block == 0 && i > 0 && i - 1 + STAGES < count && lane == 0)
          arrive(emptied + 8 * ((i - 1) % STAGES));
      }
      if (++work.chunk == work.last) {
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
        hold(sums[0]), hold(sums[1]);
        const int token = work.tile % token_blocks * TOKENS, rest = work.tile / token_blocks;
        const int row = rest / matrices * BLOCK_ROWS + tile * ROWS;
        if (work.tile < work.whole) {
          unsigned short* to = out + ((long long)(rest % matrices) * tokens + token) * rows + row;
          write(sums, (unsigned short*)turn, to, rows, upper, rows - row, tokens - token);
        } else {
          const int slot = 2 * work.worker + (work.first == 0);
          float* to = partial + (long long)slot * TOKENS * BLOCK_ROWS + tile * ROWS;
          write(sums, (float*)turn, to, BLOCK_ROWS, upper, ROWS, TOKENS);
        }
#pragma unroll
        for (int j = 0; j < SUMS; ++j) sums[0][j] = 0, sums[1][j] = 0;
        work.next();
      }
    }
  }
}
