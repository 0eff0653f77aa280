#include "kernels/numeric.cuh"
#include "kernels/ptx.cuh"
#include "kernels/spp_pool.h"

namespace damoyolo::kernels {
namespace {

constexpr char kName[] = "spp_pool";
constexpr unsigned kThreads = 256;
constexpr int kTile = 20;  // outputs on a side: one tile holds the whole map of a 640 × 640 image
constexpr int kHalo = 6;   // of a window of 13
constexpr int kRegion = kTile + 2 * kHalo;

// The largest of five neighbours along a row (`step` 1) or a column (kRegion) of a region in shared memory. Cells
// outside the region count as absent; only results that the tile does not need are wrong for it.
template <typename T>
__device__ __forceinline__ Packet<T> max_of_five(const Packet<T>* cells, int cell, int position, int step) {
  float largest[kGroup<T>];
#pragma unroll
  for (int k = 0; k < kGroup<T>; ++k) largest[k] = to_float(cells[cell].values[k]);
#pragma unroll
  for (int d = -2; d <= 2; ++d) {
    if (d == 0 || position + d < 0 || position + d >= kRegion) continue;
    const Packet<T> other = cells[cell + d * step];
#pragma unroll
    for (int k = 0; k < kGroup<T>; ++k) largest[k] = fmaxf(largest[k], to_float(other.values[k]));
  }
  Packet<T> result;
#pragma unroll
  for (int k = 0; k < kGroup<T>; ++k) result.values[k] = from_float<T>(largest[k]);
  return result;
}

// NHWC. A block pools one group of channels (16 bytes) of one tile. It reads the tile and its halo once, −∞ outside
// the image, and pools by 5 three times over, rows then columns: 5 after 5 is 9, and once more is 13, because the
// maximum of maxima is the maximum over both windows together. Floor: x once and y once over memory bandwidth; the
// maps are so small that a launch costs more.
template <typename T>
__global__ void __launch_bounds__(kThreads) spp_pool_kernel(Slice<const T> x, Slice<T> y, int tiles_across) {
  constexpr int kChannels = kGroup<T>;
  constexpr int kCells = kRegion * kRegion;
  __shared__ Packet<T> pooled[kCells], rows[kCells];
  wait_for_predecessors();
  let_successors_start();
  const int tile_row = static_cast<int>(blockIdx.x) / tiles_across * kTile;
  const int tile_column = static_cast<int>(blockIdx.x) % tiles_across * kTile;
  const int channel = static_cast<int>(blockIdx.y) * kChannels;
  const int image = static_cast<int>(blockIdx.z);
  const int count = min(kChannels, x.c - channel);
  const bool y_aligned = y.aligned && x.c % kChannels == 0;

  for (int cell = static_cast<int>(threadIdx.x); cell < kCells; cell += kThreads) {
    const int row = tile_row + cell / kRegion - kHalo, column = tile_column + cell % kRegion - kHalo;
    float values[kChannels];
    if (row >= 0 && row < x.h && column >= 0 && column < x.w) {
      load(x.pixel(image, row, column) + channel, count, x.aligned, values);
    } else {
#pragma unroll
      for (int k = 0; k < kChannels; ++k) values[k] = -INFINITY;
    }
    store(pooled[cell].values, kChannels, true, values);
  }
  __syncthreads();
  for (int pool = 0; pool < 3; ++pool) {
    for (int cell = static_cast<int>(threadIdx.x); cell < kCells; cell += kThreads)
      rows[cell] = max_of_five(pooled, cell, cell % kRegion, 1);
    __syncthreads();
    for (int cell = static_cast<int>(threadIdx.x); cell < kCells; cell += kThreads)
      pooled[cell] = max_of_five(rows, cell, cell / kRegion, kRegion);
    __syncthreads();
    for (int output = static_cast<int>(threadIdx.x); output < kTile * kTile; output += kThreads) {
      const int row = output / kTile, column = output % kTile;
      if (tile_row + row >= y.h || tile_column + column >= y.w) continue;
      float values[kChannels];
      load(pooled[(row + kHalo) * kRegion + column + kHalo].values, kChannels, true, values);
      store(y.pixel(image, tile_row + row, tile_column + column) + pool * x.c + channel, count, y_aligned, values);
    }
  }
}

}  // namespace

void launch_spp_pool(const TensorView& x, const TensorView& y, Stream stream) {
  require_view(x, kName);
  require_view(y, kName);
  require(y.type == x.type && y.n == x.n && y.h == x.h && y.w == x.w && y.c == 3 * x.c, kName,
          "an output of the input's type and size with three times its channels");
  with_storage_type(x.type, kName, [&](auto element) {
    using T = decltype(element);
    const int across = (x.w + kTile - 1) / kTile, down = (x.h + kTile - 1) / kTile;
    const auto groups = static_cast<unsigned>((x.c + kGroup<T> - 1) / kGroup<T>);
    const dim3 grid(static_cast<unsigned>(across * down), groups, static_cast<unsigned>(x.n));
    launch(kName, spp_pool_kernel<T>, {grid, kThreads}, stream, slice<const T>(x), slice<T>(y), across);
  });
}

}  // namespace damoyolo::kernels
