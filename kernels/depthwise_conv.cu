#include "kernels/depthwise_conv.h"
#include "kernels/divisor.cuh"
#include "kernels/epilogue.cuh"
#include "kernels/ptx.cuh"

namespace damoyolo::kernels {
namespace {

constexpr char kName[] = "depthwise_conv";
constexpr unsigned kThreads = 128;
constexpr int kColumns = 4;  // neighbouring outputs of a row that one thread makes

// NHWC. A thread makes kColumns outputs of one row for C channels, so that each input it loads serves up to kColumns
// outputs; neighbouring threads take neighbouring channels and read whole cache lines. The rows that outputs share
// come from L1 and L2. C is what fits into 16 bytes where everything is aligned to that, else 1. Sums in fp32, taps
// row by row. Floor: x and y once each over memory bandwidth; the arithmetic (K² multiply-adds per element) is far
// below the fp32 rate. Four blocks at a time per multiprocessor leave a thread the registers it needs.
template <typename T, int K, int S, int C>
__global__ void __launch_bounds__(kThreads, 4)
    depthwise_conv_kernel(Slice<const T> x, const T* weights, Slice<T> y, EpilogueArguments<T> epilogue,
                          ItemOrder order, int items) {
  constexpr bool kAligned = C > 1;
  constexpr int kInputs = (kColumns - 1) * S + K;  // columns of x under the outputs
  wait_for_predecessors();
  let_successors_start();
  const int number = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (number >= items) return;
  const auto [group, strip, row, image] = order.at(number);
  const int channel = group * C, first_column = strip * kColumns;

  float sums[kColumns][C] = {};
#pragma unroll 1
  for (int ky = 0; ky < K; ++ky) {
    const int input_row = row * S + ky - K / 2;
    if (input_row < 0 || input_row >= x.h) continue;
    float taps[K][C];
#pragma unroll
    for (int kx = 0; kx < K; ++kx)
      load(weights + static_cast<std::size_t>(ky * K + kx) * y.c + channel, C, kAligned, taps[kx]);
#pragma unroll
    for (int i = 0; i < kInputs; ++i) {
      const int input_column = first_column * S + i - K / 2;
      if (input_column < 0 || input_column >= x.w) continue;
      float values[C];
      load(x.pixel(image, input_row, input_column) + channel, C, kAligned, values);
#pragma unroll
      for (int column = 0; column < kColumns; ++column) {
        const int kx = i - column * S;
        if (kx < 0 || kx >= K) continue;
#pragma unroll
        for (int k = 0; k < C; ++k) sums[column][k] += values[k] * taps[kx][k];
      }
    }
  }
  const int columns = y.w - first_column;
  finish(epilogue, image, row, first_column, columns, channel, C, sums);
#pragma unroll
  for (int column = 0; column < kColumns; ++column)
    if (column < columns) store(y.pixel(image, row, first_column + column) + channel, C, kAligned, sums[column]);
}

template <typename T, int K, int S>
void run(const TensorView& x, const void* weights, const TensorView& y, const Epilogue& epilogue, Stream stream) {
  const Slice<const T> input = slice<const T>(x);
  const Slice<T> output = slice<T>(y);
  const bool aligned = input.aligned && output.aligned && is_aligned(weights) && y.c % kGroup<T> == 0;
  const ItemOrder order(aligned ? y.c / kGroup<T> : y.c, (y.w + kColumns - 1) / kColumns, y.h);
  const std::int64_t items = std::int64_t{y.n} * y.h * order.columns * order.groups;
  const auto kernel = aligned ? depthwise_conv_kernel<T, K, S, kGroup<T>> : depthwise_conv_kernel<T, K, S, 1>;
  launch(kName, kernel, {blocks_for(items, kThreads, kName), kThreads}, stream, input, static_cast<const T*>(weights),
         output, epilogue_arguments<T>(epilogue, y, x.type, kName), order, static_cast<int>(items));
}

}  // namespace

void launch_depthwise_conv(const TensorView& x, const void* weights, int kernel, int stride, const TensorView& y,
                           const Epilogue& epilogue, Stream stream) {
  require_view(x, kName);
  require_view(y, kName);
  require(weights != nullptr, kName, "weights");
  require(kernel == 3 || kernel == 5, kName, "a kernel of 3 or 5");
  require(stride == 1 || stride == 2, kName, "a stride of 1 or 2");
  require(x.type == y.type, kName, "input and output of one type");
  require(y.n == x.n && y.c == x.c && y.h == (x.h + stride - 1) / stride && y.w == (x.w + stride - 1) / stride, kName,
          "an output of the input's size over the stride");
  with_storage_type(x.type, kName, [&](auto element) {
    using T = decltype(element);
    if (kernel == 3 && stride == 1) run<T, 3, 1>(x, weights, y, epilogue, stream);
    if (kernel == 3 && stride == 2) run<T, 3, 2>(x, weights, y, epilogue, stream);
    if (kernel == 5 && stride == 1) run<T, 5, 1>(x, weights, y, epilogue, stream);
    if (kernel == 5 && stride == 2) run<T, 5, 2>(x, weights, y, epilogue, stream);
  });
}

}  // namespace damoyolo::kernels
