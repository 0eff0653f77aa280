#include "kernels/numeric.cuh"
#include "kernels/preprocess.h"
#include "kernels/ptx.cuh"

namespace damoyolo::kernels {
namespace {

constexpr char kPreprocess[] = "preprocess";
constexpr char kCast[] = "cast";
constexpr int kTileWidth = 32, kTileHeight = 8;  // pixels of y per block, one per thread

// The two source pixels of a network pixel along one axis, and their weights, which add up to 2048.
struct Taps {
  int first, second;
  int first_weight, second_weight;
};

// src = (dst + ½)·(source/size) − ½ in double, every step rounded by itself as on the host.
__device__ Taps taps_for(int position, int size, int source) {
  const double scale = static_cast<double>(source) / size;
  const double exact = __dadd_rn(__dmul_rn(position + 0.5, scale), -0.5);
  const double below = floor(exact);
  int first = static_cast<int>(below);
  float fraction = static_cast<float>(__dadd_rn(exact, -below));
  if (first < 0 || first >= source - 1) {
    first = first < 0 ? 0 : source - 1;
    fraction = 0.0f;
  }
  return {first, min(first + 1, source - 1), static_cast<int>(rintf(2048.0f * (1.0f - fraction))),
          static_cast<int>(rintf(2048.0f * fraction))};
}

__device__ __forceinline__ int interpolate(const std::uint8_t* upper, const std::uint8_t* lower, const Taps& row,
                                           const Taps& column, int color) {
  const int first = 3 * column.first + color, second = 3 * column.second + color;
  const int r0 = upper[first] * column.first_weight + upper[second] * column.second_weight;
  const int r1 = lower[first] * column.first_weight + lower[second] * column.second_weight;
  return (((row.first_weight * (r0 >> 4)) >> 16) + ((row.second_weight * (r1 >> 4)) >> 16) + 2) >> 2;
}

// Writes the kFilled channels in `values` and zeros after them.
template <int kFilled, int kRounded, typename T>
__device__ __forceinline__ void store_pixel(const Slice<T>& y, T* to, const float (&values)[kRounded]) {
  constexpr int kChannels = kGroup<T>;
#pragma unroll
  for (int channel = 0; channel < kRounded; channel += kChannels) {
    float group[kChannels];
#pragma unroll
    for (int k = 0; k < kChannels; ++k) group[k] = channel + k < kFilled ? values[channel + k] : 0.0f;
    store(to + channel, y.c - channel, y.aligned, group);
  }
  constexpr float kZeros[kChannels] = {};
  for (int channel = kRounded; channel < y.c; channel += kChannels)
    store(to + channel, y.c - channel, y.aligned, kZeros);
}

// y is NHWC. A block makes 32 × 8 pixels of y, a thread one of them; B × B network pixels make one pixel of y. The
// taps of the tile's rows and columns are computed once per block. Floor: the source pixels under the network's and y
// once each over memory bandwidth; neighbours' shared pixels come from L1.
template <typename T, int B>
__global__ void __launch_bounds__(kTileWidth* kTileHeight) preprocess_kernel(const Image* images, Slice<T> y) {
  __shared__ Taps rows[kTileHeight * B], columns[kTileWidth * B];
  wait_for_predecessors();
  let_successors_start();
  const Image image = images[blockIdx.z];
  const int first_row = static_cast<int>(blockIdx.y) * kTileHeight, row = first_row + static_cast<int>(threadIdx.y);
  const int first_column = static_cast<int>(blockIdx.x) * kTileWidth,
            column = first_column + static_cast<int>(threadIdx.x);
  if (image.width > 0) {
    const int thread = static_cast<int>(threadIdx.y) * kTileWidth + static_cast<int>(threadIdx.x);
    if (thread < kTileWidth * B) columns[thread] = taps_for(first_column * B + thread, y.w * B, image.width);
    if (thread < kTileHeight * B) rows[thread] = taps_for(first_row * B + thread, y.h * B, image.height);
  }
  __syncthreads();
  if (row >= y.h || column >= y.w) return;

  constexpr int kFilled = 3 * B * B, kRounded = (kFilled + 7) / 8 * 8;
  float values[kRounded] = {};
  if (image.width > 0) {
#pragma unroll
    for (int part = 0; part < B * B; ++part) {
      const Taps& row_taps = rows[static_cast<int>(threadIdx.y) * B + part % B];
      const Taps& column_taps = columns[static_cast<int>(threadIdx.x) * B + part / B];
      const std::size_t row_bytes = std::size_t{3} * image.width;
      const std::uint8_t* upper = image.rgb + row_taps.first * row_bytes;
      const std::uint8_t* lower = image.rgb + row_taps.second * row_bytes;
#pragma unroll
      for (int color = 0; color < 3; ++color)
        values[3 * part + color] = static_cast<float>(interpolate(upper, lower, row_taps, column_taps, color));
    }
  }
  store_pixel<kFilled>(y, y.pixel(static_cast<int>(blockIdx.z), row, column), values);
}

// As preprocess_kernel, without the resizing. Floor: pixels and y once each over memory bandwidth.
template <typename T, int B>
__global__ void __launch_bounds__(kTileWidth* kTileHeight) cast_kernel(const std::uint8_t* pixels, Slice<T> y) {
  wait_for_predecessors();
  let_successors_start();
  const int row = static_cast<int>(blockIdx.y * kTileHeight + threadIdx.y);
  const int column = static_cast<int>(blockIdx.x * kTileWidth + threadIdx.x);
  if (row >= y.h || column >= y.w) return;
  const std::size_t first_row = static_cast<std::size_t>(blockIdx.z) * y.h * B + static_cast<std::size_t>(row) * B;
  constexpr int kFilled = 3 * B * B, kRounded = (kFilled + 7) / 8 * 8;
  float values[kRounded] = {};
#pragma unroll
  for (int part = 0; part < B * B; ++part) {
    const std::uint8_t* pixel = pixels + ((first_row + part % B) * y.w * B + column * B + part / B) * 3;
#pragma unroll
    for (int color = 0; color < 3; ++color) values[3 * part + color] = static_cast<float>(pixel[color]);
  }
  store_pixel<kFilled>(y, y.pixel(static_cast<int>(blockIdx.z), row, column), values);
}

LaunchShape shape_for(const TensorView& y) {
  const dim3 grid(static_cast<unsigned>((y.w + kTileWidth - 1) / kTileWidth),
                  static_cast<unsigned>((y.h + kTileHeight - 1) / kTileHeight), static_cast<unsigned>(y.n));
  return {grid, dim3(kTileWidth, kTileHeight)};
}

void require_output(const TensorView& y, PixelLayout layout, const char* kernel) {
  require_view(y, kernel);
  require(y.c >= (layout == PixelLayout::SpaceToDepth ? 12 : 3), kernel, "an output wide enough for its pixels");
}

}  // namespace

void launch_preprocess(const Image* images, const TensorView& y, PixelLayout layout, Stream stream) {
  require(images != nullptr, kPreprocess, "images");
  require_output(y, layout, kPreprocess);
  with_storage_type(y.type, kPreprocess, [&](auto element) {
    using T = decltype(element);
    const auto kernel = layout == PixelLayout::SpaceToDepth ? preprocess_kernel<T, 2> : preprocess_kernel<T, 1>;
    launch(kPreprocess, kernel, shape_for(y), stream, images, slice<T>(y));
  });
}

void launch_cast(const std::uint8_t* pixels, const TensorView& y, PixelLayout layout, Stream stream) {
  require(pixels != nullptr, kCast, "pixels");
  require_output(y, layout, kCast);
  with_storage_type(y.type, kCast, [&](auto element) {
    using T = decltype(element);
    const auto kernel = layout == PixelLayout::SpaceToDepth ? cast_kernel<T, 2> : cast_kernel<T, 1>;
    launch(kCast, kernel, shape_for(y), stream, pixels, slice<T>(y));
  });
}

}  // namespace damoyolo::kernels
