// The device plan's bookkeeping: what is recorded when the plans of all variants are enqueued is replayed with a clock
// per stream, and every access to memory must be ordered by it.
#include "engine/cuda/plan.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "engine/core/error.h"
#include "engine/cuda/schedule.h"
#include "engine/model/build.h"
#include "engine/passes/passes.h"
#include "tests/cuda/host_runtime.h"

using namespace damoyolo;
using namespace damoyolo::cuda;

namespace {

using StepSet = std::vector<bool>;

Graph optimized(const ModelSpec& spec, int batch) {
  Graph graph = build_model(spec, batch, spec.input_height, spec.input_width).graph;
  optimize(graph);
  return graph;
}

// With working memory for every convolution, as libraries ask for it.
Plan planned(const Graph& graph, const PlanOptions& options) {
  Plan plan = lower(graph, options);
  for (std::size_t i = 0; i < plan.steps.size(); ++i)
    if (plan.steps[i].kind != StepKind::Pixels) add_workspace(plan, i, 1000 + 300 * static_cast<std::int64_t>(i));
  lay_out(plan);
  return plan;
}

// before[b][a]: step a is over before step b begins, as streams and events have it in the recorded calls.
std::vector<StepSet> recorded_order(const Plan& plan) {
  HostRuntime runtime;
  std::vector<Owned<CUstream_st>> owned;
  std::vector<StreamHandle> streams;
  for (int i = 0; i < kMaxStreams; ++i) streams.push_back(owned.emplace_back(make_stream(runtime)).get());
  const auto events = make_events(plan, runtime);
  enqueue_steps(plan, runtime, streams, events, {},
                [&](std::size_t step, kernels::Stream stream) { runtime.record_step(step, stream.handle); });

  const StepSet nothing(plan.steps.size(), false);
  std::map<StreamHandle, StepSet> over;  // when the next work of the stream begins
  std::map<EventHandle, StepSet> recorded;
  std::vector<StepSet> before(plan.steps.size(), nothing);
  for (const RecordedCall& call : runtime.calls) {
    StepSet& clock = over.try_emplace(call.stream, nothing).first->second;
    switch (call.kind) {
      case RecordedCall::Kind::Record: recorded[call.event] = clock; break;
      case RecordedCall::Kind::Wait:
        REQUIRE_MESSAGE(recorded.contains(call.event), "an event is waited for before it is recorded");
        for (std::size_t i = 0; i < clock.size(); ++i) clock[i] = clock[i] || recorded[call.event][i];
        break;
      case RecordedCall::Kind::Step:
        before[call.value] = clock;
        clock[call.value] = true;
        break;
      default: FAIL("an unexpected call");
    }
  }
  return before;
}

struct Access {
  RegionId region;
  int begin, end;  // channels
  bool writes;
};

std::vector<Access> accesses(const Plan& plan, const Step& step) {
  std::vector<Access> all;
  const auto add = [&](const View& view, bool writes) {
    if (view.region != kNone)
      all.push_back({view.region, view.channel_offset, view.channel_offset + view.shape.c, writes});
  };
  add(step.in, false);
  add(step.residual, false);
  add(step.out, true);
  add(step.then_out, true);
  if (step.kind == StepKind::Finish)
    for (const HeadViews& level : plan.head) {
      add(level.cls, false);
      add(level.reg, false);
    }
  if (step.workspace != kNone) all.push_back({step.workspace, 0, 1, true});
  return all;
}

bool share_memory(const Plan& plan, const Access& a, const Access& b) {
  if (a.region == b.region) return a.begin < b.end && b.begin < a.end;
  const Region &x = plan.region(a.region), &y = plan.region(b.region);
  return x.offset < y.offset + y.bytes && y.offset < x.offset + x.bytes;
}

// The first access that is not ordered, in words.
std::optional<std::string> fault_of(const Plan& plan) {
  const std::vector<StepSet> before = recorded_order(plan);
  std::vector<std::vector<Access>> all;
  for (const Step& step : plan.steps) all.push_back(accesses(plan, step));
  const std::size_t count = all.size();

  for (std::size_t i = 0; i < count; ++i)
    for (std::size_t a = 0; a < all[i].size(); ++a)
      for (std::size_t b = a + 1; b < all[i].size(); ++b)
        if ((all[i][a].writes || all[i][b].writes) && share_memory(plan, all[i][a], all[i][b]))
          return fmt::format("step {} writes where it reads or writes something else", i);

  for (std::size_t a = 0; a < count; ++a)
    for (std::size_t b = a + 1; b < count; ++b) {
      if (before[b][a]) continue;
      for (const Access& one : all[a])
        for (const Access& other : all[b])
          if ((one.writes || other.writes) && share_memory(plan, one, other))
            return fmt::format("steps {} and {} may touch the same memory at the same time", a, b);
    }

  // Each channel that a step reads was written by some step before it, and by nobody else since.
  for (std::size_t reader = 0; reader < count; ++reader)
    for (const Access& read : all[reader]) {
      if (read.writes) continue;
      std::vector<std::pair<std::size_t, Access>> writes;  // before it, and the steps that do them
      for (std::size_t other = 0; other < reader; ++other)
        for (const Access& write : all[other])
          if (write.writes && share_memory(plan, read, write)) writes.emplace_back(other, write);
      for (int channel = read.begin; channel < read.end; ++channel) {
        const Access one{read.region, channel, channel + 1, false};
        std::optional<std::size_t> writer;
        for (const auto& [other, write] : writes)
          if (write.region == one.region && share_memory(plan, one, write)) writer = other;
        if (!writer || !before[reader][*writer])
          return fmt::format("step {} reads channel {} of region {} before it is written", reader, channel,
                             read.region);
        for (const auto& [other, write] : writes)
          if (write.region != one.region && share_memory(plan, one, write) && !before[*writer][other])
            return fmt::format("step {} writes over what step {} wrote and step {} reads", other, *writer, reader);
      }
    }
  return std::nullopt;
}

}  // namespace

TEST_CASE("cuda plan: every read follows its write, and what may run together shares no memory") {
  for (const ModelSpec& spec : released_variants())
    for (const int batch : {1, 3, 8})
      for (const int streams : {1, 2, kMaxStreams}) {
        CAPTURE(spec.variant);
        CAPTURE(batch);
        CAPTURE(streams);
        const Graph graph = optimized(spec, batch);
        const Plan plan = planned(graph, {batch == 3 ? DType::F32 : DType::BF16, streams});
        CHECK(plan.streams == streams);
        CHECK(fault_of(plan).value_or("") == "");
        CHECK(happens_before(plan) == recorded_order(plan));
        CHECK(plan.steps.front().stream == 0);
        CHECK(plan.steps.back().stream == 0);
        const std::vector<StepSet> before = recorded_order(plan);
        for (std::size_t i = 0; i + 1 < plan.steps.size(); ++i) {
          CHECK(before.back()[i]);
          CHECK((i == 0 || before[i][0]));
        }
        for (const Region& region : plan.regions) {
          CHECK(region.offset % 256 == 0);
          CHECK(region.offset + region.bytes <= plan.arena.bytes);
        }
      }
}

TEST_CASE("cuda plan: layers kept in fp32 read and write fp32, and conversions are ordered like all else") {
  for (const std::string_view variant : {"Ns", "T"})
    for (const std::string kept : {"*", "backbone.*", "neck.merge_4*", "head.*"})
      for (const bool keep_values : {false, true}) {
        CAPTURE(variant);
        CAPTURE(kept);
        Graph graph = optimized(released_variant(variant), 1);
        keep_fp32(graph, std::vector<std::string>{kept});
        const Plan plan = planned(graph, {DType::BF16, kMaxStreams, keep_values});
        CHECK(fault_of(plan).value_or("") == "");
        int conversions = 0;
        for (const Step& step : plan.steps) {
          conversions += step.kind == StepKind::Convert;
          if (step.kind == StepKind::Convert)
            CHECK((step.in.type == DType::F32) != (step.out.type == DType::F32));
          else if (step.residual.region != kNone)
            CHECK(step.residual.type == step.in.type);
        }
        CHECK((conversions == 0) == (std::string(kept) == "*"));
        CHECK(plan.values.size() == (keep_values ? graph.values.size() : 0));
        if (!keep_values) continue;
        for (std::size_t i = 0; i < plan.regions.size(); ++i)
          for (std::size_t j = 0; j < i; ++j) {
            const Region &a = plan.regions[i], &b = plan.regions[j];
            if (a.name != "workspace" && b.name != "workspace")
              CHECK((a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset));
          }
      }
}

TEST_CASE("cuda plan: a pair in one step is ordered and stored like all else") {
  for (const ModelSpec& spec : released_variants())
    for (const int batch : {1, 8})
      for (const int streams : {1, kMaxStreams}) {
        CAPTURE(spec.variant);
        CAPTURE(batch);
        CAPTURE(streams);
        const Graph graph = optimized(spec, batch);
        const std::vector<NodePair> pairs = joinable_pairs(graph, DType::BF16);
        CHECK(pairs.size() >= (spec.variant.starts_with("N") ? 1 : 4));
        const Plan apart = planned(graph, {DType::BF16, streams}),
                   joined = planned(graph, {DType::BF16, streams, false, pairs});
        CHECK(fault_of(joined).value_or("") == "");
        CHECK(happens_before(joined) == recorded_order(joined));
        CHECK(joined.steps.size() + pairs.size() == apart.steps.size());
        std::int64_t flops_apart = 0, flops_joined = 0;
        for (const Step& step : apart.steps) flops_apart += flops(step, graph);
        for (const Step& step : joined.steps) flops_joined += flops(step, graph);
        CHECK(flops_joined == flops_apart);
      }
}

TEST_CASE("cuda plan: pairs beside layers kept in fp32 are ordered and stored like all else") {
  for (const std::string kept : {"backbone.1.*", "backbone.2.1.conv2", "head.*"}) {
    CAPTURE(kept);
    Graph graph = optimized(released_variant("S"), 1);
    const std::size_t all = joinable_pairs(graph, DType::BF16).size();
    keep_fp32(graph, std::vector<std::string>{kept});
    const std::vector<NodePair> pairs = joinable_pairs(graph, DType::BF16);
    CHECK(pairs.size() >= 4);
    CHECK((pairs.size() < all) == (std::string(kept) != "head.*"));
    const Plan apart = planned(graph, {DType::BF16}),
               joined = planned(graph, {DType::BF16, kMaxStreams, false, pairs});
    CHECK(fault_of(joined).value_or("") == "");
    CHECK(happens_before(joined) == recorded_order(joined));
    CHECK(joined.steps.size() + pairs.size() == apart.steps.size());
    const auto converts = [](const Plan& plan) {
      return std::ranges::count(plan.steps, StepKind::Convert, &Step::kind);
    };
    CHECK(converts(joined) > 0);
    CHECK(converts(joined) == converts(apart));
  }
}

TEST_CASE("cuda plan: what a pair alone reads has no memory, what others read does") {
  const Graph graph = optimized(released_variant("S"), 1);
  const std::vector<NodePair> pairs = joinable_pairs(graph, DType::BF16);
  const Plan plan = planned(graph, {DType::BF16, kMaxStreams, false, pairs});
  const auto step_of = [&](std::string_view name) -> const Step& {
    for (const Step& step : plan.steps)
      if (name_of(step, graph) == name) return step;
    FAIL("no step ", name);
    return plan.steps.front();
  };
  const auto buffer_of = [&](const Step& step) {
    return graph.value(graph.nodes[static_cast<std::size_t>(step.node)].output).buffer;
  };
  const Step& stem = step_of("backbone.0 + backbone.1.0.conv1");
  CHECK(stem.out.region == kNone);
  CHECK(stem.out.shape == Shape{1, 320, 320, 32});
  CHECK(stem.then_out.shape == Shape{1, 320, 320, 24});
  CHECK(plan.region(buffer_of(stem)).bytes == 0);
  constexpr std::int64_t kPixels = 320 * 320;
  CHECK(bytes_moved(stem, graph) == kPixels * 16 * 2 + kPixels * 24 * 2 + 9 * 16 * 32 * 2 + 32 * 24 * 2);
  CHECK(flops(stem, graph) == 2 * kPixels * (9 * 12 * 32 + 32 * 24));
  // The first is a residual later; the last is read by the neck, too, from a buffer that others are beside it in.
  const Step& block = step_of("backbone.2.1.conv2 + backbone.2.2.conv1");
  CHECK(block.out.region == buffer_of(block));
  CHECK(block.residual.region != kNone);
  CHECK(plan.region(buffer_of(block)).bytes == 80 * 80 * 128 * 2);
  CHECK(step_of("backbone.4.1.conv2 + backbone.5.0.conv1").out.region != kNone);
  const std::string text = to_text(plan, graph, std::vector<std::string>(plan.steps.size(), "some_kernel"));
  CHECK(text.find("backbone.0 + backbone.1.0.conv1") != std::string::npos);
  CHECK(text.find("36.99 GFLOP") != std::string::npos);
}

TEST_CASE("cuda plan: pairs are a dense 3x3 and a 1x1 of all that it gives, both in 16 bits") {
  const Graph graph = optimized(released_variant("S"), 1);
  for (const NodePair& pair : joinable_pairs(graph, DType::F16)) {
    const Node &first = graph.nodes[static_cast<std::size_t>(pair.first)],
               &second = graph.nodes[static_cast<std::size_t>(pair.second)];
    CHECK((first.kernel == 3 && first.groups == 1));
    CHECK((second.kernel == 1 && second.stride == 1 && second.residual == kNone));
    CHECK(operands(second) == std::vector{first.output});
  }
  CHECK(joinable_pairs(graph, DType::F32).empty());
  const auto stem_is_first = [](const Graph& graph) {
    const auto pairs = joinable_pairs(graph, DType::BF16);
    return std::ranges::any_of(
        pairs, [&](NodePair pair) { return graph.nodes[static_cast<std::size_t>(pair.first)].name == "backbone.0"; });
  };
  CHECK(stem_is_first(graph));
  for (const std::string kept : {"backbone.0", "backbone.1.0.conv1"}) {
    Graph mixed = graph;
    keep_fp32(mixed, std::vector<std::string>{kept});
    CHECK_FALSE(stem_is_first(mixed));
  }
  const auto changed = [&](std::string_view name, auto change) {
    Graph other = graph;
    change(*std::ranges::find(other.nodes, name, &Node::name));
    return stem_is_first(other);
  };
  CHECK_FALSE(changed("backbone.0", [](Node& node) { node.kernel = 1; }));
  CHECK_FALSE(changed("backbone.1.0.conv1", [](Node& node) { node.kernel = 3; }));
  CHECK_FALSE(changed("backbone.1.0.conv1", [](Node& node) { node.stride = 2; }));
  CHECK_FALSE(changed("backbone.1.0.conv1", [](Node& node) { node.residual = node.output; }));
  CHECK_FALSE(changed("backbone.1.0.conv1", [](Node& node) { node.groups = 32; }));
}

TEST_CASE("cuda plan: the checks above see a wait, an offset or a lifetime that is wrong") {
  const Graph graph = optimized(released_variant("T"), 1);
  const Plan good = planned(graph, {});
  REQUIRE_FALSE(fault_of(good).has_value());
  int waits = 0;
  for (std::size_t i = 0; i < good.steps.size(); ++i)
    for (std::size_t w = 0; w < good.steps[i].waits.size(); ++w) {
      Plan bad = good;
      bad.steps[i].waits.erase(bad.steps[i].waits.begin() + static_cast<std::ptrdiff_t>(w));
      CHECK_MESSAGE(fault_of(bad).has_value(), "step ", i, " waits for ", good.steps[i].waits[w], " without need");
      ++waits;
    }
  CHECK(waits >= 4);

  // What a pair's second gives, in the place of what its first reads.
  const Graph small = optimized(released_variant("S"), 1);
  Plan joined = planned(small, {DType::BF16, kMaxStreams, false, joinable_pairs(small, DType::BF16)});
  const auto pair = std::ranges::find_if(joined.steps, [](const Step& step) { return step.then != kNone; });
  joined.regions[static_cast<std::size_t>(pair->then_out.region)].offset = joined.region(pair->in.region).offset;
  CHECK(fault_of(joined).has_value());
  // And in the place of what its first gives, or of the step's working memory.
  const Plan sound = planned(small, {DType::BF16, kMaxStreams, false, joinable_pairs(small, DType::BF16)});
  const auto kept = std::ranges::find_if(
      sound.steps, [](const Step& step) { return step.then != kNone && step.out.region != kNone; });
  REQUIRE(kept != sound.steps.end());
  for (const RegionId other : {kept->out.region, kept->workspace}) {
    Plan over = sound;
    over.regions[static_cast<std::size_t>(kept->then_out.region)].offset = sound.region(other).offset;
    CHECK(fault_of(over) ==
          fmt::format("step {} writes where it reads or writes something else", kept - sound.steps.begin()));
  }

  Plan bad = good;
  Region& second = bad.regions[static_cast<std::size_t>(bad.steps[2].out.region)];
  second.offset = bad.region(bad.steps[1].out.region).offset;
  CHECK(fault_of(bad).has_value());

  const Graph large = optimized(released_variant("L"), 1);
  Plan serial = planned(large, {DType::BF16, 1});
  REQUIRE_FALSE(fault_of(serial).has_value());
  const Plan parallel = planned(large, {});
  serial.steps = parallel.steps;  // the memory of one stream, the steps of four
  serial.streams = parallel.streams;
  CHECK(fault_of(serial).has_value());
}

TEST_CASE("cuda plan: independent branches run side by side") {
  const Graph graph = optimized(released_variant("S"), 1);
  const Plan plan = planned(graph, {});
  const std::vector<StepSet> before = happens_before(plan);
  const auto step_of = [&](std::string_view name) {
    for (std::size_t i = 0; i < plan.steps.size(); ++i)
      if (plan.steps[i].node != kNone && graph.nodes[static_cast<std::size_t>(plan.steps[i].node)].name == name)
        return i;
    FAIL("no step ", name);
    return std::size_t{0};
  };
  const auto together = [&](std::string_view a, std::string_view b) {
    const std::size_t one = step_of(a), other = step_of(b);
    return !before[one][other] && !before[other][one];
  };
  CHECK(together("neck.bu_conv46", "neck.merge_7.conv3"));
  CHECK(together("neck.bu_conv13", "backbone.5.0.conv2"));
  CHECK(together("neck.bu_conv24", "neck.merge_3.conv3"));
  CHECK_FALSE(together("neck.merge_6.conv3", "neck.merge_7.conv3"));
}

TEST_CASE("cuda plan: pixels are multiples of 16 bytes apart, and the first convolution reads zeros to fill them") {
  for (const DType type : {DType::F32, DType::BF16, DType::F16}) {
    const Graph graph = optimized(released_variant("S"), 2);
    const Plan plan = planned(graph, {type, 1});
    for (const Step& step : plan.steps)
      for (const View* view : {&step.in, &step.out, &step.residual}) {
        if (view->region == kNone) continue;
        CHECK(static_cast<std::size_t>(view->pixel_stride) * size_of(view->type) % 16 == 0);
        CHECK(view->channel_offset + view->shape.c <= view->pixel_stride);
        CHECK(plan.region(view->region).bytes ==
              view->shape.pixels() * view->pixel_stride * static_cast<std::int64_t>(size_of(view->type)));
      }
    CHECK(plan.steps[0].out.shape.c == (type == DType::F32 ? 12 : 16));
    CHECK(plan.steps[1].in.shape.c == plan.steps[0].out.shape.c);
    for (const HeadViews& level : plan.head) CHECK((level.cls.type == DType::F32 && level.reg.type == DType::F32));
  }
}

TEST_CASE(
    "cuda plan: kernels overlap with the one before them on their stream, and where nothing else is waited for") {
  const Graph graph = optimized(released_variant("T"), 1);
  for (const int streams : {1, kMaxStreams}) {
    const Plan plan = planned(graph, {DType::BF16, streams});
    const std::vector<bool> overlap = overlapping_steps(plan);
    REQUIRE(overlap.size() == plan.steps.size());
    HostRuntime runtime;
    std::vector<StreamHandle> handles;
    std::vector<Owned<CUstream_st>> owned;
    for (int i = 0; i < kMaxStreams; ++i) handles.push_back(owned.emplace_back(make_stream(runtime)).get());
    std::vector<bool> enqueued;
    enqueue_steps(plan, runtime, handles, make_events(plan, runtime), overlap,
                  [&](std::size_t step, kernels::Stream stream) {
                    enqueued.push_back(stream.overlap);
                    runtime.record_step(step, stream.handle);
                  });
    CHECK(enqueued == overlap);
    // What the recorded calls put directly before a step's kernels on its stream: only another step's may overlap.
    std::map<StreamHandle, RecordedCall::Kind> last;
    for (const RecordedCall& call : runtime.calls) {
      const auto before = last.find(call.stream);
      if (call.kind == RecordedCall::Kind::Step)
        CHECK(overlap[call.value] == (before != last.end() && before->second == RecordedCall::Kind::Step));
      // Recording an event is no work, and does not come between kernels.
      if (call.kind != RecordedCall::Kind::Record) last[call.stream] = call.kind;
    }
    const auto overlapping = std::count(overlap.begin(), overlap.end(), true);
    CHECK(overlapping > static_cast<std::ptrdiff_t>(plan.steps.size() / 2));
    if (streams == 1) CHECK(overlapping == static_cast<std::ptrdiff_t>(plan.steps.size() - 1));
  }
}

TEST_CASE("cuda plan: parallel streams cost little memory") {
  for (const ModelSpec& spec : released_variants()) {
    CAPTURE(spec.variant);
    const Graph graph = optimized(spec, 1);
    const double alone = static_cast<double>(planned(graph, {DType::BF16, 1}).arena.bytes);
    CHECK(static_cast<double>(planned(graph, {DType::BF16, kMaxStreams}).arena.bytes) <= 1.6 * alone);
  }
}

TEST_CASE("cuda plan: values cannot be kept beside pairs, between which there are none") {
  const Graph graph = optimized(released_variant("T"), 1);
  PlanOptions options{DType::BF16, kMaxStreams, true, joinable_pairs(graph, DType::BF16)};
  CHECK_THROWS_AS(lower(graph, options), Error);
  options.joined.clear();
  CHECK_NOTHROW(lower(graph, options));
}

TEST_CASE("cuda plan: a graph that was not optimized is refused") {
  CHECK_THROWS_AS(lower(build_model(released_variant("T"), 1, 64, 64).graph, {}), Error);
}

TEST_CASE("cuda plan: its text names kernels, streams, views, work and bytes") {
  const Graph graph = optimized(released_variant("S"), 1);
  const Plan plan = planned(graph, {});
  std::vector<std::string> kernels(plan.steps.size(), "some_kernel");
  kernels[3] = "another_kernel";
  const std::string text = to_text(plan, graph, kernels);
  CHECK(text.find("another_kernel") != std::string::npos);
  CHECK(text.find("neck.merge_3.conv3") != std::string::npos);
  CHECK(text.find("r52[0:256]") != std::string::npos);
  CHECK(text.find("36.99 GFLOP") != std::string::npos);
  CHECK(text.find(fmt::format("on 4 streams")) != std::string::npos);
  CHECK(text.find(fmt::format("arena {} bytes", plan.arena.bytes)) != std::string::npos);
}
