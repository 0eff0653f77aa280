// What the runtime played by the host refuses, as CUDA does.
#include "tests/cuda/host_runtime.h"

#include <doctest/doctest.h>

#include "engine/cuda/uploaded.h"

using namespace damoyolo;
using namespace damoyolo::cuda;

namespace {

struct Two {
  HostRuntime runtime;
  Owned<CUstream_st> main = make_stream(runtime), side = make_stream(runtime);
  Owned<CUevent_st> fork = make_event(runtime), join = make_event(runtime);

  void capture(const std::function<void()>& enqueue) {
    const Owned<CUgraphExec_st> graph = capture_graph(runtime, main.get(), enqueue);
    runtime.launch(graph.get(), main.get());
  }
  void work_aside() {
    runtime.record(fork.get(), main.get());
    runtime.wait(side.get(), fork.get());
  }
  void come_back() {
    runtime.record(join.get(), side.get());
    runtime.wait(main.get(), join.get());
  }
};

}  // namespace

TEST_CASE("host runtime: streams that a capture forks are joined again") {
  Two two;
  two.capture([&] {
    two.work_aside();
    two.come_back();
  });
  CHECK_THROWS_AS(two.capture([&] { two.work_aside(); }), Error);
  CHECK_THROWS_AS(two.capture([&] {
    two.work_aside();
    two.come_back();
    two.runtime.wait(two.side.get(), two.join.get());
  }),
                  Error);
  two.work_aside();  // the captures are over, and have left nothing behind
  two.come_back();
}

TEST_CASE("host runtime: a capture waits for nothing outside, and nothing outside for what it recorded") {
  Two two;
  two.runtime.record(two.join.get(), two.side.get());
  CHECK_THROWS_AS(two.capture([&] { two.runtime.wait(two.main.get(), two.join.get()); }), Error);
  two.capture([&] { two.runtime.record(two.fork.get(), two.main.get()); });
  CHECK_THROWS_AS(two.runtime.wait(two.side.get(), two.fork.get()), Error);
  CHECK_THROWS_AS(two.runtime.synchronize(two.fork.get()), Error);
}

TEST_CASE("host runtime: during a capture nothing is allocated, and nobody waits") {
  Two two;
  const auto refused = [&](const std::function<void()>& call) { CHECK_THROWS_AS(two.capture(call), Error); };
  refused([&] { two.runtime.allocate(1); });
  refused([&] { two.runtime.allocate_pinned(1); });
  refused([&] { two.runtime.synchronize(two.main.get()); });
  refused([&] { two.runtime.synchronize(two.join.get()); });
  refused([] { ZeroedMemory(1); });
  std::byte bytes[2]{};
  refused([&] { two.runtime.copy(bytes, bytes + 1, 1, two.side.get()); });
}

TEST_CASE("host runtime: events are awaited once they were recorded, and have times where they were asked for") {
  Two two;
  CHECK_THROWS_AS(two.runtime.wait(two.main.get(), two.fork.get()), Error);
  CHECK_THROWS_AS(two.runtime.synchronize(two.fork.get()), Error);
  const Owned<CUevent_st> timed = make_event(two.runtime, true);
  two.runtime.record(two.fork.get(), two.main.get());
  two.runtime.record(timed.get(), two.main.get());
  CHECK_NOTHROW(two.runtime.seconds_between(timed.get(), timed.get()));
  CHECK_THROWS_AS(two.runtime.seconds_between(two.fork.get(), timed.get()), Error);
}

TEST_CASE("host runtime: a device is used by threads for which it is current") {
  HostRuntime first;
  const HostRuntime second;
  CHECK_THROWS_AS(first.create_stream(), Error);
  first.make_current();
  CHECK_NOTHROW(make_stream(first));
}
