#include "kernels/numeric.cuh"
#include "kernels/ptx.cuh"
#include "kernels/upsample.h"

namespace damoyolo::kernels {
namespace {

constexpr char kName[] = "upsample";
constexpr unsigned kThreads = 256;

// NHWC. A thread reads one group of channels (16 bytes) of one pixel of x once and makes the four outputs above it.
// Floor: x once, y and other once each, over memory bandwidth.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    upsample_kernel(Slice<const T> x, Slice<const T> other, Slice<T> y, Activation act, int items) {
  constexpr int kChannels = kGroup<T>;
  wait_for_predecessors();
  let_successors_start();
  const int item = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (item >= items) return;
  const int groups = (x.c + kChannels - 1) / kChannels;
  const int channel = item % groups * kChannels;
  const int pixel = item / groups;
  const int column = pixel % x.w, row = pixel / x.w % x.h, image = pixel / (x.w * x.h);
  const int count = min(kChannels, x.c - channel);

  float values[kChannels];
  load(x.pixel(image, row, column) + channel, count, x.aligned, values);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int y_row = 2 * row + i / 2, y_column = 2 * column + i % 2;
    float sums[kChannels] = {};
    if (other.data != nullptr) load(other.pixel(image, y_row, y_column) + channel, count, other.aligned, sums);
#pragma unroll
    for (int k = 0; k < kChannels; ++k) sums[k] = activate(values[k] + sums[k], act);
    store(y.pixel(image, y_row, y_column) + channel, count, y.aligned, sums);
  }
}

}  // namespace

void launch_upsample(const TensorView& x, const TensorView& other, const TensorView& y, Activation act,
                     Stream stream) {
  require_view(x, kName);
  require_view(y, kName);
  require(y.type == x.type && y.n == x.n && y.h == 2 * x.h && y.w == 2 * x.w && y.c == x.c, kName,
          "an output of the input's type and twice its height and width");
  if (other.data != nullptr) {
    require_view(other, kName);
    require(other.type == y.type && same_size(other, y), kName, "an addend of the output's type and size");
  }
  with_storage_type(x.type, kName, [&](auto element) {
    using T = decltype(element);
    const std::int64_t items = std::int64_t{x.n} * x.h * x.w * ((x.c + kGroup<T> - 1) / kGroup<T>);
    launch(kName, upsample_kernel<T>, {blocks_for(items, kThreads, kName), kThreads}, stream, slice<const T>(x),
           slice<const T>(other), slice<T>(y), act, static_cast<int>(items));
  });
}

}  // namespace damoyolo::kernels
