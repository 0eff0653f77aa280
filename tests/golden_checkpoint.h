// Training checkpoints whose weights are a function of their names (tests/data/goldens/README.md).
#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/build.h"
#include "gen/variants_json.h"
#include "tests/golden_generator.h"
#include "weights/recognise.h"
#include "weights/safetensors.h"

namespace damoyolo {

inline float golden_value(const ExpectedTensor& tensor, double gain, float u) {
  const auto ends_with = [&](std::string_view part) { return tensor.name.ends_with(part); };
  const auto& shape = tensor.shape;
  if (shape.size() == 4) {
    const auto fan_in = static_cast<double>(shape[1] * shape[2] * shape[3]);
    const float value = (2.f * u - 1.f) * static_cast<float>(std::sqrt(3.0 * gain / fan_in));
    const bool stem = tensor.name.starts_with("backbone.") && (shape[1] == 3 || shape[1] == 12);
    return stem ? value / 128.f : value;
  }
  if (ends_with(".weight") || ends_with(".running_var")) return 0.75f + 0.5f * u;
  if (ends_with(".running_mean")) return 0.2f * (u - 0.5f);
  if (ends_with(".bias")) return (u - 0.5f) * (gain > 1 ? 1.0f : 0.2f);
  return 1.f + 0.2f * (u - 0.5f);  // scale
}

// A training checkpoint of a released variant, as safetensors.
inline void write_golden_checkpoint(const ModelSpec& spec, const std::string& path) {
  const double gain = nlohmann::json::parse(kVariantsJson).at(spec.variant).at("golden_gain");
  std::map<std::string, std::vector<float>> values;
  Safetensors checkpoint;
  for (const ExpectedTensor& tensor : expected_tensors(build_model(spec, 1, 64, 64).sources, {})) {
    std::size_t count = 1;
    for (const std::int64_t size : tensor.shape) count *= static_cast<std::size_t>(size);
    std::vector<float>& data = values[tensor.name];
    data.resize(count);
    const std::uint64_t seed = fnv1a64(tensor.name);
    for (std::size_t i = 0; i < count; ++i) data[i] = golden_value(tensor, gain, golden_uniform(seed, i));
    checkpoint.tensors[tensor.name] = {DType::F32, tensor.shape, std::as_bytes(std::span<const float>(data))};
  }
  write_safetensors(path, checkpoint);
}

}  // namespace damoyolo
