// How candidates are asked for.
#include "engine/cuda/kernel_choice.h"

#include <doctest/doctest.h>

#include "engine/core/error.h"

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
