#include <algorithm>
#include <array>

#include "kernels/conv_checks.h"
#include "kernels/conv_epilogue.cuh"
#include "kernels/conv_sm90.h"
#include "kernels/conv_sm90_tiling.cuh"
#include "kernels/ptx_sm90.cuh"
#include "kernels/tensor_map.h"

namespace damoyolo::kernels {
namespace {

constexpr char kName[] = "conv_sm90";
constexpr int kMaxStages = 8;

// A tile's size, and stages that leave room for Layout::kBlocks blocks on a multiprocessor.
struct Tile {
  int m, n, k, stages;
};

// k is a box's width in channels: narrow ones for layers of few channels, where a box of 64 would be mostly zeros.
constexpr Tile kTiles[] = {
    {64, 32, 64, 5},   {64, 64, 64, 4},   {64, 96, 64, 5},  {64, 128, 64, 4}, {128, 32, 16, 8},
    {128, 32, 32, 8},  {128, 64, 32, 7},  {128, 32, 64, 4}, {128, 64, 64, 4}, {128, 96, 64, 6},
    {128, 128, 64, 6}, {128, 192, 64, 5}, {256, 64, 64, 5},
};

// Divisors of the maps' widths, for inputs of 640 and 416 pixels, or close to one; 0 for 1×1.
constexpr int kColumns[] = {0, 8, 13, 16, 20, 26, 40};

constexpr auto kConfigs = [] {
  std::array<ConvConfig, std::size(kTiles) * std::size(kColumns)> configs;
  std::size_t i = 0;
  for (const Tile& tile : kTiles)
    for (const int columns : kColumns) configs[i++] = {tile.m, tile.n, tile.k, tile.stages, columns, 1};
  return configs;
}();

// What lies where in a block and its shared memory: barriers, stages, and a block of sums for each warp.
template <int M, int N, int K>
struct Layout {
  static constexpr int kWarpgroups = M == 64 ? 1 : 2;   // consumers
  static constexpr int kGroups = M / 64 / kWarpgroups;  // of 64 pixels, for each of them
  static constexpr int kConsumers = kWarpgroups * 128;
  static constexpr int kThreads = kConsumers + kLanes;
  static constexpr int kFragments = kGroups * N / 8;  // of 4 sums, for each thread
  // On a multiprocessor at a time: as many as the registers allow.
  static constexpr int kBlocks = (kFragments > 8 ? 1 : 2) + (kWarpgroups == 1 ? 1 : 0);

  static constexpr int kSpan = 2 * K;  // bytes of a row of either factor
  static constexpr int kPixelBytes = M * kSpan;
  static constexpr int kStageBytes = kPixelBytes + N * kSpan;
  static constexpr int kSumsBytes = kConsumers / kLanes * kSumsBlock * 4;
  static constexpr int kAlignment = 1024;  // of a stage, for its swizzle
  // The barriers are in front of the first stage and need at most what aligning it takes.
  static constexpr int kBarrierBytes = 2 * kMaxStages * 8;
  static constexpr int shared_bytes(int stages) { return kAlignment + stages * kStageBytes + kSumsBytes; }
  static_assert(kBarrierBytes <= 128 && kStageBytes % kAlignment == 0);
};

// Where the stages and their barriers are in shared memory. A stage is `full` when both factors have come, and `empty`
// when every warp that multiplies has.
template <typename L>
struct Stages {
  std::uint32_t barriers, first;
  int count;

  __device__ __forceinline__ std::uint32_t full(int stage) const { return barriers + stage * 8; }
  __device__ __forceinline__ std::uint32_t empty(int stage) const { return barriers + (kMaxStages + stage) * 8; }
  __device__ __forceinline__ std::uint32_t pixels(int stage) const { return first + stage * L::kStageBytes; }
  __device__ __forceinline__ std::uint32_t weights(int stage) const { return pixels(stage) + L::kPixelBytes; }
};

// One thread keeps the stages full. Weights are no other kernel's work, so that the first ones are on their way before
// the kernels in front have ended.
template <int N, int K, typename L>
__device__ __forceinline__ void load_stages(const CUtensorMap& x, const CUtensorMap& weights, const Tiling& tiling,
                                            const Stages<L>& stages) {
  const int kernel = tiling.kernel, padding = kernel / 2;
  const unsigned bytes = static_cast<unsigned>(tiling.rows * tiling.columns + N) * L::kSpan;
  const auto load_weights = [&](int stage, const Work& work, const Step& step) {
    mbarrier_arrive_expect(stages.full(stage), bytes);
    tensor_load(stages.weights(stage), weights, stages.full(stage), step.channel, step.ky * kernel + step.kx,
                work.channel);
  };

  int ahead = 0;  // stages whose weights are on their way, but not their pixels
  {
    const Work work = work_of(tiling, static_cast<int>(blockIdx.x), N);
    Step step(work.first, kernel, K);
#pragma unroll 1
    for (; ahead < min(stages.count, work.last - work.first); ++ahead, step.advance(kernel, K))
      load_weights(ahead, work, step);
  }
  wait_for_predecessors();
  let_successors_start();

  Turn turn;
#pragma unroll 1
  for (int item = static_cast<int>(blockIdx.x); item < tiling.items; item += static_cast<int>(gridDim.x)) {
    const Work work = work_of(tiling, item, N);
    Step step(work.first, kernel, K);
#pragma unroll 1
    for (int i = work.first; i < work.last; ++i, step.advance(kernel, K), turn.advance(stages.count)) {
      if (ahead > 0) {
        --ahead;
      } else {
        mbarrier_wait(stages.empty(turn.stage), turn.parity ^ 1);
        load_weights(turn.stage, work, step);
      }
      tensor_load(stages.pixels(turn.stage), x, stages.full(turn.stage), step.channel,
                  work.column * tiling.stride + step.kx - padding, work.row * tiling.stride + step.ky - padding,
                  work.image);
    }
  }
}

// A warpgroup adds up kGroups × 64 pixels × N channels over the work's steps. One step's products are under way while
// the next one's are issued; a stage is free when its own are done.
template <typename T, int N, int K, typename L>
__device__ __forceinline__ void multiply_stages(const Stages<L>& stages, const Work& work, int warpgroup,
                                                bool first_lane, Turn& turn, float (&sums)[L::kFragments][4]) {
  constexpr int kDepth = 16;  // products of one instruction
  int before = -1;            // the stage of the step before
  fence_registers(sums);
#pragma unroll 1
  for (int i = work.first; i < work.last; ++i, turn.advance(stages.count)) {
    mbarrier_wait(stages.full(turn.stage), turn.parity);
    const std::uint64_t pixels =
        matrix_descriptor(stages.pixels(turn.stage) + warpgroup * L::kGroups * 64 * L::kSpan, L::kSpan);
    const std::uint64_t weights = matrix_descriptor(stages.weights(turn.stage), L::kSpan);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < K / kDepth; ++k)
#pragma unroll
      for (int group = 0; group < L::kGroups; ++group)
        wgmma<T, N>(&sums[group * N / 8], pixels + ((group * 64 * L::kSpan + k * 2 * kDepth) >> 4),
                    weights + ((k * 2 * kDepth) >> 4));
    wgmma_commit();
    wgmma_wait<1>();
    if (before >= 0 && first_lane) mbarrier_arrive(stages.empty(before));
    before = turn.stage;
  }
  wgmma_wait<0>();
  fence_registers(sums);
  if (before >= 0 && first_lane) mbarrier_arrive(stages.empty(before));
}

template <typename T>
struct Arguments {
  Tiling tiling;
  ConvResult<T> result;
  float* workspace;
  unsigned* tickets;
  int stages;
};

// y[pixel][channel] = epilogue(Σ x[pixel shifted by tap][k] · weights[channel][tap][k]).
//
// A tile is a rectangle of M pixels × N channels. A step of its sum is one tap × K input channels, and takes two bulk
// tensor copies: the rectangle of x, shifted by the tap, and the N rows of weights. Both arrive swizzled, a pixel or a
// channel in each row, which is how wgmma reads its factors. Copies give zeros outside the tensor: that is the padding
// of the convolution, and it fills tails of channels. With stride 2 the copy takes every other pixel. So the kernel
// has no address arithmetic, and no masks before its epilogue, where pixels and channels outside of y are dropped.
//
// One warp issues copies; one or two warpgroups of 128 threads multiply, each 64 or 128 of the pixels. Nine warps
// leave a thread 168 registers, 96 where two blocks share a multiprocessor, and every tile here keeps within that
// without a spill: so what copies is a warp and no warpgroup, and there is nothing to move with setmaxnreg. (A tile of
// 256 × 128 would need it.) Blocks stay and take every so many-th work item: while one is in its epilogue, its next
// tile's stages fill up, and the other blocks of the multiprocessor multiply. A split's shares meet in the workspace
// (see add_shares); no block waits for another.
//
// Floor: 2 · pixels · channels · taps · x.c operations over the tensor cores' rate at large batches. Every tap reads x
// again, from L2, 2 · (M + N) bytes for 2 · M · N operations: a byte for 64 of them at 128 × 128, for 32 at 64 × 64.
// At batch 1 the floor is a wave's latency: filling the pipeline, and one tile's steps.
template <typename T, int M, int N, int K>
__global__ void __launch_bounds__(Layout<M, N, K>::kThreads, Layout<M, N, K>::kBlocks)
    conv_sm90_kernel(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap weights,
                     const Arguments<T> arguments) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using L = Layout<M, N, K>;
  const Tiling& tiling = arguments.tiling;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kLanes, lane = thread % kLanes;
  constexpr int kWarps = L::kConsumers / kLanes;

  auto* const shared = dynamic_shared<unsigned char>();
  const std::uint32_t barriers = shared_address(shared);
  const std::uint32_t first = (barriers + L::kBarrierBytes + L::kAlignment - 1) / L::kAlignment * L::kAlignment;
  const Stages<L> stages{barriers, first, arguments.stages};
  if (thread == 0) {
    for (int stage = 0; stage < stages.count; ++stage) {
      mbarrier_init(stages.full(stage), 1);
      mbarrier_init(stages.empty(stage), kWarps);
    }
    fence_mbarrier_init();
  }
  if (thread == L::kConsumers) {
    prefetch_tensor_map(weights);
    prefetch_tensor_map(x);
  }
  __syncthreads();

  if (warp == kWarps) {
    if (lane == 0) load_stages<N, K>(x, weights, tiling, stages);
    return;
  }

  wait_for_predecessors();
  let_successors_start();
  auto* const block =
      reinterpret_cast<float*>(shared + (first - barriers) + stages.count * L::kStageBytes) + warp * kSumsBlock;
  const auto any_consumer = [](bool value) { return named_barrier_or(1, L::kConsumers, value); };
  Turn turn;
#pragma unroll 1
  for (int item = static_cast<int>(blockIdx.x); item < tiling.items; item += static_cast<int>(gridDim.x)) {
    const Work work = work_of(tiling, item, N);
    float sums[L::kFragments][4] = {};
    multiply_stages<T, N, K>(stages, work, warp / 4, lane == 0, turn, sums);
    if (tiling.split > 1) {
      float* const shares = arguments.workspace + static_cast<std::size_t>(work.tile) * tiling.split * M * N;
      if (!add_shares<L::kConsumers>(shares, arguments.tickets + work.tile, work.share, tiling.split, sums,
                                     any_consumer))
        continue;
    }
    // 16 pixels × 32 channels at a time, always from the first registers: so the loop is compiled once, and not as
    // often as there are registers.
#pragma unroll 1
    for (int part = 0; part < L::kFragments / 4; ++part) {
      const int group = part / (N / 32), channels = part % (N / 32) * 32;
      const int pixels = (warp / 4 * L::kGroups + group) * 64 + warp % 4 * 16 + lane / 4;
      float values[2][8];
      __syncwarp();  // all have read what was here before
      put_sums(block, sums);
      __syncwarp();
      get_sums(block, lane / 4, lane % 4, values[0]);
      get_sums(block, lane / 4 + 8, lane % 4, values[1]);
      const ConvPixel at[2] = {output_pixel(tiling, work, pixels), output_pixel(tiling, work, pixels + 8)};
      finish_and_store(arguments.result, at, work.channel + channels + lane % 4 * 8, values);
#pragma unroll
      for (int i = 0; i + 4 < L::kFragments; ++i)
#pragma unroll
        for (int k = 0; k < 4; ++k) sums[i][k] = sums[i + 4][k];
    }
  }
#else
  __trap();  // nobody launches it here
#endif
}

// x, in whose boxes a tile's pixels lie as one tap sees them.
CUtensorMap map_of_pixels(const TensorView& x, const Tiling& tiling, int k) {
  const auto n = static_cast<std::uint64_t>(x.n), h = static_cast<std::uint64_t>(x.h),
             w = static_cast<std::uint64_t>(x.w), pixel = static_cast<std::uint64_t>(x.pixel_stride) * size_of(x.type);
  const auto stride = static_cast<std::uint32_t>(tiling.stride);
  TensorMap map;
  map.type = x.type;
  map.data = static_cast<const std::byte*>(x.data) + static_cast<std::size_t>(x.channel_offset) * size_of(x.type);
  map.rank = 4;
  map.size = {static_cast<std::uint64_t>(x.c), w, h, n};
  map.strides = {pixel, w * pixel, h * w * pixel};
  if (tiling.in_a_row) {
    map.size = {static_cast<std::uint64_t>(x.c), n * h * w, 1, 1};
    map.strides = {pixel, n * h * w * pixel, n * h * w * pixel};
  }
  map.box = {static_cast<std::uint32_t>(k), static_cast<std::uint32_t>(tiling.columns),
             static_cast<std::uint32_t>(tiling.rows), 1};
  map.steps = {1, stride, stride, 1};
  map.span = 2 * k;
  return encode(map, kName);
}

CUtensorMap map_of_weights(const Convolution& convolution, int n, int k) {
  const TensorView& x = convolution.x;
  const auto taps = static_cast<std::uint64_t>(convolution.kernel) * convolution.kernel;
  const std::uint64_t tap = static_cast<std::uint64_t>(x.c) * size_of(x.type);
  TensorMap map;
  map.type = x.type;
  map.data = convolution.weights;
  map.rank = 3;
  map.size = {static_cast<std::uint64_t>(x.c), taps, static_cast<std::uint64_t>(convolution.y.c)};
  map.strides = {tap, taps * tap};
  map.box = {static_cast<std::uint32_t>(k), 1, static_cast<std::uint32_t>(n)};
  map.span = 2 * k;
  return encode(map, kName);
}

int multiprocessors() {
  int device = 0, count = 0;
  check(cudaGetDevice(&device), kName);
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), kName);
  return count;
}

template <typename T, int M, int N, int K, int Stages>
void run(const Convolution& convolution, const ConvConfig& config, Stream stream) {
  using L = Layout<M, N, K>;
  constexpr int kSharedBytes = L::shared_bytes(Stages);
  static_assert(L::kBlocks * (kSharedBytes + 1024) <= 228 * 1024, "shared memory of a multiprocessor");
  Arguments<T> arguments{tiling_of(convolution, config), conv_result<T>(convolution, kName),
                         static_cast<float*>(convolution.workspace), convolution.tickets, Stages};
  Tiling& tiling = arguments.tiling;
  tiling.items = static_cast<int>(tiles_of(tiling, convolution.y)) * tiling.split;
  const auto blocks = static_cast<unsigned>(std::min(tiling.items, multiprocessors() * L::kBlocks));
  launch(kName, conv_sm90_kernel<T, M, N, K>, {blocks, L::kThreads, kSharedBytes}, stream,
         map_of_pixels(convolution.x, tiling, K), map_of_weights(convolution, N, K), arguments);
}

template <typename T, std::size_t... I>
void run_tile(const Convolution& convolution, const ConvConfig& config, Stream stream, std::index_sequence<I...>) {
  const auto is_chosen = [&](const Tile& tile) {
    return config.m == tile.m && config.n == tile.n && config.k == tile.k;
  };
  ((is_chosen(kTiles[I]) ? run<T, kTiles[I].m, kTiles[I].n, kTiles[I].k, kTiles[I].stages>(convolution, config, stream)
                         : void()),
   ...);
}

}  // namespace

std::span<const ConvConfig> conv_sm90_configs() { return kConfigs; }

bool conv_sm90_fits(const Convolution& convolution, const ConvConfig& config) {
  if (unmet_expectation(convolution) != nullptr || !is_listed(config, kConfigs)) return false;
  if (config.columns == 0 && (convolution.kernel != 1 || convolution.stride != 1)) return false;
  const Tiling tiling = tiling_of(convolution, config);
  constexpr std::int64_t kMaxItems = 0x3fffffff;  // so that an int holds the next one, too
  return tiles_of(tiling, convolution.y) * config.split <= kMaxItems;
}

ConvMemory conv_sm90_memory(const Convolution& convolution, const ConvConfig& config) {
  return memory_of_shares(config, tiles_of(tiling_of(convolution, config), convolution.y));
}

void launch_conv_sm90(const Convolution& convolution, const ConvConfig& config, Stream stream) {
  require(is_listed(config, kConfigs), kName, "one of its configurations");
  require_convolution(convolution, {}, kName);
  require(conv_sm90_fits(convolution, config), kName, "columns for a window, and tiles that it can count");
  require_convolution(convolution, conv_sm90_memory(convolution, config), kName);
  constexpr auto kAll = std::make_index_sequence<std::size(kTiles)>{};
  if (convolution.x.type == DType::BF16)
    run_tile<__nv_bfloat16>(convolution, config, stream, kAll);
  else
    run_tile<__half>(convolution, config, stream, kAll);
}

}  // namespace damoyolo::kernels
