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

// A matrix product as the network has them: a convolution of 1×1.
double product_flops(DType type) {
  constexpr int kSize = 1024, kPixels = 2048;
  const ConvolutionShape shape{
      .in = {1, kPixels / 32, 32, kSize}, .out = {1, kPixels / 32, 32, kSize}, .in_type = type, .out_type = type};
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const ConvWeights weights{std::vector<float>(std::size_t{kSize} * kSize, 0.01f), std::vector<float>(kSize)};
  Convolution product(engine, shape, weights);
  // All ones in bf16, and nearly so in fp32.
  std::vector<std::uint16_t> from(std::size_t{2} * kPixels * kSize, 0x3f80), to(from.size());
  std::vector<std::byte> scratchpad(product.scratchpad_bytes());
  product.bind(engine, from.data(), to.data(), scratchpad.data());
  const double seconds = least_seconds([&] { product.run(stream); });
  return 2.0 * kPixels * kSize * kSize / seconds;
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
