// How candidates are timed, on a runtime played by the host.
#include "engine/cuda/conv_timing.h"

#include <doctest/doctest.h>

#include <cstring>
#include <map>
#include <set>

#include "engine/core/error.h"
#include "tests/cuda/host_runtime.h"

using namespace damoyolo;
using namespace damoyolo::cuda;

namespace {

ConvProblem small() {
  ConvProblem problem;
  problem.in = problem.out = {1, 8, 8, 16};
  problem.in_pixel_stride = problem.out_pixel_stride = problem.residual_pixel_stride = 16;
  problem.residual = ConvProblem::Residual::Same;
  problem.type = problem.out_type = DType::BF16;
  return problem;
}

// Kernels that compute nothing, and record what they are given.
struct Trial {
  HostRuntime runtime;
  ConvProblem problem = small();
  double seconds = 0;  // that the last kernel to run is said to take
  std::map<std::string, std::vector<ConvPointers>> runs;
  bool overlapped = false;

  struct Kernel : ConvKernel {
    Kernel(Trial& trial, std::string name, double seconds)
        : trial(trial), own_name(std::move(name)), own_seconds(seconds) {}
    std::string name() const override { return own_name; }
    std::size_t workspace_bytes() const override { return 64; }
    void run(const ConvPointers& pointers, kernels::Stream stream) override {
      trial.seconds = own_seconds;
      trial.overlapped |= stream.overlap;
      trial.runs[own_name].push_back(pointers);
    }
    Trial& trial;
    std::string own_name;
    double own_seconds;
  };

  ConvCandidate candidate(std::string name, double time) {
    return {name, 1, [this, name, time](const ConvWeights&) { return std::make_unique<Kernel>(*this, name, time); }};
  }
  ConvCandidate broken(std::string name) {
    return {name, 1,
            [](const ConvWeights&) -> std::unique_ptr<ConvKernel> { throw Error("no engine supports this"); }};
  }
  std::vector<CandidateTime> time(const std::vector<ConvCandidate>& candidates, const TimingOptions& options = {},
                                  std::unique_ptr<ConvKernel>* fastest = nullptr) {
    runtime.elapsed = [this] { return seconds; };
    return time_candidates(runtime, nullptr, problem, candidates, {}, options, fastest);
  }
};

}  // namespace

TEST_CASE("every candidate has a time or a reason, and the fastest kernel is kept") {
  Trial trial;
  std::unique_ptr<ConvKernel> fastest;
  TimingOptions options;
  options.check = [](ConvKernel& kernel) {
    if (kernel.name() == "wrong") throw Error("it is wrong");
  };
  const auto times = trial.time({trial.candidate("slow", 3), trial.broken("broken"), trial.candidate("wrong", 0.5),
                                 trial.candidate("fast", 1), trial.candidate("middle", 2)},
                                options, &fastest);
  REQUIRE(times.size() == 5);
  CHECK(times[0].name == "slow");
  CHECK(times[0].error.empty());
  CHECK(times[0].seconds == doctest::Approx(3 * times[3].seconds));
  CHECK(times[1].had_turn);
  CHECK(times[1].error == "no engine supports this");
  CHECK(times[2].error == "it is wrong");
  CHECK_FALSE(trial.runs.contains("wrong"));
  REQUIRE(fastest != nullptr);
  CHECK(fastest->name() == "fast");
  fastest.reset();
  CHECK(trial.runtime.live() == 0);

  options.deadline = {};
  const CandidateTime late = trial.time({trial.candidate("late", 1)}, options).front();
  CHECK_FALSE(late.had_turn);
  CHECK(late.error == "there was no time left for it");
  CHECK(trial.time({trial.broken("broken")}, {}, &fastest).front().error == "no engine supports this");
  CHECK(fastest == nullptr);
}

TEST_CASE("a kernel that takes the device along is named") {
  struct Breaker : Trial::Kernel {
    using Kernel::Kernel;
    void run(const ConvPointers&, kernels::Stream) override {
      trial.runtime.lost = "an illegal memory access was encountered";
    }
  };
  Trial trial;
  const ConvCandidate breaker{"breaker", 1,
                              [&](const ConvWeights&) { return std::make_unique<Breaker>(trial, "breaker", 1); }};
  CHECK_THROWS_WITH_AS(trial.time({trial.broken("broken"), breaker, trial.candidate("any", 1)}),
                       "the kernel breaker has left the device unusable: an illegal memory access was encountered",
                       Error);
  CHECK_FALSE(trial.runs.contains("any"));
}

TEST_CASE("runs take turns on as many tensors as are asked for") {
  const auto tensors = [](std::size_t rotated_bytes) {
    Trial trial;
    TimingOptions options;
    options.rotated_bytes = rotated_bytes;
    options.overlap = true;
    trial.time({trial.candidate("any", 1)}, options);
    CHECK(trial.overlapped);
    std::set<const void*> in, out, residual;
    for (const ConvPointers& pointers : trial.runs["any"]) {
      in.insert(pointers.in);
      out.insert(pointers.out);
      residual.insert(pointers.residual);
    }
    CHECK(in.size() == out.size());
    CHECK(in.size() == residual.size());
    CHECK_FALSE(residual.contains(nullptr));
    return in.size();
  };
  constexpr std::size_t kSet = 3 * 8 * 8 * 16 * 2;
  CHECK(tensors(0) == 1);
  CHECK(tensors(4 * kSet) == 5);
  CHECK(tensors(40 * kSet) == 41);
}

TEST_CASE("a pair is timed with a place for each output that it stores") {
  constexpr std::size_t kFirst = 8 * 8 * 16 * 2, kSecond = 8 * 8 * 24 * 2;  // bytes
  struct Writer : Trial::Kernel {
    using Kernel::Kernel;
    void run(const ConvPointers& pointers, kernels::Stream stream) override {
      Kernel::run(pointers, stream);
      if (pointers.out != nullptr) std::memset(pointers.out, 1, kFirst);
      std::memset(pointers.then_out, 2, kSecond);
      if (pointers.out != nullptr) CHECK(static_cast<const char*>(pointers.out)[kFirst - 1] == 1);
    }
  };
  for (const bool keep : {true, false}) {
    Trial trial;
    trial.problem.then = {8, 24};
    trial.problem.keep = keep;
    const ConvCandidate writer{"writer", 1,
                               [&](const ConvWeights&) { return std::make_unique<Writer>(trial, "writer", 1); }};
    CHECK(trial.time({writer}).front().error.empty());
    REQUIRE_FALSE(trial.runs["writer"].empty());
    for (const ConvPointers& pointers : trial.runs["writer"]) CHECK((pointers.out != nullptr) == keep);
  }
}

TEST_CASE("tensors are timed full of numbers") {
  Trial trial;
  TimingOptions options;
  struct Reader : Trial::Kernel {
    using Kernel::Kernel;
    void run(const ConvPointers& pointers, kernels::Stream) override {
      std::uint16_t first[2];
      for (const void* tensor : {pointers.in, pointers.residual}) {
        std::memcpy(first, tensor, sizeof first);
        CHECK((first[0] & 0x7fff) >= 0x3f00);  // [0.5, 1) in bf16
        CHECK((first[0] & 0x7fff) < 0x3f80);
        CHECK(first[0] != first[1]);
      }
    }
  };
  const ConvCandidate reader{"reader", 1, [&](const ConvWeights&) { return std::make_unique<Reader>(trial, "", 1); }};
  CHECK(trial.time({reader}).front().error.empty());
}
