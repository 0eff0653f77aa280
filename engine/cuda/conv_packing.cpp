#include "engine/cuda/conv_packing.h"

#include <cuda_fp16.h>

#include <algorithm>
#include <cstring>

#include "engine/core/error.h"

namespace damoyolo::cuda {
namespace {

// values[a][b] → result[b][a].
std::vector<float> transpose(std::span<const float> values, std::size_t rows, std::size_t columns) {
  std::vector<float> result(values.size());
  for (std::size_t row = 0; row < rows; ++row)
    for (std::size_t column = 0; column < columns; ++column)
      result[column * rows + row] = values[row * columns + column];
  return result;
}

void require_sizes(const ConvProblem& problem, const ConvWeights& weights) {
  const auto out = static_cast<std::size_t>(problem.out.c);
  const auto per_output = static_cast<std::size_t>(problem.in.c / problem.groups) * problem.kernel * problem.kernel;
  if (weights.weight.size() != out * per_output || weights.bias.size() != out)
    throw Error("a convolution of {} outputs with {} weights each was given {} weights and {} biases", out, per_output,
                weights.weight.size(), weights.bias.size());
}

}  // namespace

std::vector<std::byte> pack_channels_last(const ConvProblem& problem, const ConvWeights& weights, int channels) {
  require_sizes(problem, weights);
  const auto given = static_cast<std::size_t>(problem.in.c / problem.groups);
  const auto packed = std::max(given, static_cast<std::size_t>(channels));
  const auto taps = static_cast<std::size_t>(problem.kernel) * problem.kernel;
  std::vector<float> values(weights.bias.size() * taps * packed, 0.f);
  for (std::size_t k = 0; k < weights.bias.size(); ++k)
    for (std::size_t channel = 0; channel < given; ++channel)
      for (std::size_t tap = 0; tap < taps; ++tap)
        values[(k * taps + tap) * packed + channel] = weights.weight[(k * given + channel) * taps + tap];
  return pack_as(problem.type, values);
}

std::vector<std::byte> pack_taps(const ConvProblem& problem, const ConvWeights& weights) {
  require_sizes(problem, weights);
  const auto taps = static_cast<std::size_t>(problem.kernel) * problem.kernel;
  return pack_as(problem.type, transpose(weights.weight, weights.bias.size(), taps));
}

std::vector<std::byte> pack_as(DType type, std::span<const float> values) {
  std::vector<std::byte> bytes(values.size() * size_of(type));
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::byte* element = bytes.data() + i * size_of(type);
    if (type == DType::F32) {
      std::memcpy(element, &values[i], sizeof(float));
    } else if (type == DType::BF16) {
      const std::uint16_t bits = bf16_from_float(values[i]);
      std::memcpy(element, &bits, sizeof bits);
    } else {
      const __half half = __float2half_rn(values[i]);
      std::memcpy(element, &half, sizeof half);
    }
  }
  return bytes;
}

}  // namespace damoyolo::cuda
