// Every layer of the table on a GPU, by every kernel that computes it.
#ifdef DAMOYOLO_CUDA

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bench/layers/layer_check.h"
#include "bench/layers/layer_table.h"
#include "engine/core/error.h"
#include "engine/cuda/backend.h"
#include "engine/cuda/device_runtime.h"
#include "engine/cuda/library.h"
#include "tests/compare.h"
#include "tests/skip.h"

using namespace damoyolo;
using namespace damoyolo::cuda;

namespace {

std::vector<float> floats(const std::vector<std::byte>& bytes, DType type) {
  std::vector<float> values(bytes.size() / size_of(type));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = element_as_float(bytes.data() + i * size_of(type), type);
  return values;
}

// Each candidate is right where the host has looked, agrees with the others everywhere, and repeats itself. Libraries
// may refuse one when it is made.
void check_candidates(Runtime& runtime, StreamHandle stream, const ConvProblem& problem,
                      const std::vector<ConvCandidate>& candidates, bool may_refuse = false) {
  LayerCheck check(runtime, stream, problem);
  std::vector<float> first;
  for (const ConvCandidate& candidate : candidates) {
    CAPTURE(candidate.name);
    std::unique_ptr<ConvKernel> kernel;
    try {
      kernel = candidate.make(check.weights());
    } catch (const Error&) {
      CHECK(may_refuse);
      continue;
    }
    CHECK(kernel->name() == candidate.name);
    CHECK(check.relative_error(*kernel) < kLayerTolerance);
    const std::vector<std::byte> output = check.output();
    check.relative_error(*kernel);
    CHECK(check.output() == output);
    const std::vector<float> values = floats(output, problem.out_type);
    if (first.empty()) first = values;
    CHECK(relative_difference(first, values) < 2 * kLayerTolerance);
  }
}

struct Device {
  std::unique_ptr<Runtime> runtime = open_runtime(0);
  Owned<CUstream_st> stream = make_stream(*runtime);
  Libraries libraries = open_libraries();
};

}  // namespace

TEST_CASE("gpu: our own kernels compute every layer, and repeat themselves") {
  SKIP_WITHOUT_GPU("runs the layers of all variants on it");
  Device gpu;
  if (gpu.libraries.device.compute_capability < 80) return test::skip("our own kernels need 8.0 or later");
  int number = 0;
  for (const Layer& layer : read_layers()) {
    // Every type and batch size is met by some layers of every kind.
    const DType type = number % 4 == 3 ? DType::F16 : DType::BF16;
    const ConvProblem problem = with_type(with_batch(layer.problem, number % 8 == 5 ? 3 : 1), type);
    ++number;
    CAPTURE(describe(problem));
    check_candidates(*gpu.runtime, gpu.stream.get(), problem,
                     conv_candidates(problem, gpu.libraries, KernelSource::Own));
  }
}

TEST_CASE("gpu: every configuration of our own kernels computes the layers that it takes") {
  SKIP_WITHOUT_GPU("runs all configurations on it");
  Device gpu;
  if (gpu.libraries.device.compute_capability < 80) return test::skip("our own kernels need 8.0 or later");
  const std::vector<Layer> layers = read_layers();
  // One of each kind: 1×1 and 3×3, stride 1 and 2, with and without residuals, 16-bit and fp32 output.
  std::vector<ConvProblem> kinds;
  for (const Layer& layer : layers) {
    const ConvProblem& p = layer.problem;
    const auto same_kind = [&](const ConvProblem& other) {
      return p.kernel == other.kernel && p.stride == other.stride && p.residual == other.residual &&
             p.out_type == other.out_type;
    };
    if (p.out.h <= 40 && std::ranges::none_of(kinds, same_kind)) kinds.push_back(p);
  }
  CHECK(kinds.size() >= 6);
  // There are thousands of pairs; each configuration takes the first few kinds that it fits.
  constexpr int kKindsForEach = 3;
  std::map<std::string, int> taken;
  for (const ConvProblem& problem : kinds) {
    CAPTURE(describe(problem));
    std::vector<ConvCandidate> candidates = own_candidates(problem, gpu.libraries.device);
    std::erase_if(candidates, [&](const ConvCandidate& one) { return ++taken[one.name] > kKindsForEach; });
    check_candidates(*gpu.runtime, gpu.stream.get(), problem, candidates);
  }
}

TEST_CASE("gpu: the libraries' kernels compute every layer") {
  SKIP_WITHOUT_GPU("runs the layers of all variants on it");
  Device gpu;
  if (gpu.libraries.cudnn == nullptr) return test::skip("there is no cuDNN");
  for (const Layer& layer : read_layers()) {
    CAPTURE(describe(layer.problem));
    std::vector<ConvCandidate> candidates = conv_candidates(layer.problem, gpu.libraries, KernelSource::Library);
    std::erase_if(candidates, [](const ConvCandidate& candidate) { return candidate.compiled; });
    constexpr std::size_t kTried = 3;  // the ones that a plan would try first
    candidates.resize(std::min(candidates.size(), kTried));
    check_candidates(*gpu.runtime, gpu.stream.get(), layer.problem, candidates, true);
  }
}

#endif
