// The vocabulary that backbone, neck and head are written in: each call adds one node and returns its value.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/model/build.h"

namespace damoyolo {

// Where a ConvBn's two modules stand below its path; the training code has several habits.
struct ConvBnNames {
  std::string_view conv, bn;
};
constexpr ConvBnNames kConvBn{".conv", ".bn"};
constexpr ConvBnNames kConv1Bn1{".conv1", ".bn1"};

struct ConvShape {
  int out = 0;
  int kernel = 1;
  int stride = 1;
  bool depthwise = false;  // out must be the input's channels
};

class Builder {
 public:
  explicit Builder(BuiltModel& model) : model_(model) {}

  int channels(ValueId x) const { return graph().value(x).shape.c; }
  Graph& graph() { return model_.graph; }
  const Graph& graph() const { return model_.graph; }

  // Convolution and its BatchNorm, already folded into weight and bias.
  ValueId conv_bn(std::string node, std::string path, ConvBnNames names, ValueId x, ConvShape shape);
  ValueId rep_conv(std::string node, std::string path, ValueId x, ConvShape shape);
  // The head's: with bias, fp32 output, optionally times a learned scalar.
  ValueId head_conv(std::string node, std::string path, std::string scale, ValueId x, ConvShape shape);

  ValueId activate(ValueId x, Activation act);  // None: x itself
  ValueId add(std::string node, ValueId a, ValueId b);
  ValueId max_pool(std::string node, ValueId x, int kernel);
  ValueId upsample(std::string node, ValueId x);
  ValueId concat(std::string node, std::vector<ValueId> parts);
  ValueId cast(std::string node, ValueId image);
  ValueId space_to_depth(std::string node, ValueId x);

  // 1×1 to half the width, the input beside its max-pools 5, 9, 13, 1×1 to `out`; always SiLU.
  ValueId spp(const std::string& node, const std::string& path, ValueId x, int out);

  struct MobileBlock {
    int hidden = 0, out = 0, stride = 1;
    int project_index = 7;  // of the last convolution in the checkpoint's Sequential
  };
  // Inverted residual: 1×1 up, depthwise 5×5, 1×1 down without activation; plus x when the shapes allow.
  ValueId mobile_block(const std::string& node, const std::string& path, ValueId x, MobileBlock block, Activation act);

 private:
  ValueId conv(ConvSource source, ValueId x, ConvShape shape, Content content);
  ValueId append(Node node, Content content = Content::Activation);

  BuiltModel& model_;
};

// Channel counts as the training code rounds them: a multiple of `divisor`, never more than a tenth below `value`.
int make_divisible(double value, int divisor);

std::array<ValueId, 3> build_backbone(Builder& build, const BackboneSpec& spec, ValueId image);
std::array<ValueId, 3> build_neck(Builder& build, const NeckSpec& spec, const std::array<ValueId, 3>& features);
void build_head(Builder& build, const HeadSpec& spec, const std::array<ValueId, 3>& features);

}  // namespace damoyolo
