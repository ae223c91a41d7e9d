// Packed N:M weights times many tokens, on Hopper's tensor cores: W's fragments from registers, the
// tokens from shared memory.
//
// A block multiplies BLOCK_ROWS rows with TOKENS tokens, over its share of the chunks of columns. A
// warpgroup takes two parts of four tiles, a tile each warp. One warp more copies, STAGES chunks
// ahead: packed tiles as they are, and tokens as `arrange` laid them for the tensor cores.
//
// Compiled with these defined, beside those of common.cuh:
//   TOKENS  a block multiplies: 32, 64, 128;  GANGS  warpgroups;  STAGES, RESIDENT  as they fit
//   COPIERS  threads that copy, of which one warp does: a warpgroup where registers are traded
#define TILE_WORDS (VECTORS * 32)  // uint4 of a tile's chunk
#define BLOCK_ROWS (128 * GANGS)
#define BLOCK_TILES (BLOCK_ROWS / ROWS)
#define TOKEN_BYTES (TOKENS * CHUNK_COLUMNS * 2)
#define STAGE_BYTES (TOKEN_BYTES + BLOCK_TILES * TILE_WORDS * 16)
#define PIECES (TOKENS * CHUNK_COLUMNS / 8 / COPIERS)  // of 16 bytes of tokens, a copier's of a chunk
#define SUMS (TOKENS / 2)  // that a lane holds of a part
#define PITCH 36                        // of a token's 32 rows where a warp turns its sums
#define TURN_BYTES (16 * PITCH * 4)     // of a warp, for 16 tokens

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

__device__ __forceinline__ void arrive(u32 barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" :: "r"(barrier) : "memory");
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

// What the blocks of a cluster work at: whole tiles of the product, all dealt in turn, but those
// of the last, partial turn; of these the chunks are dealt evenly, and their sums added by `combine`.
struct Work {
  int worker, workers, chunks, turns, at, end;  // `at`, `end`: of the chunks of the last turn
  int turn, tile, first, last, chunk;           // `first` to `last`: chunks of the tile
  __device__ __forceinline__ Work(int worker_, int workers_, int tiles, int chunks_) {
    worker = worker_, workers = workers_, chunks = chunks_, turns = tiles / workers;
    turn = 0, last = 0, chunk = 0;
    const long long left = (long long)(tiles % workers) * chunks;
    const int share = (int)min((long long)workers, left);  // workers, each with a chunk at least
    at = share ? (int)(left * min(worker, share) / share) : 0;
    end = share ? (int)(left * min(worker + 1, share) / share) : 0;
  }
  __device__ __forceinline__ int size() const { return turns * chunks + end - at; }
  __device__ __forceinline__ bool whole() const { return turn <= turns; }
  __device__ __forceinline__ bool next() {
    if (turn++ < turns) {
      tile = worker + (turn - 1) * workers, first = 0, chunk = 0, last = chunks;
      return true;
    }
    if (at >= end) return false;
    tile = turns * workers + at / chunks, first = at % chunks;
    chunk = first, last = min(chunks, first + end - at), at += last - first;
    return true;
  }
  __device__ __forceinline__ bool step() { return ++chunk < last || next(); }
};

__device__ __forceinline__ void turned(float* to, float value) { *to = value; }
__device__ __forceinline__ void turned(unsigned short* to, float value) {
  *to = (unsigned short)rounded(value);
}

template <class Number>
struct alignas(sizeof(Number) * 4) Four {
  Number of[4];
};

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
extern "C" __global__ void
__launch_bounds__(128 * GANGS + COPIERS, RESIDENT) many(
    const uint4* first, const uint4* second, const char* x, unsigned short* out, float* partial,
    int rows, int columns, int tokens, int tiles, int chunks, int matrices, int token_blocks,
    int row_blocks) {
  __shared__ u32 table[16];
  __shared__ u64 barriers[2 * STAGES];  // filled, then emptied
  extern __shared__ uint4 memory[];
  const u32 stages = (shared_address(memory) + 1023) & ~1023u, filled = shared_address(barriers);
  const u32 emptied = filled + 8 * STAGES;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    for (int s = 0; s < STAGES; ++s) {
      asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;"
          :: "r"(filled + 8 * s), "n"(1 + COPIERS / 32) : "memory");
      asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;"
          :: "r"(emptied + 8 * s), "n"(4 * GANGS) : "memory");
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  fill(table);
  let_next_start();
  const Work start(blockIdx.x, gridDim.x, token_blocks * matrices * row_blocks, chunks);

  if (warp >= 4 * GANGS) {
#if TRADE
    asm volatile("setmaxnreg.dec.sync.aligned.u32 104;");
#endif
    const int own = threadIdx.x - 128 * GANGS;
    auto bring_weights = [&](const Work& work, int stage) {
      const u32 barrier = filled + 8 * stage;
      const int row_block = work.tile / token_blocks / matrices;
      const int tile = min(row_block * BLOCK_TILES + lane, tiles - 1);  // the last again, unused
      const uint4* from = work.tile / token_blocks % matrices ? second : first;
      if (own == 0)
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
            :: "r"(barrier), "n"(BLOCK_TILES * TILE_WORDS * 16) : "memory");
      __syncwarp();
      if (own < BLOCK_TILES)
        bring(stages + stage * STAGE_BYTES + TOKEN_BYTES + lane * TILE_WORDS * 16,
              from + ((long long)tile * chunks + work.chunk) * TILE_WORDS, TILE_WORDS * 16, barrier);
    };
    uint4 pieces[PIECES];
    auto load_pieces = [&](const Work& work) {
#pragma unroll
      for (int k = 0; k < PIECES; ++k) {
        const int row = (own / 8 + k * (COPIERS / 8)) % TOKENS;
        const int token = work.tile % token_blocks * TOKENS + row;
        const int column = work.chunk * CHUNK_COLUMNS + k * COPIERS / (8 * TOKENS) * 64 + own % 8 * 8;
        pieces[k] = token < tokens && column < columns
            ? __ldg((const uint4*)(x + 2 * ((long long)token * columns + column)))
            : make_uint4(0, 0, 0, 0);
      }
    };
    Work work = start;
    if (warp == 4 * GANGS)  // weights as far as memory holds them, before there are tokens
      for (int stage = 0; stage < STAGES && work.step(); ++stage) bring_weights(work, stage);
    wait_for_tokens();
    int stage = 0, parity = 1;
    bool early = true;
    work = start;
    bool more = work.step();
    if (more) load_pieces(work);
    while (more) {
      if (!early) {
        wait(emptied + 8 * stage, parity);
        if (warp == 4 * GANGS) bring_weights(work, stage);
      }
      // A block of 32 columns in the order of the fragments: its words transposed as [4, 4].
#pragma unroll
      for (int k = 0; k < PIECES; ++k) {
        const int row = (own / 8 + k * (COPIERS / 8)) % TOKENS, piece = (own & 4) ^ (row & 7);
        const u32 to = stages + stage * STAGE_BYTES + k * COPIERS / (8 * TOKENS) * (TOKENS * 128) +
                       row * 128 + piece * 16 + own % 4 * 4;
        const u32 words[4] = {pieces[k].x, pieces[k].y, pieces[k].z, pieces[k].w};
#pragma unroll
        for (int j = 0; j < 4; ++j)
          asm volatile("st.shared.u32 [%0], %1;" :: "r"(to ^ (j * 16)), "r"(words[j]) : "memory");
      }
      asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
      __syncwarp();
      if (lane == 0) arrive(filled + 8 * stage);
      if (++stage == STAGES) stage = 0, parity ^= 1, early = false;
      more = work.step();
      if (more) load_pieces(work);
    }
  } else {
#if TRADE
    asm volatile("setmaxnreg.inc.sync.aligned.u32 200;");
#endif
    const int upper = ROWS == 64 ? warp / 4 % 2 : 0;
    const int tile = ROWS == 64 ? warp / 8 * 4 + warp % 4 : warp;
    char* generic = (char*)memory + (stages - shared_address(memory));
    void* turn = generic + STAGES * STAGE_BYTES + warp * TURN_BYTES;
    const int most = start.size() - STAGES;  // stages that are filled again
    int stage = 0, parity = 0, before = 0;   // `before`: chunks
    auto release = [&](int which) {
      if (before > 0 && before <= most && lane == 0) arrive(emptied + 8 * which);
      ++before;
    };
    for (Work work = start; work.next();) {
      float sums[2][SUMS] = {};
      u32 a[2][2][2][4];  // of two blocks, since the tensor cores still read those of the last one
      for (int chunk = work.first; chunk < work.last; ++chunk) {
        wait(filled + 8 * stage, parity);
        const char* base = generic + stage * STAGE_BYTES + TOKEN_BYTES;
        const uint4* at = (const uint4*)base + tile * TILE_WORDS + lane;
        const uint4 codes = at[0];
        // Rows of 128 bytes, eight of them 1024 bytes from the next, pieces of 16 bytes swizzled.
        // The shuffle says that it is the same in all lanes, whose registers it need not leave.
        const u32 place = __shfl_sync(~0u, stages + stage * STAGE_BYTES, 0);
        const u64 descriptor = (1ull << 62) | (64ull << 32) | (1ull << 16) | (place >> 4);
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
          if (block == 0) release(stage ? stage - 1 : STAGES - 1);
        }
        if (++stage == STAGES) stage = 0, parity ^= 1;
      }
      asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
      hold(sums[0]), hold(sums[1]);
      const int token = work.tile % token_blocks * TOKENS, rest = work.tile / token_blocks;
      const int row = rest / matrices * BLOCK_ROWS + tile * ROWS;
      if (work.whole()) {
        unsigned short* to = out + ((long long)(rest % matrices) * tokens + token) * rows + row;
        write(sums, (unsigned short*)turn, to, rows, upper, rows - row, tokens - token);
      } else {
        const int slot = 2 * work.worker + (work.first == 0);
        float* to = partial + (long long)slot * TOKENS * BLOCK_ROWS + tile * ROWS;
        write(sums, (float*)turn, to, BLOCK_ROWS, upper, ROWS, TOKENS);
      }
    }
  }
}

__device__ __forceinline__ void add(float (&y)[4], const float* from) {
  const auto some = *(const Four<float>*)from;
#pragma unroll
  for (int j = 0; j < 4; ++j) y[j] += some.of[j];
}

// What `many` left in parts, added in order; with two matrices the gated product of all.
// `wide` [matrices, tokens, rows]. Each block of threads takes 1024 elements of a tile.
extern "C" __global__ void __launch_bounds__(256) combine(
    const unsigned short* wide, const float* partial, unsigned short* out, int rows, int tokens,
    int chunks, int token_blocks, int row_blocks, int workers) {
  let_next_start();
  wait_for_tokens();
  const int pieces = TOKENS * BLOCK_ROWS / 1024, tiles = token_blocks * row_blocks * MATRICES;
  const int turns = tiles / workers, left = (tiles % workers) * chunks;
  int place = blockIdx.x / pieces;  // of the tile among those of one matrix
  if (MATRICES == 1) place += turns * workers;
  const int element = (blockIdx.x % pieces * 256 + threadIdx.x) * 4;
  const int token = place % token_blocks * TOKENS + element / BLOCK_ROWS;
  const int row = place / token_blocks * BLOCK_ROWS + element % BLOCK_ROWS;
  if (token >= tokens || row >= rows) return;
  float y[MATRICES][4] = {};
#pragma unroll
  for (int m = 0; m < MATRICES; ++m) {
    const int tile = (place / token_blocks * MATRICES + m) * token_blocks + place % token_blocks;
    if (tile < turns * workers) {
      const unsigned short* from = wide + ((long long)m * tokens + token) * rows + row;
      Four<unsigned short> four = {};
      if (rows % 4 == 0) {
        four = *(const Four<unsigned short>*)from;
      } else {
#pragma unroll
        for (int j = 0; j < 4; ++j)
          if (row + j < rows) four.of[j] = from[j];
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) y[m][j] = widened(four.of[j]);
    } else {
      const int begin = (tile - turns * workers) * chunks, end = begin + chunks - 1;
      const int share = min(workers, left);
      const int first = (int)(((long long)(begin + 1) * share - 1) / left);
      const int last = (int)(((long long)(end + 1) * share - 1) / left);
      for (int w = first; w <= last; ++w)
        add(y[m], partial + (long long)(2 * w + (w == first)) * (TOKENS * BLOCK_ROWS) + element);
    }
  }
  Four<unsigned short> four;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
#if MATRICES == 2
    // Rounded where the model's own code rounds: after each product, and after the activation.
    y[0][j] = widened(rounded(activation(widened(rounded(y[0][j]))))) * widened(rounded(y[1][j]));
#endif
    four.of[j] = (unsigned short)rounded(y[0][j]);
  }
  unsigned short* to = out + (long long)token * rows + row;
  if (rows % 4 == 0) {
    *(Four<unsigned short>*)to = four;
  } else {
#pragma unroll
    for (int j = 0; j < 4; ++j)
      if (row + j < rows) to[j] = four.of[j];
  }
}
