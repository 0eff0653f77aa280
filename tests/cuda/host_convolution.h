// A convolution on strided views in host memory, word for word what engine/graph.h and engine/cuda/convolution.h say.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/core/error.h"
#include "engine/cuda/conv_split.h"
#include "engine/cuda/convolution.h"
#include "engine/cuda/uploaded.h"
#include "tests/simt/cuda_runtime.h"

namespace damoyolo::cuda {

class HostConvolution : public ConvKernel {
 public:
  HostConvolution(const ConvProblem& problem, const ConvWeights& weights, std::string name, std::size_t workspace)
      : problem_(problem), bias_(weights.bias), name_(std::move(name)), workspace_(workspace) {
    const auto out = static_cast<std::size_t>(problem.out.c),
               taps = static_cast<std::size_t>(problem.kernel * problem.kernel),
               row = static_cast<std::size_t>(problem.in.c / problem.groups) * taps;
    if (weights.weight.size() != out * row || bias_.size() != out)
      throw Error("a convolution on the host got {} weights and {} biases, expected {} and {}", weights.weight.size(),
                  bias_.size(), out * row, out);
    std::vector<float> packed(weights.weight.size());
    for (std::size_t c = 0; c < out; ++c)
      for (std::size_t k = 0; k < row / taps; ++k)
        for (std::size_t tap = 0; tap < taps; ++tap)
          packed[(tap * (row / taps) + k) * out + c] = weights.weight[c * row + k * taps + tap];
    weights_ = Uploaded(std::as_bytes(std::span(packed)));
    if (problem.then.c > 0)
      then_ = std::make_unique<HostConvolution>(second_of(problem),
                                                ConvWeights{weights.then_weight, weights.then_bias}, name_, 0);
    if (!problem.keep)
      middle_.resize(static_cast<std::size_t>(problem.out.pixels() * problem.out_pixel_stride) *
                     size_of(problem.out_type));
  }

  std::string name() const override { return name_; }
  std::size_t workspace_bytes() const override { return workspace_; }

  void run(const ConvPointers& given, kernels::Stream stream) override {
    simt::after_kernel.insert(stream.handle);
    const ConvProblem& p = problem_;
    ConvPointers pointers = given;
    if (!p.keep) {
      if (given.out != nullptr) throw Error("a convolution on the host got a place for what it does not keep");
      pointers.out = middle_.data();
    }
    if (workspace_ > 0) std::memset(pointers.workspace, 0xff, workspace_);  // it is ours alone
    std::vector<float> sums(static_cast<std::size_t>(p.out.c));
    for (int n = 0; n < p.out.n; ++n)
      for (int y = 0; y < p.out.h; ++y)
        for (int x = 0; x < p.out.w; ++x) {
          pixel(pointers, n, y, x, sums);
          for (int c = 0; c < p.out.c; ++c) {
            float sum = sums[static_cast<std::size_t>(c)] + bias_[static_cast<std::size_t>(c)];
            const float residual = residual_at(pointers, n, y, x, c);
            if (p.residual_first) sum += residual;
            sum = activated(sum, problem_.act);
            if (!p.residual_first) sum += residual;
            store(pointers.out, ((std::int64_t{n} * p.out.h + y) * p.out.w + x) * p.out_pixel_stride + c, p.out_type,
                  sum);
          }
        }
    if (then_ != nullptr) then_->run({pointers.out, pointers.then_out}, stream);
  }

 private:
  void pixel(const ConvPointers& pointers, int n, int y, int x, std::vector<float>& sums) const {
    const ConvProblem& p = problem_;
    const int per_group = p.in.c / p.groups;
    std::fill(sums.begin(), sums.end(), 0.f);
    for (int i = 0; i < p.kernel; ++i)
      for (int j = 0; j < p.kernel; ++j) {
        const int row = y * p.stride + i - (p.kernel - 1) / 2, column = x * p.stride + j - (p.kernel - 1) / 2;
        if (row < 0 || row >= p.in.h || column < 0 || column >= p.in.w) continue;
        const std::int64_t at = ((std::int64_t{n} * p.in.h + row) * p.in.w + column) * p.in_pixel_stride;
        for (int k = 0; k < per_group; ++k) {
          const float* weights =
              static_cast<const float*>(weights_.data()) + ((i * p.kernel + j) * per_group + k) * p.out.c;
          if (p.groups == 1) {
            add_scaled(weights, load(pointers.in, at + k, p.type), sums);
            continue;
          }
          for (std::size_t c = 0; c < sums.size(); ++c)
            sums[c] += weights[c] * load(pointers.in, at + static_cast<std::int64_t>(c), p.type);
        }
      }
  }

  // Without the sanitizers, because tests spend much of their time here.
  __attribute__((no_sanitize("address", "undefined"))) static void add_scaled(const float* weights, float scale,
                                                                              std::vector<float>& sums) {
    float* const to = sums.data();
    const std::size_t count = sums.size();
    for (std::size_t c = 0; c < count; ++c) to[c] += weights[c] * scale;
  }

  float residual_at(const ConvPointers& pointers, int n, int y, int x, int c) const {
    const ConvProblem& p = problem_;
    if (p.residual == ConvProblem::Residual::None) return 0;
    const int scale = p.residual == ConvProblem::Residual::Half ? 2 : 1;
    const std::int64_t at = (std::int64_t{n} * (p.out.h / scale) + y / scale) * (p.out.w / scale) + x / scale;
    return load(pointers.residual, at * p.residual_pixel_stride + c, p.type);
  }

  static float load(const void* data, std::int64_t index, DType type) {
    return element_as_float(static_cast<const std::byte*>(data) + static_cast<std::size_t>(index) * size_of(type),
                            type);
  }
  static void store(void* data, std::int64_t index, DType type, float value) {
    if (type == DType::F32)
      static_cast<float*>(data)[index] = value;
    else
      static_cast<std::uint16_t*>(data)[index] = bf16_from_float(value);
  }

  ConvProblem problem_;
  Uploaded weights_;  // float [tap, in/groups, out]
  std::vector<float> bias_;
  std::string name_;
  std::size_t workspace_;
  std::unique_ptr<HostConvolution> then_;  // of a pair
  std::vector<std::byte> middle_;          // what is between them, where nobody else wants it
};

// Types F32 and BF16.
inline std::vector<ConvCandidate> host_candidates(const ConvProblem& problem) {
  return {{"host", 1, [problem](const ConvWeights& weights) -> std::unique_ptr<ConvKernel> {
             return std::make_unique<HostConvolution>(problem, weights, "host", 64);
           }}};
}

}  // namespace damoyolo::cuda
