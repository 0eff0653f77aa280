// Numbers for the tensors of convolutions, the same in every run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/conv_weights.h"
#include "engine/core/dtype.h"
#include "engine/cuda/convolution.h"
#include "tests/golden_generator.h"

namespace damoyolo::cuda {

// In [−1, 1).
inline std::vector<float> values(std::string_view name, std::size_t count) {
  std::vector<float> result;
  for (std::size_t i = 0; i < count; ++i) result.push_back(2 * golden_uniform(fnv1a64(name), i) - 1);
  return result;
}

// Of one group.
inline ConvWeights weights_for(const ConvProblem& problem) {
  return {values("weights", static_cast<std::size_t>(problem.out.c * problem.in.c * problem.kernel * problem.kernel)),
          values("bias", static_cast<std::size_t>(problem.out.c)),
          values("weights behind", static_cast<std::size_t>(problem.then.c * problem.out.c)),
          values("bias behind", static_cast<std::size_t>(problem.then.c))};
}

inline std::vector<std::uint16_t> bf16(const std::vector<float>& values) {
  std::vector<std::uint16_t> result;
  for (const float value : values) result.push_back(bf16_from_float(value));
  return result;
}

}  // namespace damoyolo::cuda
