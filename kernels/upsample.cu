#include "kernels/divisor.cuh"
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
    upsample_kernel(Slice<const T> x, Slice<const T> other, Slice<T> y, Activation act, ItemOrder order, int items) {
  constexpr int kChannels = kGroup<T>;
  wait_for_predecessors();
  let_successors_start();
  const int number = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (number >= items) return;
  const auto [group, column, row, image] = order.at(number);
  const int channel = group * kChannels, count = min(kChannels, x.c - channel);

  float values[kChannels];
  load(x.pixel(image, row, column) + channel, count, x.aligned, values);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int y_row = 2 * row + i / 2, y_column = 2 * column + i % 2;
    float sums[kChannels] = {};
    if (other.data != nullptr) load(other.pixel(image, y_row, y_column) + channel, count, other.aligned, sums);
#pragma unroll
    for (int k = 0; k < kChannels; ++k) sums[k] += values[k];
    activate(sums, act);
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
    const ItemOrder order((x.c + kGroup<T> - 1) / kGroup<T>, x.w, x.h);
    const std::int64_t items = std::int64_t{x.n} * x.h * x.w * order.groups;
    launch(kName, upsample_kernel<T>, {blocks_for(items, kThreads, kName), kThreads}, stream, slice<const T>(x),
           slice<const T>(other), slice<T>(y), act, order, static_cast<int>(items));
  });
}

}  // namespace damoyolo::kernels
