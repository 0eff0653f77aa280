// How a GPU's ceilings are measured, on a runtime played by the host.
#include "engine/cuda/ceilings.h"

#include <doctest/doctest.h>

#include <memory>
#include <utility>
#include <vector>

#include "engine/core/error.h"
#include "tests/cuda/host_runtime.h"

using namespace damoyolo;
using namespace damoyolo::cuda;

namespace {

constexpr double kCopySeconds = 0.5;
const CeilingSizes kSizes{.copy_bytes = 1000, .pixels = 64, .channels = 16};

// Computes nothing; what is enqueued next is said to take that long.
struct TimedKernel : ConvKernel {
  TimedKernel(double& elapsed, double seconds) : elapsed(elapsed), seconds(seconds) {}
  std::string name() const override { return "timed"; }
  std::size_t workspace_bytes() const override { return 0; }
  void run(const ConvPointers&, kernels::Stream) override { elapsed = seconds; }
  double& elapsed;
  double seconds;
};

struct Trial {
  Environment environment;
  HostRuntime* runtime = nullptr;
  double elapsed = kCopySeconds;
  std::vector<ConvProblem> asked;

  Trial() {
    auto host = std::make_unique<HostRuntime>();
    runtime = host.get();
    runtime->elapsed = [this] { return elapsed; };
    environment.runtime = std::move(host);
    environment.candidates = [this](const ConvProblem& problem) {
      asked.push_back(problem);
      if (problem.type == DType::F16) throw Error("nothing computes it");
      std::vector<ConvCandidate> candidates;
      for (const double seconds : {4.0, 2.0, 8.0})
        candidates.push_back({"timed", seconds, [this, seconds](const ConvWeights&) {
                                return std::make_unique<TimedKernel>(elapsed, seconds);
                              }});
      return candidates;
    };
  }
};

}  // namespace

TEST_CASE("ceilings are the bytes and operations over the least time of copies and of products") {
  Trial trial;
  const Ceilings ceilings = measure_ceilings(trial.environment, kSizes);
  // Ten runs between two events; the fastest candidate counts.
  CHECK(ceilings.copy_bytes_per_second == doctest::Approx(2 * 1000 / (kCopySeconds / 10)));
  const double flops = 2.0 * 64 * 16 * 16 / (2.0 / 10);
  CHECK(ceilings.fp32_flops == doctest::Approx(flops));
  CHECK(ceilings.tf32_flops == doctest::Approx(flops));
  CHECK(ceilings.bf16_flops == doctest::Approx(flops));
  CHECK(ceilings.fp16_flops == 0);
  CHECK(trial.runtime->live() == 0);

  REQUIRE(trial.asked.size() == 4);
  CHECK_FALSE(trial.asked[0].allow_tf32);
  CHECK(trial.asked[1].allow_tf32);
  for (const ConvProblem& product : trial.asked) {
    CHECK(product.kernel == 1);
    CHECK(product.in.pixels() == 64);
    CHECK(product.in.c == 16);
    CHECK(product.out == product.in);
  }
}

TEST_CASE("a ceiling that does not fit into device memory is not measured") {
  Trial trial;
  trial.runtime->device_limit = 1500;
  const Ceilings ceilings = measure_ceilings(trial.environment, kSizes);
  CHECK(ceilings.copy_bytes_per_second == 0);
  CHECK(ceilings.fp32_flops == 0);
  CHECK(trial.runtime->live() == 0);
}
