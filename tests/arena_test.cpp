#include "engine/arena.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <span>
#include <vector>

#include "engine/cpu/plan.h"
#include "engine/model/build.h"
#include "engine/passes/passes.h"
#include "tests/golden_generator.h"

using namespace damoyolo;

namespace {

void check_no_overlap(std::span<const Lifetime> lifetimes, const ArenaLayout& layout) {
  for (std::size_t a = 0; a < lifetimes.size(); ++a) {
    CHECK(layout.offsets[a] + lifetimes[a].bytes <= layout.bytes);
    for (std::size_t b = 0; b < a; ++b) {
      const bool together = lifetimes[a].first <= lifetimes[b].last && lifetimes[b].first <= lifetimes[a].last;
      const bool apart = layout.offsets[a] + lifetimes[a].bytes <= layout.offsets[b] ||
                         layout.offsets[b] + lifetimes[b].bytes <= layout.offsets[a];
      if (together && !apart) FAIL_CHECK("buffers ", a, " and ", b, " overlap");
    }
  }
}

}  // namespace

TEST_CASE("buffers that never live together share memory") {
  const std::vector<Lifetime> lifetimes{{100, 0, 1}, {200, 1, 2}, {100, 2, 3}};
  const ArenaLayout layout = lay_out_arena(lifetimes, 4);
  check_no_overlap(lifetimes, layout);
  CHECK(layout.peak == 300);
  CHECK(layout.bytes == 300);
}

TEST_CASE("no buffers need no arena") {
  const ArenaLayout layout = lay_out_arena({}, 64);
  CHECK(layout.bytes == 0);
  CHECK(layout.peak == 0);
}

TEST_CASE("random lifetimes never overlap") {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    std::vector<Lifetime> lifetimes;
    for (std::uint64_t i = 0; i < 60; ++i) {
      const std::uint64_t bits = golden_bits(seed, i);
      const int first = static_cast<int>(bits % 40);
      lifetimes.push_back(
          {static_cast<std::int64_t>(1 + (bits >> 16) % 5000), first, first + static_cast<int>((bits >> 40) % 12)});
    }
    const ArenaLayout layout = lay_out_arena(lifetimes, 64);
    check_no_overlap(lifetimes, layout);
    for (const std::int64_t offset : layout.offsets) CHECK(offset % 64 == 0);
    CHECK(layout.bytes >= layout.peak);
  }
}

TEST_CASE("the CPU plans of all variants fit into 1.15 times what is live at once") {
  for (const ModelSpec& spec : released_variants())
    for (const DType type : {DType::F32, DType::BF16})
      for (const int batch : {1, 3}) {
        CAPTURE(spec.variant);
        CAPTURE(batch);
        Graph graph = build_model(spec, batch, spec.input_height, spec.input_width).graph;
        optimize(graph);
        cpu::Plan plan = cpu::lower(graph, {type, false});
        cpu::lay_out(plan);
        std::vector<Lifetime> lifetimes;
        for (const cpu::Tensor& tensor : plan.tensors)
          lifetimes.push_back({tensor.bytes(), tensor.first, tensor.last});
        check_no_overlap(lifetimes, plan.arena);
        CHECK(static_cast<double>(plan.arena.bytes) <= 1.15 * static_cast<double>(plan.arena.peak));
      }
}
