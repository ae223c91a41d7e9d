// What the packed kernels share. y = act(G x) * (U x), or y = W x, for 1 to 16 tokens; or W itself.
//
// A warp multiplies a tile of ROWS rows on tensor cores, with float32 sums, and reads its weights
// in the layout of mma.m16n8k16's fragments: a lane (g = lane / 4, t = lane % 4) owns rows that
// depend on g alone and, in each block of 32 columns, the columns 8t to 8t + 7.
//
// Compiled by NVRTC with these defined:
//   GROUP   4 or 8: M of N:M, 0: a bitmap;  OUTPUT  1: groups along the output, 0: along the input
//   TILES   1: up to 8 tokens, 2: up to 16;  WARPS  of a block;  STAGES  chunks that each copies ahead
//   MATRICES  1, or 2 for gate and up;  ACTIVATION  0 SiLU, 1 tanh-GELU, 2 GELU (two matrices)
//   BF16    1: bfloat16, 0: float16;  UNPACK  1: W is written as a dense matrix, nothing multiplied
typedef unsigned int u32;
typedef unsigned long long u64;

#define ROWS (OUTPUT && GROUP == 8 ? 64 : 32)
#define PARTS (ROWS / 16)            // tensor-core tiles in a tile's rows
#define CHUNK_COLUMNS (4096 / ROWS)  // a chunk is 128 weights a lane
#define BLOCKS (CHUNK_COLUMNS / 32)

// From compute capability 9.0 on a kernel starts while the one before it in the stream still runs.
// It may read weights at once, which nothing writes while products run, but tokens only after
// `wait_for_tokens`, and may not write before. `let_next_start`: this kernel's blocks all run.
__device__ __forceinline__ void wait_for_tokens() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// Four numbers that are read or written at once.
template <class Number>
struct alignas(sizeof(Number) * 4) Four {
  Number of[4];
};

__device__ __forceinline__ u32 shared_address(const void* p) {
  u32 address;
  asm("{ .reg .u64 wide; cvta.to.shared.u64 wide, %1; cvt.u32.u64 %0, wide; }"
      : "=r"(address) : "l"(p));
  return address;
}

__device__ __forceinline__ u32 permute(u32 a, u32 b, u32 selector) {
  u32 d;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(selector));
  return d;
}

__device__ __forceinline__ void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
#if BF16
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
#else
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
#endif
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ u32 rounded(float value) {
  unsigned short bits;
#if BF16
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
#else
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
#endif
  return bits;
}

__device__ __forceinline__ float widened(u32 bits) {
#if BF16
  return __uint_as_float(bits << 16);
#else
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"((unsigned short)bits));
  return value;
#endif
}

__device__ __forceinline__ float activation(float x) {
#if ACTIVATION == 0
  return x / (1.0f + __expf(-x));
#elif ACTIVATION == 1
  float inner = 0.7978845608028654f * (x + 0.044715f * x * x * x);
  return 0.5f * x * (1.0f + (2.0f / (1.0f + __expf(-2.0f * inner)) - 1.0f));
#else
  return 0.5f * x * (1.0f + erff(x * 0.7071067811865476f));
#endif
}

// act(g) · u, rounded where the model's own code rounds: after each product, and after the activation.
__device__ __forceinline__ float gated(float g, float u) {
  return widened(rounded(activation(widened(rounded(g))))) * widened(rounded(u));
}

// What a lane needs of the tokens for a chunk that begins at `column`. Not by way of the read-only
// cache: the kernel before may have written them after this one started.
__device__ __forceinline__ void load_tokens(
    uint4 (&xs)[BLOCKS][TILES], const char* x, int column, int columns, int tokens, int lane) {
#pragma unroll
  for (int n = 0; n < TILES; ++n) {
    const int token = 8 * n + lane / 4;
    const char* row = x + 2 * ((long long)token * columns + column + 8 * (lane % 4));
#pragma unroll
    for (int block = 0; block < BLOCKS; ++block) {
      uint4& some = xs[block][n] = make_uint4(0, 0, 0, 0);
      asm volatile("{ .reg .pred inside;\n"
                   "setp.lt.s32 inside, %5, %6;\n"
                   "@inside ld.global.v4.u32 {%0, %1, %2, %3}, [%4]; }"
                   : "+r"(some.x), "+r"(some.y), "+r"(some.z), "+r"(some.w)
                   : "l"(row + 64 * block), "r"(token), "r"(tokens));
    }
  }
}

// The row of a tile that `sums[part][n][2 * lower + …]` of a lane with this g belongs to.
__device__ __forceinline__ int row_of(int part, int lower, int g) {
#if OUTPUT
  return GROUP * g + 2 * part + lower;
#else
  return 16 * part + 8 * lower + g;
#endif
}

#if UNPACK
typedef unsigned short Target;  // the dense weight
#else
typedef float Target[PARTS][TILES][4];  // sums
#endif

#if UNPACK
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
#else
// Half of the 8 columns that a lane owns in a block, in two rows, times the tokens.
__device__ __forceinline__ void use(
    Target& sums, const u32 (&a)[4], const uint4 (&xs)[TILES], int part, int half) {
#pragma unroll
  for (int n = 0; n < TILES; ++n)
    multiply(sums[part][n], a, half ? xs[n].z : xs[n].x, half ? xs[n].w : xs[n].y);
}
#endif
