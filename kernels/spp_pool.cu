#include "kernels/numeric.cuh"
#include "kernels/ptx.cuh"
#include "kernels/spp_pool.h"

namespace damoyolo::kernels {
namespace {

constexpr char kName[] = "spp_pool";
constexpr int kWarps = 8;
constexpr int kTile = 20;  // outputs on a side: one tile holds the whole map of a 640 × 640 image
constexpr int kHalo = 6;   // of a window of 13
constexpr int kRegion = kTile + 2 * kHalo;
static_assert(kRegion == kLanes, "a lane for each column");

template <typename T>
struct PairOf {
  using Type = __half2;
};
template <>
struct PairOf<__nv_bfloat16> {
  using Type = __nv_bfloat162;
};

template <typename T>
__device__ __forceinline__ Packet<T> larger(const Packet<T>& a, const Packet<T>& b) {
  Packet<T> result;
  if constexpr (sizeof(T) == sizeof(float)) {
#pragma unroll
    for (int k = 0; k < kGroup<T>; ++k) result.values[k] = fmaxf(a.values[k], b.values[k]);
  } else {
    using Pair = typename PairOf<T>::Type;
#pragma unroll
    for (int k = 0; k < kGroup<T>; k += 2) {
      const Pair pair = __hmax2(Pair{a.values[k], a.values[k + 1]}, Pair{b.values[k], b.values[k + 1]});
      result.values[k] = pair.x;
      result.values[k + 1] = pair.y;
    }
  }
  return result;
}

// The largest of five neighbours in a line of `count` cells that are `step` apart; `cell` is the middle one and lies
// at `position` in it. There is nothing before and after the line.
template <typename T>
__device__ __forceinline__ Packet<T> max_of_five(const Packet<T>* cell, int position, int count, int step) {
  Packet<T> largest = *cell;
#pragma unroll
  for (const int d : {-2, -1, 1, 2})
    if (position + d >= 0 && position + d < count) largest = larger(largest, cell[d * step]);
  return largest;
}

// NHWC. A block pools one group of channels (16 bytes) of one tile. It reads the tile and its halo, as far as the
// image goes, once, and pools by 5 three times over, rows then columns: 5 after 5 is 9, and once more is 13, because
// the maximum of maxima is the maximum over both windows together. At the tile's ends inside the image the halo pools
// less than it should; the tile does not need what is wrong there. A warp takes every eighth row, a lane a column, so
// that only the columns' pools need other warps. Floor: x once and y once over memory bandwidth; the maps are so small
// that a launch costs more.
template <typename T>
__global__ void __launch_bounds__(kWarps* kLanes) spp_pool_kernel(Slice<const T> x, Slice<T> y, int tiles_across) {
  constexpr int kChannels = kGroup<T>;
  __shared__ Packet<T> pooled[kRegion * kRegion], rows[kRegion * kRegion];
  wait_for_predecessors();
  let_successors_start();
  const int tile_row = static_cast<int>(blockIdx.x) / tiles_across * kTile;
  const int tile_column = static_cast<int>(blockIdx.x) % tiles_across * kTile;
  const int channel = static_cast<int>(blockIdx.y) * kChannels;
  const int image = static_cast<int>(blockIdx.z);
  const int count = min(kChannels, x.c - channel);
  const bool y_aligned = y.aligned && x.c % kChannels == 0;
  const int first_row = max(tile_row - kHalo, 0), height = min(tile_row + kTile + kHalo, x.h) - first_row;
  const int first_column = max(tile_column - kHalo, 0), width = min(tile_column + kTile + kHalo, x.w) - first_column;
  const int first = static_cast<int>(threadIdx.x) / kLanes, column = static_cast<int>(threadIdx.x) % kLanes;
  const auto for_each_cell = [&](auto visit) {
    for (int row = first; row < height; row += kWarps)
      if (column < width) visit(row, row * kRegion + column);
  };

  for_each_cell([&](int row, int cell) {
    float values[kChannels];
    load(x.pixel(image, first_row + row, first_column + column) + channel, count, x.aligned, values);
    store(pooled[cell].values, kChannels, true, values);
  });
  for (int pool = 0; pool < 3; ++pool) {
    __syncwarp();
    for_each_cell([&](int, int cell) { rows[cell] = max_of_five(pooled + cell, column, width, 1); });
    __syncthreads();
    for_each_cell([&](int row, int cell) {
      pooled[cell] = max_of_five(rows + cell, row, height, kRegion);
      const int y_row = first_row + row, y_column = first_column + column;
      if (y_row < tile_row || y_row >= tile_row + kTile || y_column < tile_column || y_column >= tile_column + kTile)
        return;
      float values[kChannels];
      load(pooled[cell].values, kChannels, true, values);
      store(y.pixel(image, y_row, y_column) + pool * x.c + channel, count, y_aligned, values);
    });
    __syncthreads();
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
    launch(kName, spp_pool_kernel<T>, {grid, kWarps * kLanes}, stream, slice<const T>(x), slice<T>(y), across);
  });
}

}  // namespace damoyolo::kernels
