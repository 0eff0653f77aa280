#include <array>
#include <tuple>

#include "kernels/conv_checks.h"
#include "kernels/conv_epilogue.cuh"
#include "kernels/conv_next.cuh"
#include "kernels/conv_sm80.h"
#include "kernels/divisor.cuh"
#include "kernels/ptx.cuh"

namespace damoyolo::kernels {
namespace {

constexpr char kName[] = "conv_sm80";

// NHWC. Row p of the matrix A is output pixel p, counted through rows and images, with the taps × channels that its
// window sees; row c of B is output channel c with its weights in the same order. y = A · Bᵀ. A is nowhere in memory:
// its pieces, 8 channels of one tap, 16 bytes, are copied from where they lie in x, and are zeros outside of it. So
// are the pieces past the last pixel, the last channel and the end of the sum.
//
// A block makes a tile of M pixels × N channels, each of its warps WarpM × WarpN of it by mma, in steps of K products:
//
//   shared memory:   step 0                                  step 1     …   step Stages
//                    M rows of pixels | N rows of weights    the same       the same
//
// It is a ring. While step s is multiplied, the next `Stages` are on their way, the last of them to where s − 1 was;
// one barrier in a step says that s + 1 has come for all and that nobody reads s any more, since its last fragments
// are in registers by then. Fragments are loaded 16 products ahead, over the end of a step too.
//
// Banks: 128 bytes are all banks once, or 8 units of 16 bytes. ldmatrix reads a unit of 8 rows at a time, the same of
// each. Where rows have 128 bytes, these would lie in the same banks, so unit u of row r is kept in place u ^ (r % 8):
// u meets eight different numbers and lands in eight different places. Where rows have 64 bytes, two make up 128, and
// u ^ (r / 2 % 4) takes each of the four places once for the even rows and once for the odd ones. cp.async fills whole
// rows, in whatever order. tests/simt counts the conflicts of every tile.
//
// At the end the sums pass through shared memory into rows of channels, for stores of 16 bytes (conv_epilogue.cuh).
//
// Neighbouring blocks make other channels of the same pixels, so that x is read from memory once and from L2 after.
// Floor: 2 · pixels · channels · taps · channels FLOPs at the rate of mma.sync, or x, weights, residual and y once
// each over memory bandwidth. A warp of 64 × 64 needs 8 ldmatrix for 32 mma, one of 32 × 32 needs 4 for 8: large tiles
// keep the tensor cores busy, small ones the multiprocessors.
template <int M_, int N_, int K_, int Stages_, int WarpM_, int WarpN_>
struct Tile {
  static constexpr int M = M_, N = N_, K = K_, Stages = Stages_, WarpM = WarpM_, WarpN = WarpN_;
  static constexpr int WarpsN = N / WarpN;
  static constexpr int Threads = M / WarpM * WarpsN * 32;
  static constexpr int Sums = WarpM * WarpN / 32;                                     // of a thread
  static constexpr int Blocks = (Sums > 64 ? 2 : Sums > 32 ? 3 : 4) * 128 / Threads;  // for which registers suffice

  static constexpr int Units = K / 8;  // of 16 bytes in a row
  static constexpr int RowBytes = K * 2;
  static constexpr int RowsApart = Threads / Units;     // rows that all threads copy at once
  static constexpr int StepBytes = (M + N) * RowBytes;  // pixels, then weights
  static constexpr int SharedBytes = (Stages + 1) * StepBytes;
  static constexpr ConvConfig Config = {.m = M, .n = N, .k = K, .stages = Stages};

  static_assert(WarpM % 16 == 0 && WarpN % 32 == 0 && M % WarpM == 0 && N % WarpN == 0);
  static_assert((K == 32 || K == 64) && M % RowsApart == 0 && N % RowsApart == 0 && RowsApart % 8 == 0);
  static_assert(SharedBytes >= M * N * 4, "the sums go through it");
  static_assert(SharedBytes <= 99 * 1024, "what a block can have on every device from 8.0 on");

  // Where unit `unit` of row `row` lies in its row, in bytes.
  static __device__ __forceinline__ int place(int row, int unit) {
    constexpr int kRowsOf128Bytes = 128 / RowBytes;
    return (unit ^ row / kRowsOf128Bytes % Units) * 16;
  }
};

template <typename T>
using Unit = Packet<T>;  // 8 channels, 16 bytes

template <typename T>
struct Arguments {
  const Unit<T>*x, *weights;
  ConvResult<T> result;
  int row_units;                    // of the weights: taps × x_units
  int x_h, x_w, x_stride, x_units;  // units from pixel to pixel, and of a pixel's channels
  int padding, stride, taps;
  int pixels;  // of the output
  int steps;   // of one share of a sum; the last share may have less
  int all_steps;
  int taps_per_step, units_per_step;  // a step is so many taps, and so many units more
  Divisor by_x_units, by_columns, by_rows;
  int columns, rows;
  float* workspace;
  unsigned* tickets;
  NextWeights next;
};

// Copies a thread's part of each step: one unit, the same in all steps, of every RowsApart-th row of pixels and of
// weights. The units of a row, taps × channels, are counted on from step to step, and each row of pixels has a bit for
// every tap, set where that tap lies inside the image; so a row costs three instructions beside its copy. Whether a
// step is wanted at all is a predicate of each copy and no branch, so that the compiler spreads copies among products.
template <typename T, typename Tile>
struct Copier {
  static constexpr int kPixels = Tile::M / Tile::RowsApart, kWeights = Tile::N / Tile::RowsApart;

  const Arguments<T>& a;
  int to;                                   // the first row's place in the step
  int tap, unit;                            // of the next step's pixels
  int offset;                               // units from a row's first tap to this step's tap and channels
  unsigned bit;                             // this step's tap; 0 where the sum has ended
  int offsets[kPixels];                     // units from x to each row's first tap
  unsigned inside[(kPixels + 2) / 3] = {};  // 9 bits for each row's taps, three rows to a word
  const Unit<T>* weights;                   // the first row's next unit
  int channels_left;                        // from the first row's on

  // Weights alone can be copied then.
  __device__ __forceinline__ Copier(const Arguments<T>& a, int first_channel, int first_unit) : a(a) {
    const int row = thread_row(), column = thread_column();
    to = row * Tile::RowBytes + Tile::place(row, column);
    weights = a.weights + (static_cast<std::ptrdiff_t>(first_channel + row) * a.row_units + first_unit + column);
    channels_left = a.result.c - first_channel - row;
  }

  // Each lane works out one of its warp's rows, or one of so many, and tells the others. A window's middle lies inside
  // the image wherever there is a pixel, and so does the one tap of a 1×1 window.
  __device__ __forceinline__ void begin_pixels(int first_pixel, int first_unit) {
    const int column = thread_column();
    tap = a.by_x_units.divide(first_unit + column);
    unit = first_unit + column - tap * a.x_units;
    constexpr int kTogether = kLanes / Tile::Units;  // rows that a warp copies at once
    const int lane = static_cast<int>(threadIdx.x % kLanes), warp = static_cast<int>(threadIdx.x / kLanes);
    int lane_offset = 0;
    unsigned lane_taps = 0;
#pragma unroll
    for (int i = 0; i < kPixels; ++i) {
      if (i % Tile::Units == 0) {
        const int pixel = first_pixel + warp * kTogether + lane % kTogether + (i + lane / kTogether) * Tile::RowsApart;
        const int row = a.by_columns.divide(pixel), image = a.by_rows.divide(row);
        const int y = (row - image * a.rows) * a.stride - a.padding;
        const int x = (pixel - row * a.columns) * a.stride - a.padding;
        lane_offset = ((image * a.x_h + y) * a.x_w + x) * a.x_stride;
        const unsigned columns = pixel < a.pixels ? (x >= 0 ? 1 : 0) | 2 | (x + 2 < a.x_w ? 4 : 0) : 0;
        lane_taps = (y >= 0 ? columns : 0) | columns << 3 | (y + 2 < a.x_h ? columns << 6 : 0);
      }
      const int source = i % Tile::Units * kTogether + lane / Tile::Units;
      offsets[i] = __shfl_sync(~0u, lane_offset, source);
      inside[i / 3] |= __shfl_sync(~0u, lane_taps, source) << i % 3 * 9;
    }
  }

  __device__ __forceinline__ void begin_step() {
    const int y = tap * 11 >> 5, x = tap - 3 * y;  // tap / 3 below 32
    offset = (y * a.x_w + x) * a.x_stride + unit;
    bit = tap < a.taps ? 1u << tap : 0;
    unit += a.units_per_step;
    const bool ends_tap = unit >= a.x_units;
    tap += a.taps_per_step + (ends_tap ? 1 : 0);
    unit -= ends_tap ? a.x_units : 0;
  }

  // Every `Parts`-th row from the `part`-th on. `exists`: the thread's unit lies before the sum's end.
  template <int Parts = 1>
  __device__ __forceinline__ void copy_weights(unsigned char* step, bool wanted, bool exists, int part = 0) {
#pragma unroll
    for (int i = 0; i < kWeights; ++i)
      if (i % Parts == part)
        cp_async_16(step + to + (Tile::M + i * Tile::RowsApart) * Tile::RowBytes,
                    weights + i * Tile::RowsApart * a.row_units, exists && i * Tile::RowsApart < channels_left,
                    wanted);
    if (part == Parts - 1) weights += Tile::Units;
  }

  template <int Parts = 1>
  __device__ __forceinline__ void copy_pixels(unsigned char* step, bool wanted, int part = 0) {
#pragma unroll
    for (int i = 0; i < kPixels; ++i)
      if (i % Parts == part)
        cp_async_16(step + to + i * Tile::RowsApart * Tile::RowBytes, a.x + (offsets[i] + offset),
                    (inside[i / 3] & bit << i % 3 * 9) != 0, wanted);
  }

  static __device__ __forceinline__ int thread_row() { return static_cast<int>(threadIdx.x / Tile::Units); }
  static __device__ __forceinline__ int thread_column() { return static_cast<int>(threadIdx.x % Tile::Units); }
};

// A warp's part of a step in shared memory, as mma takes it, 16 products at a time.
template <typename Tile>
struct Fragments {
  static constexpr int kRows = Tile::WarpM / 16, kColumns = Tile::WarpN / 8;

  unsigned a[kRows][4], b[kColumns][2];

  // a_place, b_place: of the lane's first row in the step's shared memory.
  __device__ __forceinline__ void load(const unsigned char* shared, int a_place, int b_place, int k) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) ldmatrix_x4(a[i], shared + (a_place ^ k * 32) + i * 16 * Tile::RowBytes);
#pragma unroll
    for (int i = 0; i < kColumns; i += 2) {
      unsigned words[4];
      ldmatrix_x4(words, shared + (b_place ^ k * 32) + i * 8 * Tile::RowBytes);
      b[i][0] = words[0];
      b[i][1] = words[1];
      b[i + 1][0] = words[2];
      b[i + 1][1] = words[3];
    }
  }
};

template <typename T, typename Tile>
__global__ void __launch_bounds__(Tile::Threads, Tile::Blocks) conv_kernel(const Arguments<T> a) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  using Parts = Fragments<Tile>;
  constexpr int kSteps16 = Tile::K / 16, kCopies = kSteps16 / 2;
  auto* const shared = dynamic_shared<unsigned char>();
  const int lane = static_cast<int>(threadIdx.x % kLanes), warp = static_cast<int>(threadIdx.x / kLanes);
  const int warp_m = warp / Tile::WarpsN * Tile::WarpM, warp_n = warp % Tile::WarpsN * Tile::WarpN;
  const int first_channel = static_cast<int>(blockIdx.x) * Tile::N, share = static_cast<int>(blockIdx.z);
  const int first_pixel = static_cast<int>(blockIdx.y) * Tile::M;
  const int first_step = share * a.steps, steps = min(a.steps, a.all_steps - first_step);

  const int first_unit = first_step * Tile::Units;
  Copier<T, Tile> copier(a, first_channel, first_unit);
  // These two loops stay loops: unrolled, they are code that a short block has to wait for.
#pragma unroll 1
  for (int i = 0; i < Tile::Stages; ++i)
    copier.copy_weights(shared + i * Tile::StepBytes, i < steps,
                        first_unit + i * Tile::Units + copier.thread_column() < a.row_units);
  copier.begin_pixels(first_pixel, first_unit);
  wait_for_predecessors();  // weights do not come from them
  let_successors_start();
#pragma unroll 1
  for (int i = 0; i < Tile::Stages; ++i) {
    copier.begin_step();
    copier.copy_pixels(shared + i * Tile::StepBytes, i < steps);
    cp_async_commit();
  }
  a.next.prefetch((blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x, static_cast<int>(threadIdx.x),
                  Tile::Threads);

  const int a_row = warp_m + lane % 16, b_row = warp_n + lane / 16 * 8 + lane % 8;
  const int a_place = a_row * Tile::RowBytes + Tile::place(a_row, lane / 16);
  const int b_place = (Tile::M + b_row) * Tile::RowBytes + Tile::place(b_row, lane / 8 % 2);
  float sums[Parts::kRows * Parts::kColumns][4] = {};
  Parts parts[2];
  int reading = 0, writing = Tile::Stages * Tile::StepBytes;
  cp_async_wait<Tile::Stages - 1>();
  __syncthreads();
  parts[0].load(shared, a_place, b_place, 0);
#pragma unroll 1
  for (int left = steps; left > 0; --left) {
    const bool wanted = left > Tile::Stages;
    copier.begin_step();
#pragma unroll
    for (int k = 0; k < kSteps16; ++k) {
      if (k == kSteps16 - 1) {
        // The next step has come, and all warps have loaded all of this one.
        cp_async_wait<Tile::Stages - 1>();
        __syncthreads();
        writing = reading;
        reading = reading == Tile::Stages * Tile::StepBytes ? 0 : reading + Tile::StepBytes;
      }
      parts[(k + 1) % 2].load(shared + reading, a_place, b_place, (k + 1) % kSteps16);
      if (k < kCopies) {
        copier.template copy_weights<kCopies>(shared + writing, wanted, copier.bit != 0, k);
        copier.template copy_pixels<kCopies>(shared + writing, wanted, k);
      }
      if (k == kCopies - 1) cp_async_commit();
      multiply_add<T, Parts::kRows, Parts::kColumns>(sums, parts[k % 2].a, parts[k % 2].b);
    }
  }

  if (const int split = static_cast<int>(gridDim.z); split > 1) {
    const std::size_t tile = static_cast<std::size_t>(blockIdx.y) * gridDim.x + blockIdx.x;
    if (!add_shares<Tile::Threads>(a.workspace + tile * split * (Tile::M * Tile::N), a.tickets + tile, share, split,
                                   sums))
      return;
  }

  // The last loads of fragments were of no use, but they read what the sums now overwrite.
  __syncthreads();
  constexpr int kBlocksN = Tile::WarpN / 32, kBlocks = Tile::WarpM / 16 * kBlocksN;
  auto* const blocks = reinterpret_cast<float*>(shared) + warp * kBlocks * kSumsBlock;
#pragma unroll
  for (int i = 0; i < kBlocks; ++i)
    put_sums(blocks + i * kSumsBlock, sums + i / kBlocksN * Parts::kColumns + i % kBlocksN * 4);
  __syncwarp();
  constexpr int kPixels = Tile::WarpM % 32 == 0 ? 4 : 2;  // of one lane at a time, in 8 rows each
  static_assert(Tile::WarpM % (8 * kPixels) == 0, "every row has its turn");
#pragma unroll 1
  for (int i = 0; i < kBlocksN * Tile::WarpM / (8 * kPixels); ++i) {
    const int block_n = i % kBlocksN, row = i / kBlocksN * (8 * kPixels) + lane / 4;
    ConvPixel at[kPixels];
    float values[kPixels][8];
#pragma unroll
    for (int k = 0; k < kPixels; ++k) {
      const int pixel = row + 8 * k, index = first_pixel + warp_m + pixel;
      at[k] = {index, index < a.pixels};
      get_sums(blocks + (pixel / 16 * kBlocksN + block_n) * kSumsBlock, pixel % 16, lane % 4, values[k]);
    }
    finish_and_store(a.result, at, first_channel + warp_n + block_n * 32 + lane % 4 * 8, values);
  }
#else
  __trap();  // nobody launches it here
#endif
}

// Wide tiles for few channels on large maps, square ones for many, small ones for maps of 40 × 40 and below at
// batch 1. There the sums have thousands of products, so that steps of 64 save barriers; on large maps with few
// channels, whose sums are short, steps of 32 fill the ring sooner. A multiprocessor of 8.6, 8.9 and 12.0 has 100 KB
// of shared memory: the stages of most tiles leave room for two blocks, of which one's products hide the other's ends.
using Tiles = std::tuple<Tile<256, 64, 32, 3, 64, 64>,   //
                         Tile<192, 64, 32, 2, 48, 64>,   //
                         Tile<160, 64, 32, 2, 80, 32>,   //
                         Tile<128, 128, 32, 4, 64, 64>,  //
                         Tile<128, 64, 32, 3, 64, 32>,   //
                         Tile<64, 128, 64, 2, 32, 64>,   //
                         Tile<128, 32, 32, 3, 32, 32>,   //
                         Tile<64, 96, 32, 3, 32, 96>,    //
                         Tile<64, 64, 32, 4, 32, 32>,    //
                         Tile<64, 64, 64, 3, 32, 32>,    //
                         Tile<64, 32, 64, 3, 16, 32>,    //
                         Tile<32, 32, 64, 5, 16, 32>>;

constexpr auto kConfigs = std::apply([](auto... tiles) { return std::array{decltype(tiles)::Config...}; }, Tiles{});

constexpr std::int64_t kMaxTilesM = 65535;  // as many rows as a grid can have

std::int64_t pixels_of(const TensorView& view) { return std::int64_t{view.n} * view.h * view.w; }

struct TileCounts {
  std::int64_t m, n;
};
TileCounts tiles_of(const TensorView& y, const ConvConfig& config) {
  return {(pixels_of(y) + config.m - 1) / config.m, (y.c + config.n - 1) / config.n};
}

template <typename T>
Arguments<T> arguments(const Convolution& convolution, const ConvConfig& config) {
  const TensorView &x = convolution.x, &y = convolution.y;
  const int units_per_step = config.k / 8, x_units = x.c / 8, taps = convolution.kernel * convolution.kernel;
  Arguments<T> a{};
  a.x = reinterpret_cast<const Unit<T>*>(static_cast<const T*>(x.data) + x.channel_offset);
  a.weights = static_cast<const Unit<T>*>(convolution.weights);
  a.result = conv_result<T>(convolution, kName);
  a.row_units = taps * x_units;
  a.x_h = x.h;
  a.x_w = x.w;
  a.x_stride = x.pixel_stride / 8;
  a.x_units = x_units;
  a.padding = (convolution.kernel - 1) / 2;
  a.stride = convolution.stride;
  a.taps = taps;
  a.pixels = static_cast<int>(pixels_of(y));
  a.all_steps = (a.row_units + units_per_step - 1) / units_per_step;
  a.steps = (a.all_steps + config.split - 1) / config.split;
  a.taps_per_step = units_per_step / x_units;
  a.units_per_step = units_per_step % x_units;
  a.by_x_units = Divisor(x_units);
  a.by_columns = Divisor(y.w);
  a.by_rows = Divisor(y.h);
  a.columns = y.w;
  a.rows = y.h;
  a.workspace = static_cast<float*>(convolution.workspace);
  a.tickets = convolution.tickets;
  return a;
}

template <typename T, typename Tile>
void run(const Convolution& convolution, const ConvConfig& config, Stream stream) {
  ConvConfig whole = config;
  whole.split = 1;
  if (whole != Tile::Config) return;
  const auto [m, n] = tiles_of(convolution.y, config);
  const dim3 grid(static_cast<unsigned>(n), static_cast<unsigned>(m), static_cast<unsigned>(config.split));
  Arguments<T> given = arguments<T>(convolution, config);
  given.next = next_weights(convolution, grid.x * grid.y * grid.z);
  launch(kName, conv_kernel<T, Tile>, {grid, Tile::Threads, Tile::SharedBytes}, stream, given);
}

}  // namespace

std::span<const ConvConfig> conv_sm80_configs() { return kConfigs; }

bool conv_sm80_fits(const Convolution& convolution, const ConvConfig& config) {
  return config.sharing == 1 && is_listed(config, kConfigs, kMaxConvSplit) &&
         unmet_expectation(convolution, config) == nullptr && tiles_of(convolution.y, config).m <= kMaxTilesM;
}

ConvMemory conv_sm80_memory(const Convolution& convolution, const ConvConfig& config) {
  const auto [m, n] = tiles_of(convolution.y, config);
  return memory_of_shares(config, m * n);
}

void launch_conv_sm80(const Convolution& convolution, const ConvConfig& config, Stream stream) {
  require(config.sharing == 1 && is_listed(config, kConfigs, kMaxConvSplit), kName, "one of its configurations");
  require_convolution(convolution, config, conv_sm80_memory(convolution, config), kName);
  require(tiles_of(convolution.y, config).m <= kMaxTilesM, kName, "at most 65535 tiles of pixels");
  const auto with_tiles = [&]<typename T>(T, auto... tiles) {
    (run<T, decltype(tiles)>(convolution, config, stream), ...);
  };
  std::apply(
      [&](auto... tiles) {
        if (convolution.x.type == DType::F16)
          with_tiles(__half{}, tiles...);
        else
          with_tiles(__nv_bfloat16{}, tiles...);
      },
      Tiles{});
}

}  // namespace damoyolo::kernels
