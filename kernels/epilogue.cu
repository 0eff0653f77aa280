#include <algorithm>

#include "kernels/divisor.cuh"
#include "kernels/epilogue.cuh"
#include "kernels/epilogue.h"
#include "kernels/ptx.cuh"

namespace damoyolo::kernels {
namespace {

constexpr char kName[] = "epilogue";
constexpr unsigned kThreads = 256;

// The channels of one thread: 16 bytes of the narrower type.
template <typename In, typename Out>
constexpr int kChannelsOf = std::max(kGroup<In>, kGroup<Out>);

// NHWC to NHWC. A thread takes one group of channels of one pixel; neighbours take the next group, so that a warp
// reads and writes whole cache lines. Floor: x, residual and y once each over memory bandwidth.
template <typename In, typename Out>
__global__ void __launch_bounds__(kThreads)
    epilogue_kernel(Slice<In> x, Slice<Out> y, EpilogueArguments<In> epilogue, ItemOrder order, int items) {
  constexpr int kChannels = kChannelsOf<In, Out>;
  wait_for_predecessors();
  let_successors_start();
  const int number = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (number >= items) return;
  const auto [group, column, row, image] = order.at(number);
  const int channel = group * kChannels, count = min(kChannels, y.c - channel);

  float values[1][kChannels];
  load(x.pixel(image, row, column) + channel, count, x.aligned, values[0]);
  finish(epilogue, image, row, column, 1, channel, count, values);
  store(y.pixel(image, row, column) + channel, count, y.aligned, values[0]);
}

template <typename In, typename Out>
void run(const TensorView& x, const TensorView& y, const Epilogue& epilogue, Stream stream) {
  constexpr int kChannels = kChannelsOf<In, Out>;
  const ItemOrder order((y.c + kChannels - 1) / kChannels, y.w, y.h);
  const std::int64_t items = std::int64_t{y.n} * y.h * y.w * order.groups;
  launch(kName, epilogue_kernel<In, Out>, {blocks_for(items, kThreads, kName), kThreads}, stream, slice<In>(x),
         slice<Out>(y), epilogue_arguments<In>(epilogue, y, x.type, kName), order, static_cast<int>(items));
}

}  // namespace

void launch_epilogue(const TensorView& x, const TensorView& y, const Epilogue& epilogue, Stream stream) {
  require_view(x, kName);
  require_view(y, kName);
  require(same_size(x, y), kName, "input and output of the same size");
  require(y.type == x.type || x.type == DType::F32 || y.type == DType::F32, kName,
          "input and output of one type, or one of them F32");
  with_storage_type(x.type, kName, [&](auto in) {
    using In = decltype(in);
    if (y.type == x.type)
      run<In, In>(x, y, epilogue, stream);
    else if (y.type == DType::F32)
      run<In, float>(x, y, epilogue, stream);
    else if (y.type == DType::F16)
      run<float, __half>(x, y, epilogue, stream);
    else
      run<float, __nv_bfloat16>(x, y, epilogue, stream);
  });
}

}  // namespace damoyolo::kernels
