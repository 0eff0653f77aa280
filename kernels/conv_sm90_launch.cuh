// From a convolution to a launch of conv_sm90's kernel for one of the tiles, for the files that compile some of them.
#pragma once

#include <algorithm>
#include <iterator>
#include <utility>

#include "kernels/conv_sm90_kernel.cuh"
#include "kernels/conv_sm90_tiles.h"
#include "kernels/tensor_map.h"

namespace damoyolo::kernels::conv_sm90 {

// A tensor in boxes of `rows` × the tiling's columns pixels and `channels` channels, every `stride`-th pixel of it.
inline CUtensorMap map_of_pixels(const TensorView& view, const Tiling& tiling, int rows, int stride, int channels) {
  const auto n = static_cast<std::uint64_t>(view.n), h = static_cast<std::uint64_t>(view.h),
             w = static_cast<std::uint64_t>(view.w), c = static_cast<std::uint64_t>(view.c),
             pixel = static_cast<std::uint64_t>(view.pixel_stride) * size_of(view.type);
  const auto step = static_cast<std::uint32_t>(stride);
  TensorMap map;
  map.type = view.type;
  map.data =
      static_cast<const std::byte*>(view.data) + static_cast<std::size_t>(view.channel_offset) * size_of(view.type);
  map.rank = 4;
  map.size = {c, w, h, n};
  map.strides = {pixel, w * pixel, h * w * pixel};
  if (tiling.in_a_row) {
    map.size = {c, n * h * w, 1, 1};
    map.strides = {pixel, n * h * w * pixel, n * h * w * pixel};
  }
  map.box = {static_cast<std::uint32_t>(channels), static_cast<std::uint32_t>(tiling.columns),
             static_cast<std::uint32_t>(rows), 1};
  map.steps = {1, step, step, 1};
  map.span = channels * 2;
  return encode(map, kName);
}

// Weights [out][kernel][kernel][in], in boxes of one tap of `channels` channels for k input channels.
struct Weights {
  const void* data;
  DType type;
  int in, kernel, out;
};

inline CUtensorMap map_of_weights(const Weights& weights, int channels, int k) {
  const auto c = static_cast<std::uint64_t>(weights.in), kernel = static_cast<std::uint64_t>(weights.kernel),
             tap = c * size_of(weights.type);
  TensorMap map;
  map.type = weights.type;
  map.data = weights.data;
  map.rank = 4;
  map.size = {c, kernel, kernel, static_cast<std::uint64_t>(weights.out)};
  map.strides = {tap, kernel * tap, kernel * kernel * tap};
  map.box = {static_cast<std::uint32_t>(k), 1, 1, static_cast<std::uint32_t>(channels)};
  map.span = k * 2;
  return encode(map, kName);
}

inline int multiprocessors() {
  int device = 0, count = 0;
  check(cudaGetDevice(&device), kName);
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), kName);
  return count;
}

// Whether bulk copies can bring and take the view, which lies as the output does.
inline bool can_be_staged(const TensorView& view, const Convolution& convolution) {
  const TensorView& y = convolution.y;
  return view.type == convolution.x.type && same_size(view, y) && view.c % 8 == 0 && view.pixel_stride % 8 == 0 &&
         view.channel_offset % 8 == 0 && is_aligned(view.data);
}

template <Tile kTile, typename T>
void run(const Convolution& convolution, const ConvConfig& config, Stream stream) {
  // So that what follows is aligned, too: stages, a second team's place, and the weights of a pair's second.
  static_assert(kTile.taps * kTile.n * kTile.span() % kStageAlignment == 0);
  static_assert((kTile.teams() == 1 && kTile.then == 0) || kTile.end_bytes(1) % kStageAlignment == 0);
  const TensorView &y = convolution.y, &residual = convolution.epilogue.residual;
  Arguments<T> arguments{
      .tiling = tiling_of(convolution, config), .result = conv_result<T>(convolution, kName), .next = {}};
  Tiling& tiling = arguments.tiling;
  tiling.items = static_cast<int>(tiles_of(tiling)) * tiling.split;
  const int columns = config.columns, split = config.split;
  // Whole clusters.
  const int most = split == 1 ? multiprocessors() / 2 * 2 * kTile.blocks() : tiling.items;
  const int grid = std::min(tiling.items, most);
  arguments.next = next_weights(convolution, static_cast<unsigned>(grid));
  // A block that has one tile needs no more stages than steps: what it leaves, the next kernel's blocks may have
  // early.
  const int needed = tiling.items > grid ? kMaxStages : std::max(2, ceil_div(tiling.steps, split));
  arguments.stages = std::min({config.stages, kTile.stages(columns, split), needed});
  arguments.stage_bytes = kTile.stage_bytes(columns);
  arguments.pixel_bytes = kTile.pixel_bytes(columns);
  arguments.staged = split == 1 && can_be_staged(y, convolution) && is_aligned(convolution.epilogue.bias) &&
                     (residual.data == nullptr || can_be_staged(residual, convolution));
  arguments.staged_residual = arguments.staged && residual.data != nullptr;
  arguments.stored = arguments.staged && convolution.keep;
  Maps maps{};
  maps.x = map_of_pixels(convolution.x, tiling, tiling.rows + kTile.taps - 1, tiling.stride, kTile.k);
  maps.weights = map_of_weights({convolution.weights, convolution.x.type, convolution.x.c, convolution.kernel, y.c},
                                kTile.n / config.sharing, kTile.k);
  if (arguments.stored) maps.y = map_of_pixels(y, tiling, tiling.rows, 1, kTile.chunk());
  if (arguments.staged_residual) maps.residual = map_of_pixels(residual, tiling, tiling.rows, 1, kTile.chunk());
  SecondOrNothing<T, kTile.then> second{};
  if constexpr (kTile.then > 0) {
    const Pointwise& then = convolution.then;
    require(arguments.staged && is_aligned(then.y.data) && is_aligned(then.epilogue.bias), kName,
            "outputs, residual and biases of a pair at multiples of 16 bytes");
    second = {map_of_weights({then.weights, y.type, y.c, 1, then.y.c}, kTile.then, kTile.chunk()),
              map_of_pixels(then.y, tiling, tiling.rows, 1, kTile.second().chunk()),
              epilogue_arguments<T>(then.epilogue, then.y, y.type, kName), then.y.c};
  }
  LaunchShape shape{static_cast<unsigned>(grid), static_cast<unsigned>(kTile.threads()),
                    static_cast<std::size_t>(kTile.shared_bytes(columns, split, arguments.stages)),
                    static_cast<unsigned>(split * config.sharing)};
  // nvcc can give functions on the device a template parameter of class type, but not kernels.
  const auto kernel = conv_kernel<T, kTile.m, kTile.n, kTile.k, kTile.taps, kTile.then, kTile.pingpong>;
  launch(kName, kernel, shape, stream, maps, arguments, second);
}

template <const auto& kTiles, typename T, std::size_t... I>
void run_tile(const Convolution& convolution, const ConvConfig& config, Stream stream, std::index_sequence<I...>) {
  ((kTiles[I] == tile_of(config) ? run<kTiles[I], T>(convolution, config, stream) : void()), ...);
}

// With the one of these tiles that the configuration names.
template <const auto& kTiles>
void run_one_of(const Convolution& convolution, const ConvConfig& config, Stream stream) {
  constexpr auto kAll = std::make_index_sequence<std::size(kTiles)>{};
  if (convolution.x.type == DType::BF16)
    run_tile<kTiles, __nv_bfloat16>(convolution, config, stream, kAll);
  else
    run_tile<kTiles, __half>(convolution, config, stream, kAll);
}

}  // namespace damoyolo::kernels::conv_sm90
