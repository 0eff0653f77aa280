// RepGFPN (GiraffeNeckV2): feature maps at strides 8, 16, 32 merged top-down, then bottom-up.

#include <cmath>

#include "engine/model/builder.h"

namespace damoyolo {
namespace {

struct Neck {
  Builder& build;
  const NeckSpec& spec;

  // 3×3 stride 2 with the same channels; depthwise models split it into depthwise 3×3 and pointwise 1×1.
  ValueId downsample(const char* name, ValueId x) {
    const std::string path = std::string("neck.") + name;
    const int channels = build.channels(x);
    if (!spec.depthwise)
      return build.activate(build.conv_bn(path, path, kConvBn, x, {.out = channels, .kernel = 3, .stride = 2}),
                            spec.act);
    x = build.conv_bn(path + ".depthwise", path, {".depthwise", ".dwnorm"}, x,
                      {.out = channels, .kernel = 3, .stride = 2, .depthwise = true});
    x = build.activate(x, spec.act);
    x = build.conv_bn(path + ".pointwise", path, {".pointwise", ".pwnorm"}, x, {.out = channels});
    return build.activate(x, spec.act);
  }

  // BasicBlock_3x3_Reverse: the RepConv comes first, and nothing follows the sum. Depthwise models: MobileV3Block.
  ValueId block(const std::string& node, const std::string& path, ValueId x) {
    const int width = build.channels(x);
    if (spec.depthwise)
      return build.mobile_block(
          node, path + ".conv.conv", x,
          {.hidden = make_divisible(std::ceil(3.0 * width), 8), .out = width, .stride = 1, .project_index = 6},
          spec.act);
    const int hidden = static_cast<int>(width * spec.hidden_ratio);
    ValueId y =
        build.activate(build.rep_conv(node + ".conv2", path + ".conv2", x, {.out = hidden, .kernel = 3}), spec.act);
    y = build.activate(build.conv_bn(node + ".conv1", path + ".conv1", kConvBn, y, {.out = width, .kernel = 3}),
                       spec.act);
    return build.add(node + ".add", y, x);
  }

  // CSPStage: one 1×1 kept as it is, beside it a chain of blocks on another, every block's output joined.
  ValueId merge(const char* name, std::vector<ValueId> parts, int out) {
    const std::string path = std::string("neck.") + name;
    const ValueId x = parts.size() == 1 ? parts.front() : build.concat(path + ".input", std::move(parts));
    const int first = out / 2;
    const auto pointwise = [&](const char* layer, ValueId input, int width) {
      return build.activate(build.conv_bn(path + layer, path + layer, kConvBn, input, {.out = width}), spec.act);
    };
    std::vector<ValueId> joined{pointwise(".conv1", x, first)};
    ValueId y = pointwise(".conv2", x, out - first);
    const long blocks = std::lrint(3 * spec.depth);  // the default rounding mode is half to even, as Python's round
    for (long i = 0; i < blocks; ++i) {
      const std::string index = std::to_string(i);
      y = block(path + "." + index, path + ".convs." + index, y);
      joined.push_back(y);
    }
    return pointwise(".conv3", build.concat(path + ".concat", std::move(joined)), out);
  }
};

}  // namespace

std::array<ValueId, 3> build_neck(Builder& build, const NeckSpec& spec, const std::array<ValueId, 3>& features) {
  Neck neck{build, spec};
  const auto [x2, x1, x0] = features;
  const auto& in = spec.in;
  const auto& out = spec.out;

  const ValueId x3 = neck.merge("merge_3", {x0, neck.downsample("bu_conv13", x1)}, in[2]);
  const ValueId x3_up = build.upsample("neck.upsample_3", x3);
  const ValueId x4 = neck.merge("merge_4", {x1, neck.downsample("bu_conv24", x2), x3_up}, in[1]);
  const ValueId x4_up = build.upsample("neck.upsample_4", x4);
  const ValueId x5 = neck.merge("merge_5", {x2, x4_up}, out[0]);
  const ValueId x7 = neck.merge("merge_7", {x4, neck.downsample("bu_conv57", x5)}, out[1]);
  const ValueId x4_down = neck.downsample("bu_conv46", x4);
  const ValueId x6 = neck.merge("merge_6", {x3, x4_down, neck.downsample("bu_conv76", x7)}, out[2]);
  return {x5, x7, x6};
}

}  // namespace damoyolo
