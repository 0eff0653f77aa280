#include "engine/cuda/conv_packing.h"

#include <cuda_fp16.h>

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

std::vector<std::byte> pack_channels_last(const ConvProblem& problem, const ConvWeights& weights) {
  require_sizes(problem, weights);
  const auto channels = static_cast<std::size_t>(problem.in.c / problem.groups);
  const auto taps = static_cast<std::size_t>(problem.kernel) * problem.kernel;
  std::vector<float> values;
  values.reserve(weights.weight.size());
  for (std::size_t k = 0; k < weights.bias.size(); ++k) {
    const auto filter =
        transpose(std::span(weights.weight).subspan(k * channels * taps, channels * taps), channels, taps);
    values.insert(values.end(), filter.begin(), filter.end());
  }
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
    } else {
      const std::uint16_t bits =
          type == DType::BF16 ? bf16_from_float(values[i]) : static_cast<__half_raw>(__float2half_rn(values[i])).x;
      std::memcpy(element, &bits, sizeof bits);
    }
  }
  return bytes;
}

}  // namespace damoyolo::cuda
