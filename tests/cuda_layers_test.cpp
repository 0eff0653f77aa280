// Every layer of the table on a GPU, by the kernels that a plan would try first, and every configuration of our own
// kernels on layers of a few kinds. What faults costs its case alone: there is one for each tile of our own kernels,
// and for each variant's layers by the libraries'.
#ifdef DAMOYOLO_CUDA

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bench/layers/layer_check.h"
#include "bench/layers/layer_table.h"
#include "engine/core/error.h"
#include "engine/cuda/backend.h"
#include "engine/cuda/device_runtime.h"
#include "engine/cuda/library.h"
#include "engine/cuda/own_convolution.h"
#include "engine/model/spec.h"
#include "tests/case_for_each.h"
#include "tests/compare.h"
#include "tests/conv_tiles.h"
#include "tests/skip.h"
#include "tests/wrong_elements.h"

using namespace damoyolo;
using namespace damoyolo::cuda;

namespace {

struct Device {
  std::unique_ptr<Runtime> runtime = open_runtime(0);
  Owned<CUstream_st> stream = make_stream(*runtime);
  Libraries libraries = open_libraries();
};

// Opened by the first case that needs it, and left to the process's end: the driver may be gone before.
Device& gpu() {
  static Device* const device = new Device;
  return *device;
}

// A problem with what cases have found out of its result: some pixels by the host, all by the first kernel that
// computed it.
struct Known {
  ConvProblem problem;
  std::optional<LayerCheck> check = {};
  std::string first_name = {};
  std::vector<float> first = {};
};

// Left to the process's end, as the device is, whose memory they hold.
std::vector<Known>& known(const std::vector<ConvProblem>& problems) {
  auto* const all = new std::vector<Known>;
  for (const ConvProblem& problem : problems) all->push_back({problem});
  return *all;
}

std::vector<float> floats(const std::vector<std::byte>& bytes, DType type) {
  std::vector<float> values(bytes.size() / size_of(type));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = element_as_float(bytes.data() + i * size_of(type), type);
  return values;
}

// In words, results that are too far apart on the whole. Kernels of 16-bit factors may differ by about `rounding` of
// an element, or of one.
std::string describe_difference(const Compared& compared, const std::vector<float>& got,
                                const std::vector<float>& expected, double rounding = 0x1p-7) {
  const std::vector<double> exact(expected.begin(), expected.end());
  std::vector<double> bounds;
  for (const double value : exact) bounds.push_back(rounding * std::max(1.0, std::abs(value)));
  return describe_wrong(compared, got, exact, bounds);
}

// Each candidate is right where the host has looked, agrees with the first everywhere, and repeats itself. Libraries
// may refuse some when they are made; `most` others have their turn.
enum class Refusals : std::uint8_t { None, Some };
void check_candidates(Known& layer, const std::vector<ConvCandidate>& candidates, Refusals refusals,
                      std::size_t most = ~std::size_t{0}) {
  if (candidates.empty()) return;
  const ConvProblem& problem = layer.problem;
  const std::string what = describe(problem) + ", batch " + std::to_string(problem.in.n) + ", " +
                           std::string(name_of(problem.type)) + " to " + std::string(name_of(problem.out_type));
  CAPTURE(what);
  constexpr int kPixels = 128;  // by the host
  if (!layer.check) layer.check.emplace(*gpu().runtime, gpu().stream.get(), problem, kPixels);
  LayerCheck& check = *layer.check;
  // Elements of the whole output; those of a pair, which are of two tensors, by their number.
  const Compared all = problem.then.c == 0
                           ? Compared{problem.out.h, problem.out.w, problem.out_pixel_stride}
                           : Compared{1, static_cast<int>(check.output().size() / size_of(problem.out_type)), 1};
  std::size_t computed = 0;
  for (const ConvCandidate& candidate : candidates) {
    if (computed == most) break;
    CAPTURE(candidate.name);
    std::unique_ptr<ConvKernel> kernel;
    try {
      kernel = candidate.make(check.weights());
    } catch (const Error& error) {
      if (refusals == Refusals::None) FAIL_CHECK(error.what());
      continue;
    }
    ++computed;
    CHECK(kernel->name() == candidate.name);
    const double error = check.relative_error(*kernel);
    if (!(error < kLayerTolerance)) {
      FAIL_CHECK("relative error ", error, " where the host has looked: ",
                 describe_difference({problem.out.h, problem.out.w, check.channels(), check.pixels()}, check.found(),
                                     check.expected()));
      continue;
    }
    const std::vector<std::byte> output = check.output();
    check.relative_error(*kernel);
    const std::vector<float> values = floats(output, problem.out_type);
    if (const auto again = check.output(); again != output)
      FAIL_CHECK("other bytes the second time: ",
                 describe_difference(all, floats(again, problem.out_type), values, 0));
    if (layer.first.empty()) {
      layer.first = values;
      layer.first_name = candidate.name;
    }
    const double difference = relative_difference(layer.first, values);
    if (!(difference < 2 * kLayerTolerance))
      FAIL_CHECK("relative difference ", difference, " from ", layer.first_name, ": ",
                 describe_difference(all, values, layer.first));
  }
  CHECK(computed > 0);
}

// A tile of the kernel of one generation.
struct OwnTile {
  const OwnKernel* kernel;
  kernels::ConvTile tile;

  std::string name() const { return std::string(kernel->name) + " " + tile.name(); }

  bool runs_here() const {
    if (runs_on(kernel->generation, gpu().libraries.device)) return true;
    test::skip("this GPU does not run it");
    return false;
  }

  // Of the `most` convolutions of each kernel that are best by prediction, those of this tile.
  std::vector<ConvCandidate> candidates(const ConvProblem& problem, std::size_t most) const {
    std::vector<ConvCandidate> candidates;
    for (const OwnConvolution& one : own_convolutions(problem, gpu().libraries.device, own_kernels(), most))
      if (one.kernel == kernel && tile.holds(one.config))
        candidates.push_back(
            {own_name(*kernel, one.config), one.predicted_seconds, [problem, one](const ConvWeights& weights) {
               return make_own_kernel(problem, *one.kernel, one.config, weights);
             }});
    return candidates;
  }
};

std::vector<OwnTile> own_tiles() {
  std::vector<OwnTile> tiles;
  for (const OwnKernel& kernel : own_kernels())
    for (const bool pairs : {false, true})
      for (const kernels::ConvTile& tile : kernels::conv_tiles(kernel.configs(), pairs))
        tiles.push_back({&kernel, tile});
  return tiles;
}

// Every type and batch size is met by some layers of every kind.
std::vector<ConvProblem> problems_of_layers() {
  std::vector<ConvProblem> problems;
  for (const Layer& layer : read_layers()) {
    const std::size_t number = problems.size();
    problems.push_back(
        with_type(with_batch(layer.problem, number % 8 == 5 ? 3 : 1), number % 4 == 3 ? DType::F16 : DType::BF16));
  }
  return problems;
}

// One of each kind: 1×1 and 3×3, stride 1 and 2, with and without residuals, 16-bit and fp32 output; of pairs, with so
// many channels of both, and the first one's stored or not.
std::vector<ConvProblem> kinds_of_layers() {
  std::vector<ConvProblem> kinds;
  for (const Layer& layer : read_layers()) {
    const ConvProblem& p = layer.problem;
    const auto same_kind = [&](const ConvProblem& other) {
      return p.kernel == other.kernel && p.stride == other.stride && p.residual == other.residual &&
             p.out_type == other.out_type && p.then == other.then && p.keep == other.keep &&
             (p.then.c == 0 || p.out.c == other.out.c);
    };
    if ((p.out.h <= 40 || p.then.c > 0) && std::ranges::none_of(kinds, same_kind)) kinds.push_back(p);
  }
  return kinds;
}

}  // namespace

TEST_CASE_FOR_EACH(const OwnTile& one, own_tiles(),
                   "gpu: our own " + one.name() + " computes layers of a few kinds in every configuration") {
  SKIP_WITHOUT_GPU("runs layers on it");
  if (!one.runs_here()) return;
  static std::vector<Known>& kinds = known(kinds_of_layers());
  CHECK(kinds.size() >= 6);
  // There are thousands of pairs; each configuration takes the first few kinds that it fits.
  constexpr int kKindsForEach = 3;
  std::map<std::string, int> taken;
  for (Known& kind : kinds) {
    std::vector<ConvCandidate> candidates = one.candidates(kind.problem, ~std::size_t{0});
    std::erase_if(candidates, [&](const ConvCandidate& one) { return ++taken[one.name] > kKindsForEach; });
    check_candidates(kind, candidates, Refusals::None);
  }
  CHECK_FALSE(taken.empty());
}

TEST_CASE_FOR_EACH(const OwnTile& one, own_tiles(),
                   "gpu: our own " + one.name() + " computes the layers it is best for") {
  SKIP_WITHOUT_GPU("runs layers on it");
  if (!one.runs_here()) return;
  static std::vector<Known>& layers = known(problems_of_layers());
  constexpr std::size_t kBest = 6;  // of each kernel, for a layer; between them, every layer is computed
  bool is_best = false;
  for (Known& layer : layers) {
    const std::vector<ConvCandidate> candidates = one.candidates(layer.problem, kBest);
    check_candidates(layer, candidates, Refusals::None);
    is_best = is_best || !candidates.empty();
  }
  if (!is_best) test::skip("by prediction it is best for none");
}

// Each layer once, with the first variant that has it.
TEST_CASE_FOR_EACH(const ModelSpec& spec, released_variants(),
                   "gpu: the libraries' kernels compute the layers of " + spec.variant) {
  SKIP_WITHOUT_GPU("runs the layers on it");
  if (gpu().libraries.cudnn == nullptr) return test::skip("there is no cuDNN");
  for (const Layer& layer : read_layers()) {
    const auto first = std::ranges::find_if(
        released_variants(), [&](const ModelSpec& other) { return layer.count.contains(other.variant); });
    if (first == released_variants().end() || first->variant != spec.variant) continue;
    std::vector<ConvCandidate> candidates = conv_candidates(layer.problem, gpu().libraries, KernelSource::Library);
    std::erase_if(candidates, [](const ConvCandidate& candidate) { return candidate.compiled; });
    constexpr std::size_t kTried = 3;  // the ones that a plan would try first
    Known known{layer.problem};
    check_candidates(known, candidates, Refusals::Some, kTried);
  }
}

#endif
