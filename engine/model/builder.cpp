#include "engine/model/builder.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace damoyolo {

ValueId Builder::append(Node node, Content content) {
  node.output = add_value(graph(), node.name, output_shape(graph(), node), content);
  return graph().nodes.emplace_back(std::move(node)).output;
}

ValueId Builder::conv(ConvSource source, ValueId x, ConvShape shape, Content content) {
  const int groups = shape.depthwise ? channels(x) : 1;
  source.out = shape.out;
  source.in_per_group = channels(x) / groups;
  source.kernel = shape.kernel;

  Node node{.op = Op::Conv,
            .name = source.node,
            .inputs = {x},
            .kernel = shape.kernel,
            .stride = shape.stride,
            .groups = groups};
  node.weights = {{source.node, shape.out, 0, source.in_per_group, true}};
  model_.sources.push_back(std::move(source));
  return append(std::move(node), content);
}

ValueId Builder::conv_bn(std::string node, std::string path, ConvBnNames names, ValueId x, ConvShape shape) {
  ConvSource source;
  source.kind = ConvSource::Kind::ConvBn;
  source.node = std::move(node);
  source.conv = path + std::string(names.conv);
  source.bn = path + std::string(names.bn);
  return conv(std::move(source), x, shape, Content::Activation);
}

ValueId Builder::rep_conv(std::string node, std::string path, ValueId x, ConvShape shape) {
  ConvSource source;
  source.kind = ConvSource::Kind::RepConv;
  source.node = std::move(node);
  source.conv = std::move(path);
  return conv(std::move(source), x, shape, Content::Activation);
}

ValueId Builder::head_conv(std::string node, std::string path, std::string scale, ValueId x, ConvShape shape) {
  ConvSource source;
  source.kind = ConvSource::Kind::Biased;
  source.node = std::move(node);
  source.conv = std::move(path);
  source.scale = std::move(scale);
  return conv(std::move(source), x, shape, Content::Float32);
}

ValueId Builder::activate(ValueId x, Activation act) {
  if (act == Activation::None) return x;
  return append({.op = Op::Activate, .name = graph().value(x).name + ".act", .inputs = {x}, .act = act});
}

ValueId Builder::add(std::string node, ValueId a, ValueId b) {
  return append({.op = Op::Add, .name = std::move(node), .inputs = {a, b}});
}

ValueId Builder::max_pool(std::string node, ValueId x, int kernel) {
  return append({.op = Op::MaxPool, .name = std::move(node), .inputs = {x}, .kernel = kernel});
}

ValueId Builder::upsample(std::string node, ValueId x) {
  return append({.op = Op::Upsample, .name = std::move(node), .inputs = {x}});
}

ValueId Builder::concat(std::string node, std::vector<ValueId> parts) {
  return append({.op = Op::Concat, .name = std::move(node), .inputs = std::move(parts)});
}

ValueId Builder::cast(std::string node, ValueId image) {
  return append({.op = Op::Cast, .name = std::move(node), .inputs = {image}});
}

ValueId Builder::space_to_depth(std::string node, ValueId x) {
  return append({.op = Op::SpaceToDepth, .name = std::move(node), .inputs = {x}});
}

ValueId Builder::spp(const std::string& node, const std::string& path, ValueId x, int out) {
  const int half = channels(x) / 2;
  ValueId reduced = conv_bn(node + ".conv1", path + ".conv1", kConvBn, x, {.out = half});
  reduced = activate(reduced, Activation::Silu);
  std::vector<ValueId> parts{reduced};
  for (const int kernel : {5, 9, 13})
    parts.push_back(max_pool(node + ".pool" + std::to_string(kernel), reduced, kernel));
  const ValueId joined = concat(node + ".concat", std::move(parts));
  return activate(conv_bn(node + ".conv2", path + ".conv2", kConvBn, joined, {.out = out}), Activation::Silu);
}

ValueId Builder::mobile_block(const std::string& node, const std::string& path, ValueId x, MobileBlock block,
                              Activation act) {
  // The checkpoint's Sequential numbers a convolution and, one later, its BatchNorm.
  const auto step = [&](const char* name, int index, ValueId input, ConvShape shape) {
    ConvSource source;
    source.kind = ConvSource::Kind::ConvBn;
    source.node = node + "." + name;
    source.conv = path + "." + std::to_string(index);
    source.bn = path + "." + std::to_string(index + 1);
    return conv(std::move(source), input, shape, Content::Activation);
  };
  ValueId y = activate(step("expand", 0, x, {.out = block.hidden}), act);
  y = activate(step("depthwise", 3, y, {.out = block.hidden, .kernel = 5, .stride = block.stride, .depthwise = true}),
               act);
  y = step("project", block.project_index, y, {.out = block.out});
  const bool residual = block.stride == 1 && channels(x) == block.out;
  return residual ? add(node + ".add", y, x) : y;
}

int make_divisible(double value, int divisor) {
  const int rounded = std::max(divisor, static_cast<int>(std::floor((value + divisor / 2.0) / divisor)) * divisor);
  return rounded < 0.9 * value ? rounded + divisor : rounded;
}

}  // namespace damoyolo
