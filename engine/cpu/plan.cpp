#include "engine/cpu/plan.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "engine/core/error.h"

namespace damoyolo::cpu {
namespace {

constexpr std::int64_t kAlignment = 64;  // a cache line, and AVX-512's vector

// A range of a graph buffer's channels that somebody reads, and the tensor that stands for it once it is written.
struct View {
  BufferId buffer = kNone;
  int begin = 0, end = 0;
  TensorId tensor = kNone;
  int last_reader = kNone;  // position of a node; the number of nodes: read after the run
};

class Lowering {
 public:
  Lowering(const Graph& graph, const PlanOptions& options) : graph_(graph), options_(options) {
    const int end = static_cast<int>(graph.nodes.size());
    for (int i = 0; i < end; ++i)
      for (const ValueId id : operands(graph.nodes[static_cast<std::size_t>(i)])) view_of(id).last_reader = i;
    if (options.keep_values)
      for (ValueId id = 0; id < static_cast<ValueId>(graph.values.size()); ++id)
        if (id != graph.input) view_of(id).last_reader = end;
    // The head's decoder reads slices, so the buffers are its views: one tensor where a pass has merged cls and reg.
    for (const HeadLevel& level : graph.head)
      for (const ValueId id : {level.cls, level.reg}) buffer_view(id).last_reader = end;
  }

  Plan run() {
    for (std::size_t i = 0; i < graph_.nodes.size(); ++i) {
      position_ = static_cast<int>(i);
      const Node& node = graph_.nodes[i];
      switch (node.op) {
        case Op::Cast: simple(StepKind::Cast, Slice{}); break;
        case Op::SppPool: simple(StepKind::SppPool, read(node.inputs[0])); break;
        case Op::Upsample: simple(StepKind::Upsample, read(node.inputs[0])); break;
        case Op::Conv: conv(node); break;
        case Op::Convert: convert(node); break;
        case Op::SpaceToDepth:
        case Op::Activate:
        case Op::Add:
        case Op::MaxPool:
        case Op::Concat:
          throw Error("graph node {} ({}) has no step of its own on the CPU, and no pass took it into another",
                      node.name, name_of(node.op));
      }
    }
    finish();
    return std::move(plan_);
  }

 private:
  View& view(BufferId buffer, int begin, int end) {
    for (View& known : views_)
      if (known.buffer == buffer && known.begin == begin && known.end == end) return known;
    return views_.emplace_back(View{buffer, begin, end});
  }
  View& view_of(ValueId id) {
    const Value& value = graph_.value(id);
    return view(value.buffer, value.channel_offset, value.channel_offset + value.shape.c);
  }
  View& buffer_view(ValueId id) { return view(graph_.value(id).buffer, 0, graph_.buffer_of(id).shape.c); }

  TensorId new_tensor(std::string name, Shape shape, DType dtype) {
    plan_.tensors.push_back({std::move(name), shape, dtype});
    return static_cast<TensorId>(plan_.tensors.size() - 1);
  }
  DType dtype_of(const Value& value) const {
    return graph_.buffer(value.buffer).content == Content::Float32 ? DType::F32 : options_.activations;
  }
  Slice whole(TensorId id) const { return {id, 0, plan_.tensor(id).shape.c}; }
  TensorId tensor_of(View& view, const Value& like) {
    if (view.tensor == kNone) {
      Shape shape = like.shape;
      shape.c = view.end - view.begin;
      view.tensor = new_tensor(like.name, shape, dtype_of(like));
    }
    return view.tensor;
  }
  Slice read(ValueId id) { return whole(view_of(id).tensor); }

  // Where a node's output has to go: the view that is exactly it, and parts of others.
  struct Destinations {
    View* exact = nullptr;
    std::vector<View*> others;
  };
  Destinations destinations(const Value& output) {
    Destinations result;
    const int begin = output.channel_offset, end = begin + output.shape.c;
    for (View& view : views_) {
      if (view.buffer != output.buffer || view.begin >= end || begin >= view.end) continue;
      if (view.begin == begin && view.end == end)
        result.exact = &view;
      else
        result.others.push_back(&view);
    }
    return result;
  }

  // The tensor that a whole output is written to: its own view's, or one that only Assemble reads.
  TensorId dense_target(const Destinations& to, const Value& output) {
    return to.exact != nullptr ? tensor_of(*to.exact, output)
                               : new_tensor(output.name, output.shape, dtype_of(output));
  }

  // The channels of `source`, which holds all of `output`, that `view` shares with it (plus those of `residual`).
  Assembly part(const Value& output, View& view, TensorId source, TensorId residual) {
    const int begin = std::max(view.begin, output.channel_offset);
    const int end = std::min(view.end, output.channel_offset + output.shape.c);
    const Slice from{source, begin - output.channel_offset, end - begin};
    return {from, {residual, from.channel, from.channels}, {tensor_of(view, output), begin - view.begin, end - begin}};
  }

  Step& add_step(StepKind kind) {
    Step& step = plan_.steps.emplace_back();
    step.kind = kind;
    step.node = position_;
    return step;
  }

  // Kinds of one source and one target, whose kernels write a slice as well as a whole tensor.
  void simple(StepKind kind, Slice source) {
    const Value& output = graph_.value(graph_.nodes[static_cast<std::size_t>(position_)].output);
    Destinations to = destinations(output);
    Slice target;
    if (to.exact == nullptr && to.others.size() == 1 && to.others[0]->begin <= output.channel_offset &&
        to.others[0]->end >= output.channel_offset + output.shape.c) {
      target = part(output, *to.others[0], kNone, kNone).target;
      to.others.clear();
    } else {
      target = whole(dense_target(to, output));
    }
    Step& step = add_step(kind);
    step.source = source;
    step.target = target;
    assemble(output, to.others, target.tensor, kNone);
  }

  void assemble(const Value& output, const std::vector<View*>& views, TensorId source, TensorId residual) {
    if (views.empty()) return;
    std::vector<Assembly> parts;
    for (View* view : views) parts.push_back(part(output, *view, source, residual));
    add_step(StepKind::Assemble).assemblies = std::move(parts);
  }

  void convert(const Node& node) {
    const Value& output = graph_.value(node.output);
    Destinations to = destinations(output);
    if (to.exact != nullptr) to.others.push_back(to.exact);
    assemble(output, to.others, read(node.inputs[0]).tensor, kNone);
  }

  // The residual in the size and type of `target`.
  void carry(TensorId residual, TensorId target) {
    if (plan_.tensor(residual).shape == plan_.tensor(target).shape) {
      add_step(StepKind::Assemble).assemblies = {{whole(residual), {}, whole(target)}};
      return;
    }
    Step& step = add_step(StepKind::Upsample);
    step.source = whole(residual);
    step.target = whole(target);
  }

  void conv(const Node& node) {
    const Value& output = graph_.value(node.output);
    const Slice source = read(node.inputs[0]);
    Destinations to = destinations(output);
    if (node.residual == kNone) {
      const TensorId target = dense_target(to, output);
      convolve(source, target, false);
      assemble(output, to.others, target, kNone);
      return;
    }

    const View& view = view_of(node.residual);
    TensorId residual = view.tensor;
    const bool fits = plan_.tensor(residual).shape == output.shape && plan_.tensor(residual).dtype == dtype_of(output);
    if (!node.residual_first) {
      // oneDNN would need a slower kernel to add after the activation; carrying the channels is needed anyway.
      if (!fits) {
        residual = new_tensor(graph_.value(node.residual).name, output.shape, dtype_of(output));
        carry(view.tensor, residual);
      }
      const TensorId result = new_tensor(node.name, output.shape, dtype_of(output));
      convolve(source, result, false);
      if (to.exact != nullptr) to.others.push_back(to.exact);
      assemble(output, to.others, result, residual);
      return;
    }

    TensorId target = residual;
    // The last reader of a residual may overwrite it with the sum.
    if (fits && view.last_reader == position_ && residual != source.tensor) {
      if (to.exact != nullptr) to.exact->tensor = target;
    } else {
      target = dense_target(to, output);
      carry(residual, target);
    }
    convolve(source, target, true);
    assemble(output, to.others, target, kNone);
  }

  void convolve(Slice source, TensorId target, bool accumulate) {
    Step& step = add_step(StepKind::Conv);
    step.source = source;
    step.target = whole(target);
    step.accumulate = accumulate;
  }

  // Lifetimes run from the first step that touches a tensor to the last; what is read after the run lives to the end.
  void finish() {
    const int end = static_cast<int>(plan_.steps.size());
    for (Tensor& tensor : plan_.tensors) tensor.first = end;
    for (int i = 0; i < end; ++i) {
      const auto touch = [&](const Slice& slice) {
        if (slice.tensor == kNone) return;
        Tensor& tensor = plan_.tensors[static_cast<std::size_t>(slice.tensor)];
        tensor.first = std::min(tensor.first, i);
        tensor.last = i;
      };
      const Step& step = plan_.steps[static_cast<std::size_t>(i)];
      touch(step.source);
      touch(step.target);
      for (const Assembly& assembly : step.assemblies) {
        touch(assembly.source);
        touch(assembly.residual);
        touch(assembly.target);
      }
    }
    for (const View& kept : views_)
      if (kept.last_reader == static_cast<int>(graph_.nodes.size()))
        plan_.tensors[static_cast<std::size_t>(kept.tensor)].last = end;

    for (std::size_t level = 0; level < graph_.head.size(); ++level) {
      const auto slice = [&](ValueId id) {
        return Slice{buffer_view(id).tensor, graph_.value(id).channel_offset, graph_.value(id).shape.c};
      };
      plan_.head[level] = {slice(graph_.head[level].cls), slice(graph_.head[level].reg)};
    }
    if (!options_.keep_values) return;
    for (ValueId id = 0; id < static_cast<ValueId>(graph_.values.size()); ++id)
      plan_.values.push_back(id == graph_.input ? kNone : view_of(id).tensor);
  }

  const Graph& graph_;
  const PlanOptions& options_;
  Plan plan_;
  std::deque<View> views_;  // references stay valid while it grows
  int position_ = 0;
};

}  // namespace

Plan lower(const Graph& graph, const PlanOptions& options) { return Lowering(graph, options).run(); }

void add_scratchpad(Plan& plan, std::size_t step, std::int64_t bytes) {
  const int at = static_cast<int>(step);
  const Shape shape{1, 1, 1, static_cast<int>(bytes)};
  plan.tensors.push_back({"scratchpad", shape, DType::U8, at, at});
  plan.steps[step].scratchpad = static_cast<TensorId>(plan.tensors.size() - 1);
}

void lay_out(Plan& plan) {
  std::vector<Lifetime> lifetimes;
  for (const Tensor& tensor : plan.tensors) lifetimes.push_back({tensor.bytes(), tensor.first, tensor.last});
  plan.arena = lay_out_arena(lifetimes, kAlignment);
  for (std::size_t i = 0; i < plan.tensors.size(); ++i) plan.tensors[i].offset = plan.arena.offsets[i];
}

}  // namespace damoyolo::cpu
