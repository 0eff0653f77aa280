// How work is timed, on a runtime played by the host.
#include "engine/cuda/timing.h"

#include <doctest/doctest.h>

#include <vector>

#include "tests/cuda/host_runtime.h"

using namespace damoyolo::cuda;

TEST_CASE("rounds are timed one behind another, without the processor in between") {
  using Kind = RecordedCall::Kind;
  HostRuntime runtime;
  std::vector<double> seconds{5, 3, 4};
  runtime.elapsed = [&] {
    const double next = seconds.back();
    seconds.pop_back();
    return next;
  };
  CHECK(least_seconds(runtime, nullptr, 2, [&](std::size_t run) { runtime.record_step(run, nullptr); }) == 3. / 2);
  CHECK(seconds.empty());

  std::vector<Kind> kinds{Kind::Step, Kind::Synchronize};  // what a first run loads
  for (int round = 0; round < 4; ++round)
    kinds.insert(kinds.end(), {Kind::Launch, Kind::Step, Kind::Step, Kind::Record});
  kinds.push_back(Kind::Synchronize);
  REQUIRE(runtime.calls.size() == kinds.size());
  for (std::size_t i = 0; i < kinds.size(); ++i) CHECK(runtime.calls[i].kind == kinds[i]);
  CHECK(runtime.live() == 0);
}
