#include "engine/cpu/ceilings.h"

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

#include "engine/cpu/convolution.h"
#include "engine/cpu/threads.h"
#include "engine/device.h"

namespace damoyolo::cpu {
namespace {

// Of one run, over a quarter of a second.
double least_seconds(const std::function<void()>& run) {
  using Clock = std::chrono::steady_clock;
  double least = std::numeric_limits<double>::infinity();
  for (double sum = 0; sum < 0.25;) {
    const auto begin = Clock::now();
    run();
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    least = std::min(least, seconds);
    sum += seconds;
  }
  return least;
}

// Every thread copies a part of its own.
double copy_bytes_per_second() {
  constexpr std::size_t kBytes = std::size_t{256} << 20;
  std::vector<std::byte> from(kBytes, std::byte{1}), to(kBytes);
  const double seconds = least_seconds([&] {
#pragma omp parallel
    {
      const auto threads = static_cast<std::size_t>(omp_get_num_threads());
      const auto thread = static_cast<std::size_t>(omp_get_thread_num());
      const std::size_t begin = kBytes * thread / threads, end = kBytes * (thread + 1) / threads;
      std::memcpy(to.data() + begin, from.data() + begin, end - begin);
    }
  });
  return 2 * static_cast<double>(kBytes) / seconds;
}

double flops_per_second(const ConvolutionShape& shape) {
  const auto taps = static_cast<std::size_t>(shape.kernel * shape.kernel * shape.in.c);
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const ConvWeights weights{std::vector<float>(taps * static_cast<std::size_t>(shape.out.c), 0.01f),
                            std::vector<float>(static_cast<std::size_t>(shape.out.c))};
  Convolution product(engine, shape, weights);
  // All ones in bf16, and nearly so in fp32.
  const auto elements = static_cast<std::size_t>(std::max(shape.in.elements(), shape.out.elements()));
  std::vector<std::uint16_t> from(2 * elements, 0x3f80), to(2 * elements);
  std::vector<std::byte> scratchpad(product.scratchpad_bytes());
  product.bind(engine, from.data(), to.data(), scratchpad.data());
  const double seconds = least_seconds([&] { product.run(stream); });
  return 2 * static_cast<double>(taps) * static_cast<double>(shape.out.elements()) / seconds;
}

// By the best of convolutions large enough for it: which one it is depends on caches and on what oneDNN has for them.
double product_flops(DType type) {
  constexpr struct {
    int kernel, size, channels;
  } kShapes[] = {{1, 48, 1024}, {1, 80, 256}, {3, 40, 256}, {3, 80, 128}};
  double best = 0;
  for (const auto& [kernel, size, channels] : kShapes) {
    const Shape map{1, size, size, channels};
    best =
        std::max(best, flops_per_second({.in = map, .out = map, .kernel = kernel, .in_type = type, .out_type = type}));
  }
  return best;
}

}  // namespace

Ceilings measure_ceilings(int threads) {
  const ThreadCount count(threads);
  Ceilings ceilings;
  ceilings.copy_bytes_per_second = copy_bytes_per_second();
  ceilings.fp32_flops = product_flops(DType::F32);
  if (describe_cpu().bf16) ceilings.bf16_flops = product_flops(DType::BF16);
  return ceilings;
}

}  // namespace damoyolo::cpu
