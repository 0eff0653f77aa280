// The network as data: nodes over values with static NHWC shapes.
//
// A value is a view: a buffer and a channel offset into it. As built, every value has a buffer of its own; the pass
// that removes concatenations places the parts into one buffer, so that they are written where they are read.
// Everything is a plain struct indexed by position; nothing here knows a backend or holds a weight.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/spec.h"

namespace damoyolo {

using ValueId = int;
using BufferId = int;
constexpr int kNone = -1;

struct Shape {
  int n = 0, h = 0, w = 0, c = 0;
  std::int64_t pixels() const { return std::int64_t{n} * h * w; }
  std::int64_t elements() const { return pixels() * c; }
  bool operator==(const Shape&) const = default;
};

// What a value holds. Activations are stored in the precision the plan chooses (fp32, bf16, fp16), Float32 is fp32
// whatever that is: what the head's convolutions write, and what layers kept in fp32 read. A node computes in the
// precision of its operands; they agree. A convolution of Activations may write either, Convert writes the other, and
// every other node what it reads.
enum class Content : std::uint8_t { ImageU8, Activation, Float32 };

struct Buffer {
  Shape shape;
  Content content = Content::Activation;
};

struct Value {
  std::string name;  // of the node that makes it
  Shape shape;       // c: this view's channels, at most those of its buffer
  BufferId buffer = kNone;
  int channel_offset = 0;
};

enum class Op : std::uint8_t {
  Cast,          // uint8 pixels → activations; with `space_to_depth`, Focus in the same read
  SpaceToDepth,  // [h, w, c] → [h/2, w/2, 4c]: (0,0), (1,0), (0,1), (1,1) in (row, column) steps
  Conv,          // see Node
  Activate,
  Add,
  MaxPool,   // stride 1, padded to the same size
  SppPool,   // max-pools 5, 9, 13 of one input, side by side in the channels
  Upsample,  // nearest ×2
  Concat,    // along the channels
  Convert,   // Activation ↔ Float32
};

// A block of input channels of one tensor in the weights file: `tensor`.weight is [out, in/groups, k, k], and the
// node uses in channels [in_begin, in_end). `bias`: add `tensor`.bias too.
struct WeightSlice {
  std::string tensor;
  int out = 0;
  int in_begin = 0, in_end = 0;
  bool bias = true;
};

// Conv: padding (kernel − 1)/2, dilation 1; groups is 1 or, for depthwise, the channel count.
//   y = conv(x) + bias;  residual_first: y = act(y + r), else: y = act(y) + r
// where r is `residual`, read with nearest ×2 when it has half the size.
struct Node {
  Op op{};
  std::string name;  // unique; a convolution's is the prefix of its tensors unless passes merged or split it
  std::vector<ValueId> inputs;
  ValueId output = kNone;

  int kernel = 1, stride = 1, groups = 1;  // Conv; MaxPool uses kernel
  std::vector<WeightSlice> weights = {};   // Conv: stacked along the output channels, in order
  Activation act = Activation::None;       // Conv, Activate
  ValueId residual = kNone;                // Conv
  bool residual_first = true;
  bool space_to_depth = false;  // Cast
};

// One level of the head: raw outputs of its two convolutions, as views.
struct HeadLevel {
  ValueId cls = kNone;  // [n, h, w, classes (+1 when legacy)] logits
  ValueId reg = kNone;  // [n, h, w, 4·(reg_max+1)] bin logits, left, top, right, bottom
  int stride = 0;       // of the level, in network pixels
};

struct Graph {
  std::vector<Node> nodes;  // in an order that can be executed
  std::vector<Value> values;
  std::vector<Buffer> buffers;
  ValueId input = kNone;  // [n, h, w, 3] ImageU8
  std::array<HeadLevel, 3> head;
  std::array<ValueId, 3> backbone{}, neck{};  // the feature maps at strides 8, 16, 32, for tests and tools

  const Value& value(ValueId id) const { return values[static_cast<std::size_t>(id)]; }
  const Buffer& buffer(BufferId id) const { return buffers[static_cast<std::size_t>(id)]; }
  const Buffer& buffer_of(ValueId id) const { return buffer(value(id).buffer); }
};

// Adds a value with a buffer of its own.
ValueId add_value(Graph& graph, std::string name, Shape shape, Content content = Content::Activation);

// The shape of a node's output, as its operation, inputs and weights have it.
Shape output_shape(const Graph& graph, const Node& node);

// Inputs and residual of a node, in that order.
std::vector<ValueId> operands(const Node& node);

// Whether a node's first input is pixels as Cast gives them, rearranged or converted since or not.
bool reads_pixels(const Graph& graph, const Node& node);

// Throws Error at the first broken rule: shapes that do not follow from the operation, a value read before it is
// written, a view outside its buffer, channels of weights that do not add up. Passes are tested with it.
void validate(const Graph& graph);

// 2·multiply-adds of a convolution; 0 for any other node.
std::int64_t flops(const Graph& graph, const Node& node);

std::string_view name_of(Op op);
std::string to_text(const Graph& graph);  // a line per node, then totals
std::string to_dot(const Graph& graph);   // Graphviz

}  // namespace damoyolo
