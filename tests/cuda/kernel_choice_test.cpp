// How candidates are asked for.
#include "engine/cuda/kernel_choice.h"

#include <doctest/doctest.h>

#include "engine/core/error.h"

using namespace damoyolo;
using namespace damoyolo::cuda;

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
