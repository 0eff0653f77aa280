// How candidates are asked for.
#include "engine/cuda/kernel_choice.h"

#include <doctest/doctest.h>

#include "engine/core/error.h"
#include "engine/cuda/conv_split.h"
#include "tests/conv_problems.h"
#include "tests/cuda/host_convolution.h"
#include "tests/cuda/test_values.h"

using namespace damoyolo;
using namespace damoyolo::cuda;

namespace {

struct Nothing : ConvKernel {
  std::string name() const override { return "nothing"; }
  std::size_t workspace_bytes() const override { return 0; }
  void run(const ConvPointers&, kernels::Stream) override {}
};

}  // namespace

TEST_CASE("candidates are asked for once for each problem") {
  int asked = 0;
  const CandidateSource source = remembered([&](const ConvProblem& problem) {
    ++asked;
    if (problem.kernel == 5) throw Error("nobody computes this");
    return std::vector<ConvCandidate>{{std::to_string(problem.kernel), 1, {}}};
  });
  ConvProblem three, one;
  three.kernel = 3;
  for (int i = 0; i < 3; ++i) {
    CHECK(source(three).front().name == "3");
    CHECK(source(one).front().name == "1");
  }
  CHECK(asked == 2);

  ConvProblem five;
  five.kernel = 5;
  CHECK_THROWS_WITH_AS(candidates_for("neck.p3", source, five),
                       "no kernel can compute the convolution neck.p3: nobody computes this", Error);
  CHECK(candidates_for("neck.p3", source, three).front().name == "3");
}

TEST_CASE("by prediction a pair is taken where it is faster than its two, and both are ours") {
  struct Named : Nothing {
    explicit Named(std::string name) : own_name(std::move(name)) {}
    std::string name() const override { return own_name; }
    std::string own_name;
  };
  // The kernel of a pair, "" where there is none.
  const auto taken = [](const std::string& first, const std::string& second, double seconds, bool broken = false) {
    ConvPair pair;
    pair.name = "a + b";
    pair.problem.kernel = 3;
    pair.problem.then.c = 8;
    Named one(first), other(second);
    pair.alone = {&one, &other};
    const auto kernel = predicted_pair(pair, [&](const ConvProblem& problem) {
      const auto candidate = [&](const std::string& name, double time, bool fails = false) {
        return ConvCandidate{name, time, [=](const ConvWeights&) -> std::unique_ptr<ConvKernel> {
                               if (fails) throw Error("not here");
                               return std::make_unique<Named>(name);
                             }};
      };
      if (problem.then.c > 0)
        return std::vector{candidate("own:both", seconds, broken), candidate("own:others", seconds + 1)};
      return std::vector{candidate("own:better", 1), candidate(problem.kernel == 3 ? first : second, 2)};
    });
    return kernel == nullptr ? "" : kernel->name();
  };
  CHECK(taken("own:x", "own:y", 3.5) == "own:both");
  CHECK(taken("own:x", "own:y", 4.5) == "");
  CHECK(taken("own:x", "own:y", 2.5, true) == "own:others");
  CHECK(taken("own:x", "own:y", 3.5, true) == "");
  CHECK(taken("cudnn:x", "own:y", 3.5) == "");
  CHECK(taken("own:x", "cublaslt:y", 3.5) == "");
}

TEST_CASE("the two launches of a pair write what its one launch writes") {
  ConvPair pair;
  pair.problem = convolution_of_slices({2, 5, 6, 16}, 40, {2, 5, 6, 24}, 32);
  pair.problem.then = {8, 16, Activation::Silu};
  pair.weights = weights_for(pair.problem);
  HostConvolution one(first_of(pair.problem), pair.weights, "one", 64);
  HostConvolution other(second_of(pair.problem), {pair.weights.then_weight, pair.weights.then_bias}, "other", 128);
  pair.alone = {&one, &other};
  constexpr std::size_t kPixels = 2 * 5 * 6;
  const std::vector<std::uint16_t> in = bf16(values("in", kPixels * 40));
  for (const bool keep : {true, false}) {
    pair.problem.keep = keep;
    const auto run = [&](ConvKernel& kernel) {
      std::vector<std::uint16_t> out(kPixels * (32 + 16));
      std::vector<std::byte> workspace(kernel.workspace_bytes());
      kernel.run({in.data(), keep ? out.data() + kPixels * 16 : nullptr, nullptr, workspace.data(), {}, out.data()},
                 {});
      return out;
    };
    HostConvolution both(pair.problem, pair.weights, "both", 0);
    const auto two = apart(pair).make(pair.weights);
    CHECK(two->name() == kApart);
    CHECK(two->workspace_bytes() >= (keep ? 128 : 128 + kPixels * 32 * 2));
    CHECK(run(*two) == run(both));
  }
}

TEST_CASE("a kernel that takes too much memory makes way for the next, and is the reason when there is none") {
  const auto failing = [](auto error) {
    return ConvCandidate{"failing", 1, [=](const ConvWeights&) -> std::unique_ptr<ConvKernel> { throw error; }};
  };
  const ConvCandidate large = failing(OutOfDeviceMemory("too large")), broken = failing(Error("broken")),
                      sound{"nothing", 2, [](const ConvWeights&) { return std::make_unique<Nothing>(); }};
  CHECK(predicted_best("neck.p3", {broken, large, sound}, {})->name() == "nothing");
  CHECK_THROWS_WITH_AS(predicted_best("neck.p3", {large, broken}, {}), "too large", OutOfDeviceMemory);
  CHECK_THROWS_WITH_AS(predicted_best("neck.p3", {broken}, {}),
                       "no kernel can compute the convolution neck.p3: broken", Error);
}
