#include "engine/cuda/ceilings.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "engine/cuda/conv_timing.h"
#include "engine/cuda/timing.h"
#include "engine/profile.h"

namespace damoyolo::cuda {
namespace {

double copy_bytes_per_second(Runtime& runtime, StreamHandle stream, std::size_t bytes) {
  constexpr std::size_t kCopies = 10;
  const Owned<std::byte> from = device_memory(runtime, bytes), to = device_memory(runtime, bytes);
  const std::vector<std::uint8_t> pattern = noise(std::min(bytes, std::size_t{16} << 20));
  for (std::size_t at = 0; at < bytes; at += pattern.size())
    runtime.copy(from.get() + at, pattern.data(), std::min(pattern.size(), bytes - at), stream);
  const double seconds =
      least_seconds(runtime, stream, kCopies, [&](std::size_t) { runtime.copy(to.get(), from.get(), bytes, stream); });
  return 2 * static_cast<double>(bytes) / seconds;
}

// A matrix product as the network has them: a convolution of 1×1, by the fastest kernel there is for it.
double product_flops(Environment& environment, StreamHandle stream, DType type, bool allow_tf32,
                     const ConvWeights& weights, const CeilingSizes& sizes) {
  constexpr std::size_t kTried = 4;  // the best ones by prediction
  ConvProblem product;
  product.in = product.out = {1, sizes.pixels / 64, 64, sizes.channels};
  product.in_pixel_stride = product.out_pixel_stride = sizes.channels;
  product.type = product.out_type = type;
  product.allow_tf32 = allow_tf32;
  std::vector<ConvCandidate> candidates = environment.candidates(product);
  candidates.resize(std::min(candidates.size(), kTried));
  double most = 0;
  for (const CandidateTime& time : time_candidates(*environment.runtime, stream, product, candidates, weights))
    if (time.error.empty())
      most = std::max(most, 2.0 * static_cast<double>(product.out.elements()) * sizes.channels / time.seconds);
  return most;
}

// What cannot be measured here stays 0.
template <typename Measure>
double or_none(const Measure& measure) {
  try {
    return measure();
  } catch (const Error&) {
    return 0;
  }
}

}  // namespace

Ceilings measure_ceilings(Environment& environment, const CeilingSizes& sizes) {
  environment.runtime->make_current();
  const Owned<CUstream_st> stream = make_stream(*environment.runtime);
  const auto channels = static_cast<std::size_t>(sizes.channels);
  ConvWeights weights{std::vector<float>(channels * channels), std::vector<float>(channels)};
  std::minstd_rand bits(1);
  for (float& weight : weights.weight) weight = static_cast<float>(bits()) / static_cast<float>(bits.max()) - 0.5f;
  const auto product = [&](DType type, bool allow_tf32) {
    return or_none([&] { return product_flops(environment, stream.get(), type, allow_tf32, weights, sizes); });
  };
  Ceilings ceilings;
  ceilings.copy_bytes_per_second =
      or_none([&] { return copy_bytes_per_second(*environment.runtime, stream.get(), sizes.copy_bytes); });
  ceilings.fp32_flops = product(DType::F32, false);
  ceilings.tf32_flops = product(DType::F32, true);
  ceilings.bf16_flops = product(DType::BF16, false);
  ceilings.fp16_flops = product(DType::F16, false);
  return ceilings;
}

}  // namespace damoyolo::cuda
