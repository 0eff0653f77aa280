// Folded weights for a graph without a checkpoint: uniform, scaled so that activations neither die out nor explode.
#pragma once

#include <cmath>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/conv_weights.h"
#include "engine/model/build.h"
#include "tests/golden_generator.h"

namespace damoyolo {

class RandomWeights {
 public:
  explicit RandomWeights(const std::vector<ConvSource>& sources) {
    for (const ConvSource& source : sources) {
      const std::int64_t out = source.out, in = source.in_per_group, kernel = source.kernel;
      const float pixels = source.node == "backbone.0" ? 128.f : 1.f;  // the stem reads 0..255
      const float scale = std::sqrt(4.5f / static_cast<float>(in * kernel * kernel)) / pixels;
      fill(source.node + ".weight", {out, in, kernel, kernel}, scale);
      fill(source.node + ".bias", {out}, 0.5f);
    }
  }
  RandomWeights(const RandomWeights&) = delete;
  RandomWeights& operator=(const RandomWeights&) = delete;

  TensorLookup lookup() const {
    return [this](std::string_view name) -> const TensorView& { return views_.at(std::string(name)); };
  }

 private:
  void fill(const std::string& name, std::vector<std::int64_t> shape, float scale) {
    std::size_t count = 1;
    for (const std::int64_t size : shape) count *= static_cast<std::size_t>(size);
    std::vector<float>& values = values_[name];
    values.resize(count);
    const std::uint64_t seed = fnv1a64(name);
    for (std::size_t i = 0; i < count; ++i) values[i] = scale * (2.f * golden_uniform(seed, i) - 1.f);
    views_[name] = {DType::F32, std::move(shape), std::as_bytes(std::span<const float>(values))};
  }

  std::map<std::string, std::vector<float>> values_;
  std::map<std::string, TensorView> views_;
};

}  // namespace damoyolo
