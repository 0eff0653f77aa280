#include "kernels/convert.h"
#include "kernels/numeric.cuh"
#include "kernels/ptx.cuh"

namespace damoyolo::kernels {
namespace {

constexpr char kName[] = "convert";
constexpr unsigned kThreads = 256;
constexpr int kChannels = 8;  // 16 bytes on the 16-bit side, 32 on the other

// NHWC to NHWC. A thread takes eight channels of one pixel; neighbours take the next eight, so that a warp reads and
// writes whole cache lines. Floor: 6 bytes per element over memory bandwidth.
template <typename In, typename Out>
__global__ void __launch_bounds__(kThreads) convert_kernel(Slice<const In> x, Slice<Out> y, int items) {
  wait_for_predecessors();
  let_successors_start();
  const int item = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (item >= items) return;
  const int groups = (y.c + kChannels - 1) / kChannels;
  const int channel = item % groups * kChannels;
  const int pixel = item / groups;
  const int column = pixel % y.w, row = pixel / y.w % y.h, image = pixel / (y.w * y.h);
  const int count = min(kChannels, y.c - channel);

  float values[kChannels];
  load(x.pixel(image, row, column) + channel, count, x.aligned, values);
  store(y.pixel(image, row, column) + channel, count, y.aligned, values);
}

template <typename In, typename Out>
void run(const TensorView& x, const TensorView& y, Stream stream) {
  const std::int64_t items = std::int64_t{y.n} * y.h * y.w * ((y.c + kChannels - 1) / kChannels);
  launch(kName, convert_kernel<In, Out>, {blocks_for(items, kThreads, kName), kThreads}, stream, slice<const In>(x),
         slice<Out>(y), static_cast<int>(items));
}

// T is the narrower type.
template <typename T>
void convert(const TensorView& x, const TensorView& y, Stream stream) {
  if (y.type == DType::F32)
    run<T, float>(x, y, stream);
  else
    run<float, T>(x, y, stream);
}

}  // namespace

void launch_convert(const TensorView& x, const TensorView& y, Stream stream) {
  require_view(x, kName);
  require_view(y, kName);
  require(same_size(x, y), kName, "input and output of the same size");
  require((x.type == DType::F32) != (y.type == DType::F32), kName, "F32 on one side and a 16-bit type on the other");
  if (x.type == DType::F16 || y.type == DType::F16)
    convert<__half>(x, y, stream);
  else
    convert<__nv_bfloat16>(x, y, stream);
}

}  // namespace damoyolo::kernels
