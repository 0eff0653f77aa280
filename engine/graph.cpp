#include "engine/graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "engine/core/error.h"

namespace damoyolo {
namespace {

std::string text_of(const Shape& shape) { return fmt::format("{}x{}x{}x{}", shape.n, shape.h, shape.w, shape.c); }

// "name[128:192]@5": the channels of buffer 5 that the value is; without a range when it is all of it.
std::string text_of(const Graph& graph, ValueId id) {
  const Value& value = graph.value(id);
  if (value.shape.c == graph.buffer(value.buffer).shape.c) return fmt::format("{}@{}", value.name, value.buffer);
  return fmt::format("{}[{}:{}]@{}", value.name, value.channel_offset, value.channel_offset + value.shape.c,
                     value.buffer);
}

void expect(bool holds, const Node& node, std::string_view rule) {
  if (!holds) throw Error("graph node {} ({}): {}", node.name, name_of(node.op), rule);
}

Shape with_channels(Shape shape, int c) {
  shape.c = c;
  return shape;
}

void validate_conv(const Graph& graph, const Node& node) {
  const Shape in = graph.value(node.inputs[0]).shape;
  const Shape out = graph.value(node.output).shape;
  expect(node.kernel % 2 == 1 && (node.stride == 1 || node.stride == 2), node, "kernel or stride is out of range");
  expect(node.groups == 1 || (node.groups == in.c && out.c == in.c), node, "groups are neither 1 nor the channels");
  for (const WeightSlice& slice : node.weights)
    expect(slice.in_end - slice.in_begin == in.c / node.groups, node, "weights and input channels differ");
  if (node.residual == kNone) return;
  const Shape residual = graph.value(node.residual).shape;
  const Shape half{out.n, out.h / 2, out.w / 2, out.c};
  expect(residual == out || (residual == half && out.h % 2 == 0 && out.w % 2 == 0), node,
         "residual is neither the output's size nor half of it");
}

void validate_shapes(const Graph& graph, const Node& node) {
  const Shape in = graph.value(node.inputs[0]).shape;
  if (node.op == Op::Conv) validate_conv(graph, node);
  expect(graph.value(node.output).shape == output_shape(graph, node), node, "output size does not follow");
  if (node.op == Op::Add)
    expect(node.inputs.size() == 2 && graph.value(node.inputs[1]).shape == in, node, "operands differ in size");
  if (node.op == Op::Concat)
    for (const ValueId id : node.inputs)
      expect(with_channels(graph.value(id).shape, in.c) == in, node, "parts differ in size");
}

void validate_contents(const Graph& graph, const Node& node) {
  const auto content = [&](ValueId id) { return graph.buffer_of(id).content; };
  const Content in = content(node.inputs[0]), out = content(node.output);
  expect((in == Content::ImageU8) == (node.op == Op::Cast) && out != Content::ImageU8, node,
         "pixels are where none are expected, or missing");
  for (const ValueId id : operands(node)) expect(content(id) == in, node, "operands differ in content");
  if (node.op == Op::Cast) return;
  if (node.op == Op::Convert)
    expect(out != in, node, "converts nothing");
  else
    expect(out == in || (node.op == Op::Conv && out == Content::Float32), node,
           "content of the output does not follow");
}

// Which channels of each buffer have been written so far.
class Written {
 public:
  explicit Written(const Graph& graph) : graph_(graph) {
    for (const Buffer& buffer : graph.buffers) channels_.emplace_back(static_cast<std::size_t>(buffer.shape.c), false);
  }
  void mark(ValueId id) {
    const auto [first, last] = range(id);
    std::fill(first, last, true);
  }
  bool all(ValueId id) {
    const auto [first, last] = range(id);
    return std::find(first, last, false) == last;
  }

 private:
  std::pair<std::vector<bool>::iterator, std::vector<bool>::iterator> range(ValueId id) {
    const Value& value = graph_.value(id);
    const auto first = channels_[static_cast<std::size_t>(value.buffer)].begin() + value.channel_offset;
    return {first, first + value.shape.c};
  }
  const Graph& graph_;
  std::vector<std::vector<bool>> channels_;
};

}  // namespace

ValueId add_value(Graph& graph, std::string name, Shape shape, Content content) {
  graph.buffers.push_back({shape, content});
  graph.values.push_back({std::move(name), shape, static_cast<BufferId>(graph.buffers.size() - 1), 0});
  return static_cast<ValueId>(graph.values.size() - 1);
}

Shape output_shape(const Graph& graph, const Node& node) {
  const Shape in = graph.value(node.inputs[0]).shape, halved{in.n, in.h / 2, in.w / 2, 4 * in.c};
  int channels = 0;
  switch (node.op) {
    case Op::Cast: return node.space_to_depth ? halved : in;
    case Op::SpaceToDepth: return halved;
    case Op::Conv:
      for (const WeightSlice& slice : node.weights) channels += slice.out;
      return {in.n, (in.h + node.stride - 1) / node.stride, (in.w + node.stride - 1) / node.stride, channels};
    case Op::Activate:
    case Op::Add:
    case Op::MaxPool:
    case Op::Convert: return in;
    case Op::SppPool: return with_channels(in, 3 * in.c);
    case Op::Upsample: return {in.n, 2 * in.h, 2 * in.w, in.c};
    case Op::Concat:
      for (const ValueId id : node.inputs) channels += graph.value(id).shape.c;
      return with_channels(in, channels);
  }
  return {};  // for a value that no enumerator has
}

std::vector<ValueId> operands(const Node& node) {
  std::vector<ValueId> ids = node.inputs;
  if (node.residual != kNone) ids.push_back(node.residual);
  return ids;
}

bool reads_pixels(const Graph& graph, const Node& node) {
  if (node.inputs.empty()) return false;
  const auto writer = std::ranges::find(graph.nodes, node.inputs[0], &Node::output);
  if (writer == graph.nodes.end()) return false;
  const bool passes_on = writer->op == Op::SpaceToDepth || writer->op == Op::Convert;
  return writer->op == Op::Cast || (passes_on && reads_pixels(graph, *writer));
}

void validate(const Graph& graph) {
  for (const Value& value : graph.values) {
    const Shape& buffer = graph.buffer(value.buffer).shape;
    if (with_channels(value.shape, buffer.c) != buffer || value.channel_offset < 0 || value.shape.c < 1 ||
        value.channel_offset + value.shape.c > buffer.c)
      throw Error("graph value {} ({}, channel {}) does not lie in its buffer ({})", value.name, text_of(value.shape),
                  value.channel_offset, text_of(buffer));
  }
  Written written(graph);
  written.mark(graph.input);
  for (const Node& node : graph.nodes) {
    expect(!node.inputs.empty() && node.output != kNone, node, "has no input or no output");
    for (const ValueId id : operands(node)) expect(written.all(id), node, "reads a value that is not written yet");
    validate_shapes(graph, node);
    validate_contents(graph, node);
    written.mark(node.output);
  }
  for (const HeadLevel& level : graph.head)
    if (!written.all(level.cls) || !written.all(level.reg)) throw Error("a head output of the graph is never written");
  for (const auto& features : {graph.backbone, graph.neck})
    for (const ValueId id : features)
      if (!written.all(id)) throw Error("feature map {} of the graph is never written", graph.value(id).name);
}

std::int64_t flops(const Graph& graph, const Node& node) {
  if (node.op != Op::Conv) return 0;
  const int in = graph.value(node.inputs[0]).shape.c / node.groups;
  return 2 * graph.value(node.output).shape.elements() * in * node.kernel * node.kernel;
}

std::string_view name_of(Op op) {
  switch (op) {
    case Op::Cast: return "cast";
    case Op::SpaceToDepth: return "space_to_depth";
    case Op::Conv: return "conv";
    case Op::Activate: return "activate";
    case Op::Add: return "add";
    case Op::MaxPool: return "max_pool";
    case Op::SppPool: return "spp_pool";
    case Op::Upsample: return "upsample";
    case Op::Concat: return "concat";
    case Op::Convert: return "convert";
  }
  return "?";
}

// What a node does beyond its name: "3x3 s2, + backbone.1.0@7, relu".
static std::string details(const Graph& graph, const Node& node) {
  std::string text;
  const auto append = [&](const std::string& part) { text += (text.empty() ? "" : ", ") + part; };
  if (node.op == Op::Conv) {
    append(
        fmt::format("{0}x{0}{1}{2}", node.kernel, node.stride == 2 ? " s2" : "", node.groups > 1 ? " depthwise" : ""));
    const std::string residual =
        node.residual == kNone
            ? ""
            : fmt::format("+ {}{}", text_of(graph, node.residual),
                          graph.value(node.residual).shape.h < graph.value(node.output).shape.h ? " up" : "");
    if (!residual.empty() && node.residual_first) append(residual);
    if (node.act != Activation::None) append(std::string(name_of(node.act)));
    if (!residual.empty() && !node.residual_first) append(residual);
  }
  if (node.op == Op::Activate) append(std::string(name_of(node.act)));
  if (node.op == Op::MaxPool) append(fmt::format("{0}x{0}", node.kernel));
  if (node.space_to_depth) append("space_to_depth");
  const bool from_fp32 = graph.buffer_of(node.inputs[0]).content == Content::Float32;
  if (node.op == Op::Convert)
    append(from_fp32 ? "from fp32" : "to fp32");
  else if (from_fp32)
    append("in fp32");
  return text;
}

std::string to_text(const Graph& graph) {
  std::string text;
  std::int64_t total = 0;
  for (const Node& node : graph.nodes) {
    std::string inputs;
    for (const ValueId id : node.inputs) inputs += (inputs.empty() ? "" : ", ") + text_of(graph, id);
    total += flops(graph, node);
    text += fmt::format("{:<14} {:<16} {} = ({}){}\n", name_of(node.op), text_of(graph.value(node.output).shape),
                        text_of(graph, node.output), inputs,
                        details(graph, node).empty() ? "" : "  " + details(graph, node));
  }
  text += fmt::format(
      "{} operations, {} convolutions, {:.2f} GFLOP\n", graph.nodes.size(),
      std::count_if(graph.nodes.begin(), graph.nodes.end(), [](const Node& node) { return node.op == Op::Conv; }),
      static_cast<double>(total) * 1e-9);
  return text;
}

std::string to_dot(const Graph& graph) {
  // Views make a value visible through others, so an edge goes from every node that wrote channels the operand has.
  std::string text = "digraph damoyolo {\n  rankdir=TB;\n  node [shape=box, fontname=\"sans-serif\", fontsize=10];\n";
  text += fmt::format("  image [label=\"image\\n{}\"];\n", text_of(graph.value(graph.input).shape));
  struct Writer {
    std::string id;
    Value value;
  };
  std::vector<Writer> writers{{"image", graph.value(graph.input)}};
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    const std::string id = fmt::format("n{}", i);
    text += fmt::format("  {} [label=\"{}\\n{} {}\\n{}\"];\n", id, node.name, name_of(node.op), details(graph, node),
                        text_of(graph.value(node.output).shape));
    for (const ValueId operand : operands(node)) {
      const Value& wanted = graph.value(operand);
      for (const Writer& writer : writers) {
        const Value& made = writer.value;
        if (made.buffer == wanted.buffer && made.channel_offset < wanted.channel_offset + wanted.shape.c &&
            wanted.channel_offset < made.channel_offset + made.shape.c)
          text += fmt::format("  {} -> {}{};\n", writer.id, id, operand == node.residual ? " [style=dashed]" : "");
      }
    }
    writers.push_back({id, graph.value(node.output)});
  }
  return text + "}\n";
}

}  // namespace damoyolo
