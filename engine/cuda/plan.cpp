#include "engine/cuda/plan.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "engine/core/error.h"
#include "engine/cuda/whole_vectors.h"

namespace damoyolo::cuda {
namespace {

constexpr std::int64_t kAlignment = 256;  // what cudaMalloc gives, and libraries expect of workspace

std::size_t index(int position) { return static_cast<std::size_t>(position); }

// Whether two values have a channel of one buffer in common.
bool overlap(const Value& a, const Value& b) {
  return a.buffer == b.buffer && a.channel_offset < b.channel_offset + b.shape.c &&
         b.channel_offset < a.channel_offset + a.shape.c;
}

class Lowering {
 public:
  Lowering(const Graph& graph, const PlanOptions& options) : graph_(graph), options_(options) {}

  Plan run() {
    for (const Buffer& buffer : graph_.buffers) {
      const DType type = type_of(buffer);
      const std::int64_t channels = in_whole_vectors(buffer.shape.c, type);
      plan_.regions.push_back({{}, buffer.shape.pixels() * channels * static_cast<std::int64_t>(size_of(type))});
    }
    touched_.resize(plan_.regions.size(), false);
    for (std::size_t i = 0; i < graph_.nodes.size(); ++i)
      if (std::ranges::count(options_.joined, static_cast<int>(i), &NodePair::second) == 0)
        add_step(static_cast<int>(i));
    finish();
    // The images, which come from outside, and what is not kept.
    for (std::size_t i = 0; i < plan_.regions.size(); ++i)
      if (!touched_[i]) plan_.regions[i].bytes = 0;
    for (std::size_t i = 0; i < plan_.steps.size(); ++i) choose_stream(i);
    return std::move(plan_);
  }

 private:
  DType type_of(const Buffer& buffer) const {
    return buffer.content == Content::Float32 ? DType::F32 : options_.activations;
  }

  View view_of(ValueId id) const {
    const Value& value = graph_.value(id);
    const Buffer& buffer = graph_.buffer(value.buffer);
    const DType type = type_of(buffer);
    return {value.buffer, value.shape, in_whole_vectors(buffer.shape.c, type), value.channel_offset, type};
  }

  static StepKind kind_of(const Node& node) {
    switch (node.op) {
      case Op::Cast: return StepKind::Pixels;
      case Op::Conv: return StepKind::Conv;
      case Op::SppPool: return StepKind::SppPool;
      case Op::Upsample: return StepKind::Upsample;
      case Op::Convert: return StepKind::Convert;
      case Op::SpaceToDepth:
      case Op::Activate:
      case Op::Add:
      case Op::MaxPool:
      case Op::Concat: break;
    }
    throw Error("graph node {} ({}) has no step of its own on a GPU, and no pass took it into another", node.name,
                name_of(node.op));
  }

  void add_step(int position) {
    const Node& node = graph_.nodes[index(position)];
    Step step;
    step.kind = kind_of(node);
    step.node = position;
    if (step.kind == StepKind::Pixels) {
      if (graph_.value(node.output).shape == graph_.buffer_of(node.output).shape) padded_ = node.output;
    } else {
      step.in = view_of(node.inputs[0]);
    }
    if (node.residual != kNone) step.residual = view_of(node.residual);
    step.out = view_of(node.output);
    // What a convolution reads of the pixels has the zeros between them, too; all others leave them out.
    if (node.output == padded_) step.out.shape.c = step.out.pixel_stride;
    if (step.kind == StepKind::Conv && node.inputs[0] == padded_) step.in.shape.c = step.in.pixel_stride;
    if (step.kind != StepKind::Pixels) depend_on(step, operands(node));
    writes(node.output);
    const auto pair = std::ranges::find(options_.joined, position, &NodePair::first);
    if (pair != options_.joined.end()) {
      const ValueId output = graph_.nodes[index(pair->second)].output;
      step.then = pair->second;
      step.then_out = view_of(output);
      writes(output);
      if (!is_read_beside(*pair)) step.out.region = kNone;
    }
    add(std::move(step));
  }

  // Of the step that is added next.
  void writes(ValueId value) {
    writers_.push_back({value, static_cast<int>(plan_.steps.size())});
    std::string& name = plan_.regions[index(graph_.value(value).buffer)].name;
    if (name.empty()) name = graph_.value(value).name;
  }

  // Whether anybody but the second of a pair reads what the first one gives.
  bool is_read_beside(const NodePair& pair) const {
    const Value& middle = graph_.value(graph_.nodes[index(pair.first)].output);
    const auto reads = [&](ValueId id) { return overlap(graph_.value(id), middle); };
    for (std::size_t i = 0; i < graph_.nodes.size(); ++i)
      if (static_cast<int>(i) != pair.second && std::ranges::any_of(operands(graph_.nodes[i]), reads)) return true;
    return std::ranges::any_of(graph_.head,
                               [&](const HeadLevel& level) { return reads(level.cls) || reads(level.reg); });
  }

  void finish() {
    Step step;
    step.kind = StepKind::Finish;
    for (std::size_t i = 0; i < plan_.head.size(); ++i) {
      const HeadLevel& level = graph_.head[i];
      plan_.head[i] = {view_of(level.cls), view_of(level.reg)};
      depend_on(step, {level.cls, level.reg});
    }
    // Whatever nobody reads still has to be over before the next run begins.
    for (std::size_t i = 0; i < plan_.steps.size(); ++i) {
      const auto reads = [&](const Step& other) {
        return std::find(other.dependencies.begin(), other.dependencies.end(), static_cast<int>(i)) !=
               other.dependencies.end();
      };
      if (std::none_of(plan_.steps.begin(), plan_.steps.end(), reads) && !reads(step))
        step.dependencies.push_back(static_cast<int>(i));
    }
    const auto position = static_cast<int>(plan_.steps.size());
    for (const HeadViews& level : plan_.head)
      for (const RegionId region : {level.cls.region, level.reg.region}) touch(region, position);
    add(std::move(step));
    if (!options_.keep_values) return;
    for (Region& region : plan_.regions) region.last = position;
    for (ValueId id = 0; id < static_cast<ValueId>(graph_.values.size()); ++id) plan_.values.push_back(view_of(id));
  }

  void touch(RegionId id, int step) {
    if (id == kNone) return;
    Region& region = plan_.regions[index(id)];
    region.first = touched_[index(id)] ? std::min(region.first, step) : step;
    region.last = std::max(region.last, step);
    touched_[index(id)] = true;
  }

  void add(Step step) {
    const auto position = static_cast<int>(plan_.steps.size());
    for (const View* view : {&step.in, &step.out, &step.residual, &step.then_out}) touch(view->region, position);
    std::sort(step.dependencies.begin(), step.dependencies.end());
    step.dependencies.erase(std::unique(step.dependencies.begin(), step.dependencies.end()), step.dependencies.end());
    plan_.steps.push_back(std::move(step));
  }

  // The earlier steps that write any channel of the values.
  void depend_on(Step& step, const std::vector<ValueId>& values) const {
    for (const ValueId id : values)
      for (const Written& written : writers_)
        if (overlap(graph_.value(written.value), graph_.value(id))) step.dependencies.push_back(written.step);
  }

  // A step goes on where one of its dependencies was the last, the latest of them by preference; a new branch takes a
  // stream that has not been used, or one that costs it no wait, or the one that has been idle for longest.
  void choose_stream(std::size_t position) {
    Step& step = plan_.steps[position];
    const auto depends_on = [&](int other) {
      return std::find(step.dependencies.begin(), step.dependencies.end(), other) != step.dependencies.end();
    };
    int chosen = kNone;
    if (step.kind == StepKind::Finish) {
      chosen = 0;
    } else {
      for (std::size_t s = 0; s < last_.size(); ++s)
        if (depends_on(last_[s]) && (chosen == kNone || last_[s] > last_[index(chosen)])) chosen = static_cast<int>(s);
      if (chosen == kNone && static_cast<int>(last_.size()) < options_.streams)
        chosen = static_cast<int>(last_.size());
      if (chosen == kNone) chosen = static_cast<int>(std::min_element(last_.begin(), last_.end()) - last_.begin());
    }
    if (index(chosen) == last_.size()) last_.push_back(kNone);
    step.stream = chosen;
    plan_.streams = static_cast<int>(last_.size());

    std::vector<bool> before(plan_.steps.size(), false);
    const auto follow = [&](int other) {
      if (other == kNone) return;
      before[index(other)] = true;
      for (std::size_t i = 0; i < before.size(); ++i) before[i] = before[i] || before_[index(other)][i];
    };
    follow(last_[index(chosen)]);
    for (auto other = step.dependencies.rbegin(); other != step.dependencies.rend(); ++other) {
      if (before[index(*other)]) continue;
      step.waits.push_back(*other);
      plan_.steps[index(*other)].awaited = true;
      follow(*other);
    }
    before_.push_back(std::move(before));
    last_[index(chosen)] = static_cast<int>(position);
  }

  struct Written {
    ValueId value;
    int step;
  };

  const Graph& graph_;
  const PlanOptions& options_;
  Plan plan_;
  ValueId padded_ = kNone;  // what Pixels writes, where that is a whole buffer
  std::vector<Written> writers_;
  std::vector<bool> touched_;              // by region
  std::vector<int> last_;                  // by stream: its last step so far
  std::vector<std::vector<bool>> before_;  // as happens_before() gives it
};

std::string text_of(const View& view) {
  if (view.region == kNone) return "-";
  if (view.channel_offset == 0 && view.shape.c == view.pixel_stride) return fmt::format("r{}", view.region);
  return fmt::format("r{}[{}:{}]", view.region, view.channel_offset, view.channel_offset + view.shape.c);
}

std::int64_t bytes_of(const View& view) {
  return view.region == kNone ? 0 : view.shape.elements() * static_cast<std::int64_t>(size_of(view.type));
}

std::int64_t weight_bytes(const Node& node, int in, int out, DType type) {
  return std::int64_t{node.kernel} * node.kernel * in / node.groups * out * static_cast<std::int64_t>(size_of(type));
}

}  // namespace

std::vector<NodePair> joinable_pairs(const Graph& graph, DType activations) {
  std::vector<NodePair> pairs;
  if (activations == DType::F32) return pairs;
  // All of its tensors are in the activations' type; a residual always is in the input's.
  const auto is_dense = [&](const Node& node, int kernel) {
    const auto is_narrow = [&](ValueId id) { return graph.buffer_of(id).content == Content::Activation; };
    return node.op == Op::Conv && node.kernel == kernel && node.groups == 1 && is_narrow(node.inputs[0]) &&
           is_narrow(node.output);
  };
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    if (!is_dense(graph.nodes[i], 3)) continue;
    const auto second = std::ranges::find_if(graph.nodes, [&](const Node& node) {
      return is_dense(node, 1) && node.stride == 1 && node.residual == kNone &&
             node.inputs[0] == graph.nodes[i].output;
    });
    if (second != graph.nodes.end())
      pairs.push_back({static_cast<int>(i), static_cast<int>(second - graph.nodes.begin())});
  }
  return pairs;
}

Plan lower(const Graph& graph, const PlanOptions& options) {
  if (options.keep_values && !options.joined.empty())
    throw Error("a plan of {} pairs was asked to keep every value, expected none: what lies between two has no memory",
                options.joined.size());
  return Lowering(graph, options).run();
}

Plan lower_joining(const Graph& graph, PlanOptions options, const std::function<bool(const Step&)>& join) {
  options.joined = joinable_pairs(graph, options.activations);
  Plan plan = lower(graph, options);
  const std::size_t apart = std::erase_if(options.joined, [&](const NodePair& pair) {
    return !join(*std::ranges::find(plan.steps, pair.first, &Step::node));
  });
  return apart == 0 ? std::move(plan) : lower(graph, options);
}

void add_workspace(Plan& plan, std::size_t step, std::int64_t bytes) {
  if (bytes <= 0) return;
  const auto position = static_cast<int>(step);
  plan.steps[step].workspace = static_cast<RegionId>(plan.regions.size());
  plan.regions.push_back({"workspace", bytes, position, position});
}

std::vector<std::vector<bool>> happens_before(const Plan& plan) {
  const std::size_t count = plan.steps.size();
  std::vector<std::vector<bool>> before(count, std::vector<bool>(count, false));
  std::vector<int> last(index(plan.streams), kNone);
  for (std::size_t i = 0; i < count; ++i) {
    const Step& step = plan.steps[i];
    std::vector<int> predecessors = step.waits;
    if (last[index(step.stream)] != kNone) predecessors.push_back(last[index(step.stream)]);
    for (const int predecessor : predecessors) {
      before[i][index(predecessor)] = true;
      for (std::size_t j = 0; j < count; ++j) before[i][j] = before[i][j] || before[index(predecessor)][j];
    }
    last[index(step.stream)] = static_cast<int>(i);
  }
  return before;
}

// A region lives until the last step that may run at the same time as one that touches it. Then a region whose first
// step comes later is touched only by steps that happen after all of those.
void lay_out(Plan& plan) {
  const std::vector<std::vector<bool>> before = happens_before(plan);
  const std::size_t count = plan.steps.size();
  std::vector<int> latest(count);
  for (std::size_t i = 0; i < count; ++i) {
    latest[i] = static_cast<int>(i);
    for (std::size_t j = i + 1; j < count; ++j)
      if (!before[j][i]) latest[i] = static_cast<int>(j);
  }
  std::vector<Lifetime> lifetimes;
  for (const Region& region : plan.regions) lifetimes.push_back({region.bytes, region.first, region.last});
  for (std::size_t i = 0; i < count; ++i) {
    const Step& step = plan.steps[i];
    for (const RegionId id :
         {step.in.region, step.out.region, step.residual.region, step.then_out.region, step.workspace})
      if (id != kNone) lifetimes[index(id)].last = std::max(lifetimes[index(id)].last, latest[i]);
  }
  plan.arena = lay_out_arena(lifetimes, kAlignment);
  for (std::size_t i = 0; i < plan.regions.size(); ++i) plan.regions[i].offset = plan.arena.offsets[i];
}

std::string name_of(const Step& step, const Graph& graph) {
  if (step.node == kNone) return "results";
  const std::string& name = graph.nodes[index(step.node)].name;
  return step.then == kNone ? name : name + " + " + graph.nodes[index(step.then)].name;
}

std::int64_t flops(const Step& step, const Graph& graph) {
  std::int64_t sum = 0;
  for (const int node : {step.node, step.then})
    if (node != kNone) sum += flops(graph, graph.nodes[index(node)]);
  return sum;
}

std::int64_t bytes_moved(const Step& step, const Graph& graph) {
  std::int64_t bytes = bytes_of(step.in) + bytes_of(step.out) + bytes_of(step.residual) + bytes_of(step.then_out);
  if (step.kind == StepKind::Conv)
    bytes += weight_bytes(graph.nodes[index(step.node)], step.in.shape.c, step.out.shape.c, step.in.type);
  if (step.then != kNone)
    bytes += weight_bytes(graph.nodes[index(step.then)], step.out.shape.c, step.then_out.shape.c, step.out.type);
  return bytes;
}

std::string to_text(const Plan& plan, const Graph& graph, std::span<const std::string> kernels) {
  std::string text = "step stream kernel, node, views, MFLOP, bytes moved at least, steps waited for\n";
  std::int64_t all_flops = 0;
  for (std::size_t i = 0; i < plan.steps.size(); ++i) {
    const Step& step = plan.steps[i];
    const std::int64_t work = flops(step, graph);
    all_flops += work;
    std::string views = fmt::format("{}{} <- {}", text_of(step.out),
                                    step.then == kNone ? "" : ", " + text_of(step.then_out), text_of(step.in));
    if (step.residual.region != kNone) views += " + " + text_of(step.residual);
    text += fmt::format("{:4} s{} {:<40} {:<44} {:<34} {:>9.1f} {:>11}{}{}\n", i, step.stream, kernels[i],
                        name_of(step, graph), views, static_cast<double>(work) / 1e6, bytes_moved(step, graph),
                        step.waits.empty() ? "" : "  after ", fmt::join(step.waits, ", "));
  }
  text += "regions: offset, bytes, steps\n";
  for (std::size_t i = 0; i < plan.regions.size(); ++i) {
    const Region& region = plan.regions[i];
    if (region.bytes == 0) continue;
    text += fmt::format("  r{:<4} {:>12} {:>12}  {:>4}..{:<4} {}\n", i, region.offset, region.bytes, region.first,
                        region.last, region.name);
  }
  text += fmt::format("{} steps on {} streams, {:.2f} GFLOP, arena {} bytes\n", plan.steps.size(), plan.streams,
                      static_cast<double>(all_flops) / 1e9, plan.arena.bytes);
  return text;
}

}  // namespace damoyolo::cuda
